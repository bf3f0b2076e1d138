"""SigLIP, and SigLIP 2 at a fixed size, in Hugging Face folders (transformers' SiglipModel; Zhai et
al. 2023, Tschannen et al. 2025)."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.clip import LAYERS, image, text
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import (
    Shape,
    fused_attention,
    leading,
    linear,
    norm,
    patches,
    reshaped,
    same,
    within,
)
from vlp_jax.weights.settings import Given, Key, Settings

IMAGE = within(
    "vision_model.",
    "model/image/",
    patches("embeddings.patch_embedding", "patch_embedding"),
    leading("embeddings.position_embedding.weight", "position"),
    LAYERS,
    norm("post_layernorm", "norm"),
    within(
        "head.",
        "pooling_head/",
        same("probe", "probe"),
        fused_attention("attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj"),
        norm("layernorm", "mlp_norm"),
        linear("mlp.fc1", "mlp/in"),
        linear("mlp.fc2", "mlp/out"),
    ),
)
TEXT = within(
    "text_model.",
    "model/text/",
    same("embeddings.token_embedding.weight", "tokens/embedding"),
    leading("embeddings.position_embedding.weight", "position"),
    LAYERS,
    norm("final_layer_norm", "norm"),
)


class Siglip(Family):
    """transformers' SiglipModel."""

    title = "SiglipModel"
    model_type, image_processor, processor = "siglip", "SiglipImageProcessor", "SiglipProcessor"
    free = ("model.image.cut_remainder",)
    settings = Settings(
        keys=(
            *image("vision_config."),
            *text("text_config."),
            Key("text_config.projection_size", "model.embedding_dim"),
        ),
        given=(
            Given("vision_config.num_channels", 3),
            Given("vision_config.vision_use_head", True),
        ),
        fixed={
            "model.image.pooling": "map",
            "model.image.projection": "none",
            "model.text.causal": False,
            "model.text.padding_mask": False,
            "model.text.pooling": "last",
            "model.text.projection": "linear_with_bias",
            "objectives.contrastive.kind": "siglip",
        },
    )
    rules = (
        *IMAGE,
        *TEXT,
        *linear("text_model.head", "model/text_projection"),
        reshaped("logit_scale", "objectives_contrastive/log_scale", (1,)),
        reshaped("logit_bias", "objectives_contrastive/bias", (1,)),
    )
    text_tokens = (None, "eos_token")
    default_tokens = {"eos_token": "</s>", "pad_token": "</s>"}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; `projection_size` is by default the width of the text tower, and pixels
        beyond the last whole patch are not seen."""
        text = dict(theirs["text_config"])
        text["projection_size"] = text.get("projection_size") or text["hidden_size"]
        found = super().config({**theirs, "text_config": text}, shapes, place)
        cut = found["model.image.image_size"] % found["model.image.patch_size"] != 0
        return {**found, "model.image.cut_remainder": cut}
