"""BLIP in Hugging Face folders (transformers' BlipModel, BlipForImageTextRetrieval,
BlipForConditionalGeneration and BlipForQuestionAnswering; Li et al. 2022)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import ConfigError
from vlp_jax.weights.families import bert
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import (
    Shape,
    class_and_positions,
    fused_attention,
    leading,
    linear,
    norm,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

IMAGE = within(
    "vision_model.",
    "model/image/",
    within(
        "embeddings.",
        "",
        same("class_embedding", "class_token"),
        patches("patch_embedding", "patch_embedding"),
        class_and_positions("position_embedding", dims=3),
    ),
    within(
        "encoder.layers.{}.",
        "transformer/layer_{}/",
        norm("layer_norm1", "attention_norm"),
        fused_attention("self_attn.qkv.weight", "self_attn.qkv.bias", "self_attn.projection"),
        norm("layer_norm2", "mlp_norm"),
        linear("mlp.fc1", "mlp/in"),
        linear("mlp.fc2", "mlp/out"),
    ),
    norm("post_layernorm", "norm"),
)
WORDS = within(
    "embeddings.",
    "",
    same("word_embeddings.weight", "tokens/embedding"),
    leading("position_embeddings.weight", "position"),
    norm("LayerNorm", "embedding_norm"),
)
ENCODER = within("text_encoder.", "model/text/", WORDS, bert.LAYERS)
IMAGE_FIXED = {
    "model.image.pooling": "cls",
    "model.image.norm_before_pooling": True,
    "model.image.projection": "linear_with_bias",
}
TEXT_FIXED = {
    **bert.TEXT_FIXED,
    "model.text.token_types": 0,
    "model.text.pooler": False,
    "model.text.projection": "linear_with_bias",
}
IN_TEXT_TOWER = {"model.fusion.kind": "in_text_tower", "model.fusion.start_token": False}
KEYS = (
    *image("vision_config."),
    *(key for key in bert.text("text_config.") if key.ours != "model.text.token_types"),
    Key("text_config.max_position_embeddings", "model.text.length"),
)
GIVEN = (Given("text_config.tie_word_embeddings", True),)
SMOOTHING = Key("text_config.label_smoothing", "objectives.words.label_smoothing")


class Blip(Family):
    """What the classes have in common."""

    model_type, image_processor, processor = "blip", "BlipImageProcessor", "BlipProcessor"
    ignored = r"(^|\.)position_ids$|\.cls\.predictions\.decoder\."
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, with the width of the images' tokens in the text's."""
        found = super().their_config(config)
        found["text_config"]["encoder_hidden_size"] = found["vision_config"]["hidden_size"]
        return found


class BlipModel(Blip):
    """transformers' BlipModel: embeddings of images, whose pooled vector is normed twice, of texts,
    and of pairs, for which the text tower reads the text a second time, with the image.

    The classification of pairs, which the class has no head for, is a fresh one.
    """

    title = "BlipModel"
    parts = ("model/", "objectives_contrastive/")
    settings = Settings(
        keys=(*KEYS, Key("projection_dim", "model.embedding_dim")),
        given=GIVEN,
        fixed={
            **IMAGE_FIXED,
            **TEXT_FIXED,
            **IN_TEXT_TOWER,
            "model.image.norm_pooled": True,
            "model.image.projection": "linear",
            "model.text.pooler": True,
            "model.text.projection": "linear",
            "objectives.contrastive.kind": "clip",
            "objectives.matching.kind": "matching",
        },
    )
    rules = (
        *IMAGE,
        *within("text_model.", "model/text/", WORDS, bert.LAYERS, linear("pooler.dense", "pooler")),
        *linear("visual_projection", "model/image_projection"),
        *linear("text_projection", "model/text_projection"),
        same("logit_scale", "objectives_contrastive/log_scale"),
    )


