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
from vlp_jax.weights.settings import ACTIVATIONS, Key

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


def vit_layers(theirs: str, ours: str) -> tuple[Key, ...]:
    """The settings of the layers."""
    return (
        Key(f"{theirs}hidden_size", f"{ours}.width"),
        Key(f"{theirs}num_hidden_layers", f"{ours}.depth"),
        Key(f"{theirs}num_attention_heads", f"{ours}.heads"),
        Key(f"{theirs}intermediate_size", f"{ours}.mlp_dim"),
        Key(f"{theirs}layer_norm_eps", f"{ours}.norm_epsilon"),
        Key(f"{theirs}hidden_act", f"{ours}.activation", ACTIVATIONS),
    )


def vit(theirs: str) -> tuple[Key, ...]:
    """The settings of an image tower."""
    return (
        *vit_layers(theirs, "model.image"),
        Key(f"{theirs}image_size", "model.image.image_size"),
        Key(f"{theirs}patch_size", "model.image.patch_size"),
    )
