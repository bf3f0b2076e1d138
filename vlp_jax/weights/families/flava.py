"""FLAVA in Hugging Face folders (transformers' FlavaForPreTraining and FlavaModel; Singh et al.
2022).

The poolers of its towers are not read, as no output of these classes needs them, and neither are
the codebook of the images (`image_codebook`), which comes from another model.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families import bert
from vlp_jax.weights.families.clip import image, layers
from vlp_jax.weights.families.huggingface_vit_layers import VIT_EMBEDDINGS, VIT_LAYERS
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rules, Shape, leading, linear, norm, same, within
from vlp_jax.weights.settings import Given, Key, Settings

MODEL = (
    *within(
        "image_model.",
        "model/image/",
        VIT_EMBEDDINGS,
        same("embeddings.mask_token", "mask_token"),
        VIT_LAYERS,
        norm("layernorm", "norm"),
    ),
    *within(
        "text_model.",
        "model/text/",
        within(
            "embeddings.",
            "",
            same("word_embeddings.weight", "tokens/embedding"),
            leading("position_embeddings.weight", "position"),
            same("token_type_embeddings.weight", "token_type"),
            norm("LayerNorm", "embedding_norm"),
        ),
        VIT_LAYERS,
        norm("layernorm", "norm"),
    ),
    *within(
        "multimodal_model.",
        "model/fusion/",
        same("cls_token", "class_token"),
        VIT_LAYERS,
        norm("layernorm", "norm"),
    ),
    *linear("image_to_mm_projection", "model/fusion/image_in"),
    *linear("text_to_mm_projection", "model/fusion/text_in"),
    *linear("image_projection", "model/image_projection"),
    *linear("text_projection", "model/text_projection"),
    same("logit_scale", "objectives_contrastive/log_scale"),
)
KEYS = (
    *image("image_config."),
    *layers("text_config.", "model.text"),
    *layers("multimodal_config.", "model.fusion"),
    Key("text_config.vocab_size", "model.text.vocab_size"),
    Key("text_config.max_position_embeddings", "model.text.length"),
    Key("text_config.type_vocab_size", "model.text.token_types"),
    Key("projection_dim", "model.embedding_dim"),
)
GIVEN = (
    Given("image_config.num_channels", 3),
    *(Given(f"{part}_config.qkv_bias", True) for part in ("image", "text", "multimodal")),
    Given("multimodal_config.use_cls_token", True),
)
BLOCKS = {"patches", "both"}  # the objectives that mask patches
FIXED = {
    "model.image.pooling": "cls",
    "model.image.norm_before_pooling": True,
    "model.image.projection": "linear_with_bias",
    "model.text.causal": False,
    "model.text.pooling": "first",
    "model.text.embedding_norm": True,
    "model.text.projection": "linear_with_bias",
    "model.fusion.kind": "merged",
    "model.fusion.pooler": True,
    "model.fusion.class_token": True,
    "model.fusion.projected": True,
    "model.fusion.normalised": False,
    "objectives.contrastive.kind": "clip",
    "objectives.matching.kind": "matching",
    "objectives.matching.negatives": "uniform",
}


def poolers(theirs: Mapping[str, Any], prefix: str, *parts: str) -> dict[str, Shape]:
    """The tensors of poolers that are not read."""
    found: dict[str, Shape] = {}
    for part in parts:
        width = theirs[f"{part}_config"]["hidden_size"]
        found |= {
            f"{prefix}{part}_model.pooler.dense.weight": (width, width),
            f"{prefix}{part}_model.pooler.dense.bias": (width,),
        }
    return found


def word_head(theirs: str, ours: str) -> Rules:
    """A head with a table of its own."""
    return within(
        f"{theirs}.",
        f"{ours}/",
        linear("transform.dense", "dense"),
        norm("transform.LayerNorm", "norm"),
        same("decoder.weight", "table"),
        same("decoder.bias", "bias"),
    )


class FlavaModel(Family):
    """transformers' FlavaModel; the head on pairs is a fresh one."""

    title, model_type = "FlavaModel", "flava"
    image_processor, processor = "FlavaImageProcessor", "FlavaProcessor"
    parts = ("model/", "objectives_contrastive/")
    settings = Settings(
        keys=KEYS,
        given=GIVEN,
        fixed={
            **FIXED,
            # its patches may be masked, for which the image tower has a mask token
            "objectives.patches.kind": "masked_image",
        },
    )
    rules = (*MODEL, *linear("multimodal_model.pooler.dense", "model/fusion/pooler"))
    ignored = r"position_ids$|(image|text)_model\.pooler\.|^image_codebook\."
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; blocks of masked patches are no larger than an image has room for."""
        found = super().config(theirs, shapes, place)
        side = found["model.image.image_size"] // found["model.image.patch_size"]
        names = {key.split(".")[1] for key in found if key.startswith("objectives.")}
        smallest = max(1, min(16, int(0.4 * side**2)))
        blocks = {f"objectives.{name}.smallest_block": smallest for name in BLOCKS & names}
        return {**found, **blocks}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, whose outer width is that of the multimodal layers."""
        found = super().their_config(config)
        return {**found, "hidden_size": found["multimodal_config"]["hidden_size"]}

    def unread(self, theirs: Mapping[str, Any]) -> dict[str, Shape]:
        """The poolers of the towers."""
        return poolers(theirs, "", "image", "text")


class FlavaForPreTraining(FlavaModel):
    """transformers' FlavaForPreTraining, with the heads of all six losses."""

    title = "FlavaForPreTraining"
    parts = ("",)
    settings = Settings(
        keys=(
            *KEYS,
            Key("image_config.vocab_size", "objectives.patches.codes"),
            Key("image_config.vocab_size", "objectives.both.codes"),
        ),
        given=GIVEN,
        fixed={
            **FIXED,
            "objectives.patches.kind": "masked_image",
            "objectives.words.kind": "masked_language",
            "objectives.words.with_image": False,
            "objectives.both.kind": "masked_joint",
        },
    )
    rules = (
        *MODEL,
        *linear("itm_head.pooler.dense", "model/fusion/pooler"),
        *linear("itm_head.seq_relationship", "objectives_matching/head"),
        *word_head("mim_head", "objectives_patches/head"),
        *word_head("mlm_head", "objectives_words/head"),
        *word_head("mmm_image_head", "objectives_both/image_head"),
        *word_head("mmm_text_head", "objectives_both/text_head"),
    )
    # the heads' biases are written twice in old files
    ignored = r"position_ids$|_model\.pooler\.|^image_codebook\.|^(mim|mlm|mmm_\w+)_head\.bias$"

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of the model."""
        return {name.removeprefix("flava."): file for name, file in super().names(shapes).items()}

    def written_name(self, name: str) -> str:
        """With the prefix of the model."""
        return name if name.split(".")[0].endswith("_head") else f"flava.{name}"

    def text_settings(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """Also the id of the mask token."""
        return super().text_settings(tokens) | bert.mask_settings(self, tokens, "words", "both")

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, without a codebook."""
        return {**super().their_config(config), "init_codebook": False}

    def unread(self, theirs: Mapping[str, Any]) -> dict[str, Shape]:
        """The poolers of the towers and of the multimodal layers."""
        return poolers(theirs, "flava.", "image", "text", "multimodal")
