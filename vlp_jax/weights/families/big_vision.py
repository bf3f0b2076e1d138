"""big_vision's two towers, as in SigLIP and SigLIP 2: ViT and text transformer with their names in
Flax (models/proj/image_text/two_towers.py)."""

import math
import re
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rules, Shape, reshaped, same, together, within

ATTENTION = "MultiHeadDotProductAttention_0"


def pair(theirs: str, ours: str, *names: str) -> Rules:
    """Arrays of the same name here and there."""
    return tuple(same(f"{theirs}/{name}", f"{ours}/{name}") for name in names)


def attention(theirs: str) -> Rules:
    """Flax's attention, with the shapes of ours."""
    return together(
        *(
            pair(f"{theirs}{ATTENTION}/{name}", f"attention/{name}", "kernel", "bias")
            for name in ("query", "key", "value", "out")
        )
    )


MLP = together(
    pair("MlpBlock_0/Dense_0", "mlp/in", "kernel", "bias"),
    pair("MlpBlock_0/Dense_1", "mlp/out", "kernel", "bias"),
)
LAYERS = within(
    "encoderblock_{}/",
    "transformer/layer_{}/",
    pair("LayerNorm_0", "attention_norm", "scale", "bias"),
    attention(""),
    pair("LayerNorm_1", "mlp_norm", "scale", "bias"),
    MLP,
)
HEAD = within(
    "MAPHead_0/",
    "pooling_head/",
    same("probe", "probe"),
    attention(""),
    pair("LayerNorm_0", "mlp_norm", "scale", "bias"),
    MLP,
)
IMAGE = within(
    "img/",
    "model/image/",
    reshaped("embedding/kernel", "patch_embedding/kernel", (0,)),
    same("embedding/bias", "patch_embedding/bias"),
    same("pos_embedding", "position"),
    within("Transformer/", "", LAYERS, pair("encoder_norm", "norm", "scale", "bias")),
    HEAD,
)
TEXT = within(
    "txt/",
    "model/text/",
    same("Embed_0/embedding", "tokens/embedding"),
    same("pos_embedding", "position"),
    within("Encoder_0/", "", LAYERS, pair("encoder_norm", "norm", "scale", "bias")),
)


class TwoTowers(Family):
    """big_vision's two towers.

    An npz has no config: sizes are those of the arrays, the rest is that of SigLIP.
    """

    title = "two towers of big_vision"
    exports = False
    position_filter = "linear"
    rules = together(
        IMAGE,
        TEXT,
        pair("img/head", "model/image_projection", "kernel", "bias"),
        pair("txt/head", "model/text_projection", "kernel", "bias"),
        reshaped("t", "objectives_contrastive/log_scale", (1,)),
        reshaped("b", "objectives_contrastive/bias", (1,)),
    )
    ignored = "^opt/"

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix "params/", which some files have."""
        found = super().names(shapes)
        return {name.removeprefix("params/"): file for name, file in found.items()}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The sizes of the arrays, and what all SigLIP models share.

        Raises:
          CheckpointError: an array that the sizes follow from is missing.
        """
        patch, _, _, _ = shape_of("img/embedding/kernel", shapes, place, 4)
        _, positions, _ = shape_of("img/pos_embedding", shapes, place, 3)
        vocabulary, width = shape_of("txt/Embed_0/embedding", shapes, place, 2)
        _, length, _ = shape_of("txt/pos_embedding", shapes, place, 3)
        heads = shapes.get("img/head/kernel"), shapes.get("txt/head/kernel")
        if not any(name.startswith("img/MAPHead_0/") for name in shapes):
            raise CheckpointError(f"{place}: pools without MAPHead_0, which is not supported")
        return {
            **tower("img/Transformer/", "model.image", shapes, place),
            **tower("txt/Encoder_0/", "model.text", shapes, place),
            "model.image.patch_size": patch,
            "model.image.image_size": patch * math.isqrt(positions),
            "model.image.pooling": "map",
            "model.image.projection": "linear_with_bias" if heads[0] else "none",
            "model.text.vocab_size": vocabulary,
            "model.text.length": length,
            "model.text.causal": False,
            "model.text.padding_mask": False,
            "model.text.pooling": "last",
            "model.text.projection": "linear_with_bias" if heads[1] else "none",
            "model.embedding_dim": heads[1][1] if heads[1] else width,
            "objectives.contrastive.kind": "siglip" if "b" in shapes else "clip",
        }


def tower(theirs: str, ours: str, shapes: Mapping[str, Shape], place: str) -> dict[str, Any]:
    """The sizes of a stack of layers.

    Args:
      theirs: the prefix of its layers.
      ours: the section of the tower.
      shapes: of the arrays.
      place: the file, for messages.
    Raises:
      CheckpointError: it has no layers.
    """
    numbers = [
        int(match[1])
        for name in shapes
        if (match := re.match(rf"{re.escape(theirs)}encoderblock_(\d+)/", name))
    ]
    block = f"{theirs}encoderblock_0"
    width, heads, _ = shape_of(f"{block}/{ATTENTION}/query/kernel", shapes, place, 3)
    _, mlp_dim = shape_of(f"{block}/MlpBlock_0/Dense_0/kernel", shapes, place, 2)
    return {
        f"{ours}.width": width,
        f"{ours}.depth": max(numbers) + 1,
        f"{ours}.heads": heads,
        f"{ours}.mlp_dim": mlp_dim,
        f"{ours}.norm_epsilon": 1e-6,
        f"{ours}.activation": "gelu_tanh",
    }


def shape_of(name: str, shapes: Mapping[str, Shape], place: str, axes: int) -> Shape:
    """The shape of an array.

    Raises:
      CheckpointError: it is missing, or has another number of axes.
    """
    if name not in shapes:
        raise CheckpointError(f"{place}: lacks {name}, which every model of two towers has")
    if len(shapes[name]) != axes:
        raise CheckpointError(
            f"{place}: {name} has the shape {list(shapes[name])}, expected {axes} axes"
        )
    return shapes[name]
