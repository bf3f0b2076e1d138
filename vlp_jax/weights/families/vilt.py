"""ViLT in Hugging Face folders (transformers' ViltForMaskedLM and ViltForImageAndTextRetrieval; Kim
et al. 2021).

Both towers are embeddings alone; the image's pooled vector, behind a norm, is not read.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert
from vlp_jax.weights.families.huggingface_vit_layers import VIT_EMBEDDINGS, VIT_LAYERS
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import leading, linear, norm, rows, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

MODALITIES = rows(
    "embeddings.token_type_embeddings.weight", "model/fusion/text_type", "model/fusion/image_type"
)
MODEL = within(
    "vilt.",
    "",
    within("", "model/image/", VIT_EMBEDDINGS),
    within(
        "embeddings.text_embeddings.",
        "model/text/",
        same("word_embeddings.weight", "tokens/embedding"),
        leading("position_embeddings.weight", "position"),
        same("token_type_embeddings.weight", "token_type"),
        norm("LayerNorm", "embedding_norm"),
    ),
    MODALITIES,
    within("", "model/fusion/", VIT_LAYERS, norm("layernorm", "norm")),
    linear("pooler.dense", "model/fusion/pooler"),
)
OF_ALL = (
    ("hidden_size", "width", {}),
    ("num_attention_heads", "heads", {}),
    ("intermediate_size", "mlp_dim", {}),
    ("layer_norm_eps", "norm_epsilon", {}),
    ("hidden_act", "activation", ACTIVATIONS),
)
KEYS = (
    *(
        Key(there, f"model.{part}.{here}", values)
        for there, here, values in OF_ALL
        for part in ("image", "text", "fusion")
    ),
    Key("num_hidden_layers", "model.fusion.depth"),
    Key("image_size", "model.image.image_size"),
    Key("patch_size", "model.image.patch_size"),
    Key("vocab_size", "model.text.vocab_size"),
    Key("max_position_embeddings", "model.text.length"),
    Key("type_vocab_size", "model.text.token_types"),
)
GIVEN = (
    Given("num_channels", 3),
    Given("qkv_bias", True),
    Given("modality_type_vocab_size", 2),
    Given("tie_word_embeddings", True),
)
FIXED = {
    "model.image.depth": 0,
    "model.image.pooling": "cls",
    "model.image.norm_before_pooling": False,
    "model.text.depth": 0,
    "model.text.causal": False,
    "model.text.pooling": "first",
    "model.text.final_norm": False,
    "model.text.embedding_norm": True,
    "model.fusion.kind": "merged",
    "model.fusion.pooler": True,
}


class Vilt(Family):
    """What the classes have in common."""

    model_type, image_processor, processor = "vilt", "ViltImageProcessor", "ViltProcessor"
    parts = (
        *("model/image/class", "model/image/pa", "model/image/position", "model/image_projection"),
        *("model/text", "model/fusion/", "objectives_"),
    )
    free = (
        *(
            "model.embedding_dim",
            "model.*.projection",
            "model.text.norm",
            "model.text.padding_mask",
        ),
        *("model.image.norm_before_pooling", "model.image.norm"),
    )
    ignored = r"position_ids$|^mlm_score\.decoder\.weight$|^mlm_score\.bias$"
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens


class ViltForMaskedLM(Vilt):
    """transformers' ViltForMaskedLM."""

    title = "ViltForMaskedLM"
    settings = Settings(
        keys=KEYS,
        given=GIVEN,
        fixed={**FIXED, "objectives.words.kind": "masked_language", "objectives.words.tied": True},
    )
    rules = (
        *MODEL,
        *within(
            "mlm_score.",
            "objectives_words/head/",
            linear("transform.dense", "dense"),
            norm("transform.LayerNorm", "norm"),
            same("decoder.bias", "bias"),
        ),
    )

    def text_settings(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """Also the id of the mask token."""
        return super().text_settings(tokens) | bert.mask_settings(self, tokens, "words")


class ViltForImageAndTextRetrieval(Vilt):
    """transformers' ViltForImageAndTextRetrieval, whose head gives the log-odds of a match."""

    title = "ViltForImageAndTextRetrieval"
    settings = Settings(
        keys=KEYS,
        given=GIVEN,
        fixed={
            **FIXED,
            "objectives.matching.kind": "matching",
            "objectives.matching.negatives": "uniform",
            "objectives.matching.loss": "binary_cross_entropy",
        },
    )
    rules = (*MODEL, *linear("rank_output", "objectives_matching/head"))
