"""Pairs of an image and a text tower in Hugging Face folders (transformers'
VisionTextDualEncoderModel; Zhai et al. 2022, "LiT"): CLIP's image tower or ViT, and BERT or
RoBERTa, each behind its pooler."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vlp_jax.weights.families import bert, clip, roberta
from vlp_jax.weights.families.huggingface_vit_layers import VIT
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rules, Shape, linear, same, within
from vlp_jax.weights.settings import Given, Key, Settings

VIT_FIXED = {
    "model.image.pooling": "cls",
    "model.image.norm_before_pooling": True,
    "model.image.pooler": True,
    "model.image.projection": "linear",
}
TEXT_FIXED = {**bert.TEXT_FIXED, "model.text.pooler": True, "model.text.projection": "linear"}
HEADS: Rules = (
    *within("text_model.", "model/text/", bert.EMBEDDINGS, bert.LAYERS),
    *linear("text_model.pooler.dense", "model/text/pooler"),
    *linear("visual_projection", "model/image_projection"),
    *linear("text_projection", "model/text_projection"),
    same("logit_scale", "objectives_contrastive/log_scale"),
)
LENGTH = Key("text_config.max_position_embeddings", "model.text.length")


def settings(image: tuple[Key, ...], image_fixed: Mapping[str, Any], *text: Key) -> Settings:
    """The settings of a pair of towers."""
    return Settings(
        keys=(
            *image,
            *bert.text("text_config."),
            *text,
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=(
            Given("vision_config.num_channels", 3),
            Given("vision_config.qkv_bias", True),
            Given("vision_config.pooler_act", "tanh"),
            Given("text_config.is_decoder", False),
        ),
        fixed={**image_fixed, **TEXT_FIXED, "objectives.contrastive.kind": "clip"},
    )


class ClipBert(Family):
    """CLIP's image tower and BERT."""

    title, model_type = "VisionTextDualEncoderModel", "vision-text-dual-encoder"
    image_processor, processor = "CLIPImageProcessor", "VisionTextDualEncoderProcessor"
    free = ("model.image.norm_before_pooling",)
    towers: ClassVar[tuple[str, str]] = ("clip_vision_model", "bert")
    settings = settings(clip.image("vision_config."), clip.IMAGE_FIXED, LENGTH)
    rules = (*clip.IMAGE, *HEADS)
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def defaults(self) -> dict[str, Any]:
        """Those of both towers, in one config."""
        from transformers import CONFIG_MAPPING

        image, text = (CONFIG_MAPPING[name]().to_dict() for name in self.towers)
        return {"vision_config": image, "text_config": text}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config; settings of the other kind of image tower go."""
        found = super().their_config(config)
        bert.check_types(config)
        known = self.defaults()["vision_config"]
        image = {key: value for key, value in found["vision_config"].items() if key in known}
        if "pooler_output_size" in image:
            image["pooler_output_size"] = image["hidden_size"]
        return {**found, "vision_config": image}


class VitBert(ClipBert):
    """ViT and BERT."""

    image_processor = "ViTImageProcessor"
    free = ()
    towers = ("vit", "bert")
    settings = settings(clip.image("vision_config."), VIT_FIXED, LENGTH)
    rules = (*within("vision_model.", "model/image/", VIT), *HEADS)


class ClipRoberta(ClipBert):
    """CLIP's image tower and RoBERTa."""

    towers = ("clip_vision_model", "roberta")
    settings = settings(clip.image("vision_config."), clip.IMAGE_FIXED)
    default_tokens = roberta.DEFAULT_TOKENS

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the first position after that of the padding."""
        return roberta.placed(super().config(theirs, shapes, place), theirs["text_config"])

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, with the padding token before the first position.

        Raises:
          ConfigError: the first position is that of the first token.
        """
        found = super().their_config(config)
        found["text_config"] |= roberta.places(config.model.text)
        return found

    def check_tokenizer(self, theirs: Mapping[str, Any], tokenizer: Any) -> None:
        """Checks that the padding token is the one by which positions are counted.

        Raises: as `roberta.check_padding`.
        """
        roberta.check_padding(theirs["text_config"], tokenizer.special_ids[2])


class VitRoberta(ClipRoberta):
    """ViT and RoBERTa."""

    image_processor = "ViTImageProcessor"
    free = ()
    towers = ("vit", "roberta")
    settings = settings(clip.image("vision_config."), VIT_FIXED)
    rules = VitBert.rules
