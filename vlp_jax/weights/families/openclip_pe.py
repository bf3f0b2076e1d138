"""The Perception Encoder, PE Core, in OpenCLIP folders: an image tower of timm with rotary
positions and attention pooling, and OpenCLIP's text tower (Bolya et al. 2025)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.clip import TEXT_FIXED
from vlp_jax.weights.families.openclip_vit import (
    ACTIVATION,
    TEXT,
    TEXT_GIVEN,
    TEXT_KEYS,
    OpenClipVit,
    completed,
)
from vlp_jax.weights.families.timm_vit import POOLING, TOKENS
from vlp_jax.weights.rules import (
    Arrays,
    Rule,
    Shape,
    from_heads,
    fused_heads,
    linear,
    norm,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import Given, Key, Settings

# Width, layers, heads, width of the MLP and number of class tokens of timm's models
# vit_pe_core_SIZE_patchP_S.
SIZES = {
    "tiny": (192, 12, 3, 768, 1),
    "small": (384, 12, 6, 1536, 1),
    "base": (768, 12, 12, 3072, 1),
    "large": (1024, 24, 16, 4096, 1),
    "gigantic": (1536, 50, 16, 8960, 0),
}
# Those of timm's models, by size, patch and image.
NAMES = (
    "vit_pe_core_tiny_patch16_384",
    "vit_pe_core_small_patch16_384",
    "vit_pe_core_base_patch16_224",
    "vit_pe_core_large_patch14_336",
    "vit_pe_core_gigantic_patch14_448",
)
POOLING_HEADS = 8
POOLING_MLP = 4  # widths of the MLP behind pooling per width


def paired(rule: Rule) -> Rule:
    """A rule for queries, keys and values of which rotary positions turn pairs of neighbours.

    The features 2 i and 2 i + 1 of a head are i and i + K / 2 here.
    """

    def take(arrays: Arrays, shapes: Sequence[Shape]) -> Arrays:
        query, key, value = rule.take(arrays, shapes)
        return halves(query), halves(key), value

    return dataclasses.replace(rule, take=take, kind="split, transposed and sorted")


def halves(array: np.ndarray) -> np.ndarray:
    """[..., K] with the features at even places first."""
    return array.reshape(*array.shape[:-1], -1, 2).swapaxes(-1, -2).reshape(array.shape)


HEADS = ("attention/query", "attention/key", "attention/value")
IMAGE = within(
    "visual.trunk.",
    "model/",
    within(
        "",
        "image/",
        TOKENS,
        patches("patch_embed.proj", "patch_embedding"),
        norm("norm_pre", "embedding_norm"),
        within(
            "blocks.{}.",
            "transformer/layer_{}/",
            norm("norm1", "attention_norm"),
            *(paired(rule) for rule in fused_heads("attn.qkv.weight", "attn.qkv.bias", HEADS)),
            from_heads("attn.proj", "attention/out"),
            norm("norm2", "mlp_norm"),
            linear("mlp.fc1", "mlp/in"),
            linear("mlp.fc2", "mlp/out"),
        ),
        norm("norm", "norm"),
        POOLING,
    ),
    linear("head", "image_projection"),
)


class OpenClipPe(OpenClipVit):
    """OpenCLIP's PE Core.

    The name of timm's model says all of the image tower, its image size too.
    """

    title = "OpenCLIP PE Core"
    exports = False
    settings = Settings(
        keys=(
            Key("embed_dim", "model.embedding_dim"),
            *TEXT_KEYS,
            Key("activation", "model.text.activation", ACTIVATION),
        ),
        given=(
            *TEXT_GIVEN,
            Given("vision_cfg.timm_pool", "map"),
            Given("vision_cfg.timm_proj", None, ("",)),
        ),
        fixed={
            **TEXT_FIXED,
            "model.image.norm_epsilon": 1e-5,
            "model.image.activation": "gelu",
            "model.image.position": "learned_rotary2d",
            "model.image.rotary_temperature": 10_000.0,
            "model.image.patch_bias": False,
            "model.image.embedding_norm": True,
            "model.image.pooling": "map",
            "model.image.map_tokens": "all",
            "model.image.query_heads": POOLING_HEADS,
            "model.image.projection": "linear_with_bias",
            "model.text.norm_epsilon": 1e-5,
            "objectives.contrastive.kind": "clip",
        },
    )
    rules = (*IMAGE, *TEXT, same("logit_scale", "objectives_contrastive/log_scale"))

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings of `model_cfg`, with those of timm's model.

        Raises:
          CheckpointError: it is not one of PE Core.
        """
        name = theirs["vision_cfg"]["timm_model_name"]
        if name not in NAMES:
            raise CheckpointError(
                f"{place}: vision_cfg.timm_model_name {name!r} is not supported; supported are "
                f"{', '.join(NAMES)}"
            )
        found = super().config(theirs, shapes, place)
        return {**found, **{f"model.image.{key}": value for key, value in trunk_of(name).items()}}

    def completed(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """With OpenCLIP's defaults."""
        image = {"timm_pool": "avg", "timm_proj": "linear", **theirs["vision_cfg"]}
        return {**completed(theirs), "vision_cfg": image}


def trunk_of(name: str) -> dict[str, Any]:
    """The settings of a model of timm, vit_pe_core_SIZE_patchP_S.

    With a class token, which rotary positions leave at 0, those of patches begin at 1.
    """
    match = re.fullmatch(r"vit_pe_core_([^_]+)_patch(\d+)_(\d+)", name)
    assert match is not None, name
    width, depth, heads, mlp_dim, front = SIZES[match[1]]
    patch, side = int(match[2]), int(match[3])
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_dim": mlp_dim,
        "query_mlp_dim": POOLING_MLP * width,
        "class_tokens": front,
        "patch_size": patch,
        "image_size": side,
        "rotary_offset": float(front),
        "rotary_grid": side // patch,
    }