class BlipForImageTextRetrieval(Blip):
    """transformers' BlipForImageTextRetrieval: embeddings, without a scale, and the classification
    of pairs, for which the text tower reads the text a second time, with the image.

    A text begins with the token that it is given: unlike ours by default, the class replaces none.
    """

    title = "BlipForImageTextRetrieval"
    parts = ("model/", "objectives_matching/")
    settings = Settings(
        keys=(*KEYS, Key("image_text_hidden_size", "model.embedding_dim")),
        given=GIVEN,
        fixed={
            **IMAGE_FIXED,
            **TEXT_FIXED,
            **IN_TEXT_TOWER,
            "objectives.contrastive.kind": "clip",
            "objectives.matching.kind": "matching",
        },
    )
    rules = (
        *IMAGE,
        *ENCODER,
        *linear("vision_proj", "model/image_projection"),
        *linear("text_proj", "model/text_projection"),
        *linear("itm_head", "objectives_matching/head"),
    )


class BlipForConditionalGeneration(Blip):
    """transformers' BlipForConditionalGeneration: the text tower decodes, and only that."""

    title = "BlipForConditionalGeneration"
    free = ("model.embedding_dim", "model.*.projection", "model.text.pooling")
    settings = Settings(
        keys=(*KEYS, SMOOTHING),
        given=GIVEN,
        fixed={
            **IMAGE_FIXED,
            **TEXT_FIXED,
            "model.decoder.kind": "in_text_tower",
            "model.decoder.start_token": False,
            "model.decoder.own": (),
            "objectives.words.kind": "captioning",
        },
    )
    rules = (
        *IMAGE,
        *within("text_decoder.bert.", "model/text/", WORDS, bert.LAYERS),
        *within("text_decoder.cls.predictions.", "model/decoder/", bert.WORD_HEAD),
    )


class BlipForQuestionAnswering(Blip):
    """transformers' BlipForQuestionAnswering: the text tower reads the question with the image,
    and a decoder like it writes the answer.

    Our decoder sees no padding of a question; that of transformers does.
    """

    title = "BlipForQuestionAnswering"
    free = ("model.embedding_dim", "model.*.projection", "model.text.pooling")
    settings = Settings(
        keys=(
            *KEYS,
            SMOOTHING,
            *(
                Key(f"text_config.{there}", f"model.decoder.{here}", values)
                for there, here, values in (
                    ("hidden_size", "width", {}),
                    ("num_hidden_layers", "depth", {}),
                    ("num_attention_heads", "heads", {}),
                    ("intermediate_size", "mlp_dim", {}),
                    ("layer_norm_eps", "norm_epsilon", {}),
                    ("hidden_act", "activation", ACTIVATIONS),
                )
            ),
        ),
        given=GIVEN,
        fixed={
            **IMAGE_FIXED,
            **TEXT_FIXED,
            **IN_TEXT_TOWER,
            "model.decoder.kind": "transformer",
            "model.decoder.image": "cross_attention",
            "model.decoder.norm": "post",
            "model.decoder.embedding_norm": True,
            "model.decoder.final_norm": False,
            "model.decoder.word_head": True,
            "objectives.words.kind": "answering",
            "objectives.words.target": "answer",
            "data.targets.answer.kind": "text",
            "data.targets.answer.field": "answer",
            "data.targets.answer.classes": 2,
        },
    )
    rules = (
        *IMAGE,
        *ENCODER,
        *within(
            "text_decoder.bert.",
            "model/decoder/",
            same("embeddings.word_embeddings.weight", "tokens"),
            leading("embeddings.position_embeddings.weight", "position"),
            norm("embeddings.LayerNorm", "embedding_norm"),
            bert.LAYERS,
        ),
        *within("text_decoder.cls.predictions.", "model/decoder/head/", bert.WORD_HEAD),
    )

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with answers of at most eight tokens."""
        found = super().config(theirs, shapes, place)
        return {**found, "data.targets.answer.length": min(8, found["model.text.length"])}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config.

        Raises:
          ConfigError: image and text have different widths, and the class has one for both.
        """
        found = super().their_config(config)
        image, text = found["vision_config"]["hidden_size"], found["text_config"]["hidden_size"]
        if image != text:
            raise ConfigError(
                f"model.text.width: {text} cannot be exported, model.image has {image}"
            )
        return found
