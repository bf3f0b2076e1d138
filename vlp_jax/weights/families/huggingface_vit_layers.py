"""The layers of transformers' ViT (Dosovitskiy et al. 2021), which other classes have too."""

from vlp_jax.weights.rules import (
    attention,
    class_and_positions,
    linear,
    norm,
    patches,
    same,
    within,
)

VIT_LAYERS = within(
    "encoder.layer.{}.",
    "transformer/layer_{}/",
    norm("layernorm_before", "attention_norm"),
    attention(
        query="attention.attention.query",
        key="attention.attention.key",
        value="attention.attention.value",
        out="attention.output.dense",
    ),
    norm("layernorm_after", "mlp_norm"),
    linear("intermediate.dense", "mlp/in"),
    linear("output.dense", "mlp/out"),
)
VIT_EMBEDDINGS = within(
    "embeddings.",
    "",
    same("cls_token", "class_token"),
    class_and_positions("position_embeddings", dims=3),
    patches("patch_embeddings.projection", "patch_embedding"),
)
VIT = (*VIT_EMBEDDINGS, *VIT_LAYERS, *norm("layernorm", "norm"), *linear("pooler.dense", "pooler"))
