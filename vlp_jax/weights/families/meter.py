"""METER in the layout of its released code (Dou et al. 2022; meter/modules/meter_module.py).

The image tower is CLIP's without its last layer, the text tower RoBERTa or BERT; those with a Swin
tower are not supported. What the code keeps and does not compute with is not read: the parts of
CLIP's text tower and the text tower's pooler.
"""

import os
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families import bert, openclip_vit
from vlp_jax.weights.families.released_code import (
    ReleasedCode,
    depth_of,
    heads_of,
    rows_of,
    tokenizer_of,
)
from vlp_jax.weights.rules import Shape, first_rows, linear, norm, rows, same, within
from vlp_jax.weights.settings import Key, Settings

RESBLOCKS = "vit_model.visual.transformer.resblocks."
TEXT = within(
    "text_transformer.",
    "model/text/",
    within(
        "embeddings.",
        "",
        same("word_embeddings.weight", "tokens/embedding"),
        first_rows("position_embeddings.weight", "position"),
        same("token_type_embeddings.weight", "token_type"),
        norm("LayerNorm", "embedding_norm"),
    ),
    bert.LAYERS,
)
FUSION = within(
    "",
    "model/fusion/",
    linear("cross_modal_image_transform", "image_in"),
    linear("cross_modal_text_transform", "text_in"),
    rows("token_type_embeddings.weight", "text_type", "image_type"),
    within("cross_modal_image_layers.{}.", "image_layer_{}/", bert.LAYER),
    within("cross_modal_text_layers.{}.", "text_layer_{}/", bert.LAYER),
    linear("cross_modal_image_pooler.dense", "image_pooler"),
    linear("cross_modal_text_pooler.dense", "text_pooler"),
)
HEADS = {
    "mlm_score.bias": {
        "objectives.words.kind": "masked_language",
        "objectives.words.head_layers": "fusion",
    },
    "itm_score.fc.bias": {
        "objectives.matching.kind": "matching",
        "objectives.matching.negatives": "uniform",
        "objectives.matching.negatives_from": "image",
        "objectives.matching.negative_rate": 0.5,
    },
    "vqa_classifier.3.bias": {
        "objectives.answers.kind": "classification",
        "objectives.answers.loss": "binary",
        "objectives.answers.target": "answer",
        "objectives.answers.norm_epsilon": 1e-5,
        "data.targets.answer.kind": "scores",
        "data.targets.answer.field": "answers",
    },
}
ROBERTA = {
    "model.text.norm_epsilon": 1e-5,
    "model.text.position_offset": 2,
    **tokenizer_of("roberta-base", {"start": "<s>", "end": "</s>", "padding": "<pad>"}),
}
BERT = {
    "model.text.norm_epsilon": 1e-12,
    **tokenizer_of("bert-base-uncased", {"start": "[CLS]", "end": "[SEP]", "padding": "[PAD]"}),
}
MASK_IDS = {"roberta": 50264, "bert": 103}


class Meter(ReleasedCode):
    """METER, with those heads that the file has: for masked words, matching, and answers of VQA.

    The answers themselves are in no checkpoint: answers.txt in its folder has one a line, in order
    of the outputs.
    Texts have METER's `max_text_len`; the positions beyond are not read.
    """

    title = "METER"
    settings = Settings(
        keys=(
            Key("image_size", "model.image.image_size"),
            Key("patch_size", "model.image.patch_size"),
            Key("input_image_embed_size", "model.image.width"),
            Key("input_text_embed_size", "model.text.width"),
            Key("max_text_len", "model.text.length"),
            Key("vocab_size", "model.text.vocab_size"),
            Key("hidden_size", "model.fusion.width"),
            Key("num_heads", "model.fusion.heads"),
            Key("num_top_layer", "model.fusion.depth"),
        ),
        fixed={
            "model.image.pooling": "cls",
            "model.image.embedding_norm": True,
            "model.image.patch_bias": False,
            "model.image.norm_epsilon": 1e-5,
            "model.image.activation": "quick_gelu",
            **bert.TEXT_FIXED,
            "model.fusion.kind": "co_attention",
            "model.fusion.norm": "post",
            "model.fusion.final_norm": False,
            "model.fusion.norm_epsilon": 1e-12,
            "model.fusion.projected": True,
            "model.fusion.pooler": True,
            "data.images.resize": "shortest_side_crop",
            "data.images.interpolation": "bicubic",
            "data.images.transparency": "drop",
        },
    )
    rules = (
        *within("vit_model.", "", openclip_vit.IMAGE),
        *TEXT,
        *FUSION,
        *linear("itm_score.fc", "objectives_matching/head"),
        *linear("vqa_classifier.0", "objectives_answers/head/hidden"),
        *norm("vqa_classifier.1", "objectives_answers/head/norm"),
        *linear("vqa_classifier.3", "objectives_answers/head/out"),
        *within(
            "mlm_score.", "objectives_words/head/", bert.WORD_HEAD, same("decoder.weight", "table")
        ),
    )
    ignored = (
        r"(^|\.)position_ids$|^text_transformer\.pooler\.|"
        r"^vit_model\.(token_embedding|positional_embedding|ln_final)(\.|$)"
    )

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the sizes of the towers that only the tensors have.

        Raises:
          CheckpointError: as `Family.config` and `heads`; the image tower is a Swin transformer.
        """
        if "swin" in str(theirs.get("vit")):
            raise CheckpointError(f"{place}: vit {theirs['vit']!r} is not supported")
        found = super().config(theirs, shapes, place) | heads(shapes, place)
        name = str(theirs.get("tokenizer", "bert-base-uncased"))
        kind = "roberta" if "roberta" in name else "bert"
        if "objectives.words.kind" in found:
            found["objectives.words.mask_id"] = MASK_IDS[kind]
        text, types = "text_transformer.encoder.layer.", "embeddings.token_type_embeddings.weight"
        return {
            **found,
            **(ROBERTA if kind == "roberta" else BERT),
            "data.text.tokenizer": tokenizer_of(name, {})["data.text.tokenizer"],
            "model.image.heads": heads_of(found["model.image.width"]),
            "model.image.depth": depth_of(shapes, RESBLOCKS),
            "model.image.mlp_dim": rows_of(shapes, f"{RESBLOCKS}0.mlp.c_fc.bias", place),
            "model.text.heads": heads_of(found["model.text.width"]),
            "model.text.depth": depth_of(shapes, text),
            "model.text.mlp_dim": rows_of(shapes, f"{text}0.intermediate.dense.bias", place),
            "model.text.token_types": rows_of(shapes, f"text_transformer.{types}", place),
            "model.fusion.mlp_dim": found["model.fusion.width"] * theirs.get("mlp_ratio", 4),
        }


def heads(shapes: Mapping[str, Shape], place: str) -> dict[str, Any]:
    """The settings of the objectives whose heads there are.

    Raises:
      CheckpointError: the answers of VQA are not known.
    """
    present = [settings for head, settings in HEADS.items() if head in shapes]
    found = {key: value for settings in present for key, value in settings.items()}
    if "objectives.answers.kind" not in found:
        return found
    answers = os.path.join(os.path.dirname(place), "answers.txt")
    if not os.path.exists(answers):
        raise CheckpointError(
            f"{answers}: does not exist; a file with the answers of vqa_classifier, one a line in "
            "the order of its outputs, is needed"
        )
    return {
        **found,
        "objectives.answers.hidden_dim": rows_of(shapes, "vqa_classifier.0.bias", place),
        "data.targets.answer.classes": rows_of(shapes, "vqa_classifier.3.bias", place),
        "data.targets.answer.file": answers,
    }
