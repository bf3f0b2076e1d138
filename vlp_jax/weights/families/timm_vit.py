"""timm's VisionTransformer and VisionTransformerDistilled (Wightman 2019): ViT, DeiT, and the image
towers of CLIP, SigLIP and DINOv2.

A classifier is left out. Numbers that no tensor has are those of the architecture's name.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.rules import (
    Arrays,
    Rule,
    Rules,
    Shape,
    from_heads,
    fused_attention,
    fused_heads,
    gated,
    linear,
    norm,
    patches,
    same,
    to_heads,
    within,
    zeros,
)
from vlp_jax.weights.settings import ACTIVATIONS, Settings

# heads of widths that are not 64 times their number
HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1536: 24}
TANH = re.compile(
    r"base_patch32_siglip|large_patch16_siglip(_gap)?_512|so400m_patch16_siglip|giantopt"
)
POOLINGS = {"token": "cls", "avg": "mean", "map": "map"}
# arguments of a model that tensors show, or that change no output
SHOWN = re.compile(
    r"img_size|patch_size|in_chans|num_classes|global_pool|embed_dim|depth|num_heads|mlp_ratio|"
    r"qkv_bias|init_values|class_token|no_embed_class|reg_tokens|pre_norm|fc_norm|act_layer|"
    r"dynamic_img_size|dynamic_img_pad|strict_img_size|weight_init|fix_init|\w*drop\w*_rate"
)


def prefix_tokens(*tokens: str, unless: tuple[str, ...] = ()) -> Rule:
    """The tokens before the patches and the positions, which may be of all tokens or of patches
    alone. A position of a register is added to it.

    Args:
      *tokens: the names of the tokens that there are, class tokens first.
      unless: names of other ones.
    """
    front = len([name for name in tokens if name != "reg_token"])
    registers = len(tokens) - front

    def take(arrays: Arrays, shapes: Sequence[Shape]) -> Arrays:
        *found, table = arrays
        extra = table.shape[1] - shapes[-1][1]
        first = np.concatenate([*found, table[:, :0]], axis=1)
        own = table[:, :extra] if extra else np.zeros_like(first)
        parts = [first[:, :front], own[:, :front]] if front else []
        return [*parts, *([(first + own)[:, front:]] if registers else []), table[:, extra:]]

    return Rule(
        (*tokens, "pos_embed"),
        (
            *(("class_token", "class_position") if front else ()),
            *(("registers",) if registers else ()),
            "position",
        ),
        take,
        lambda arrays: (),
        "joined and split",
        unless,
    )


TOKENS: Rules = (
    prefix_tokens(unless=("cls_token", "reg_token")),
    prefix_tokens("reg_token", unless=("cls_token",)),
    prefix_tokens("cls_token", unless=("dist_token", "reg_token")),
    prefix_tokens("cls_token", "reg_token"),
    prefix_tokens("cls_token", "dist_token"),
)
LAYERS = within(
    "blocks.{}.",
    "transformer/layer_{}/",
    norm("norm1", "attention_norm"),
    fused_attention("attn.qkv.weight", "attn.qkv.bias", "attn.proj"),
    *(
        zeros(f"attention/{part}/bias", "attn.qkv.weight", unless="attn.qkv.bias")
        for part in ("query", "key", "value")
    ),
    norm("attn.q_norm", "attention/query_norm"),
    norm("attn.k_norm", "attention/key_norm"),
    same("ls1.gamma", "attention_layer_scale"),
    norm("norm2", "mlp_norm"),
    linear("mlp.fc1", "mlp/in"),
    gated("mlp.fc1", "mlp/gate", "mlp/in"),
    linear("mlp.fc2", "mlp/out"),
    same("ls2.gamma", "mlp_layer_scale"),
)
POOLING = within(
    "attn_pool.",
    "pooling_head/",
    same("latent", "probe"),
    to_heads("q", "attention/query"),
    fused_heads("kv.weight", "kv.bias", ("attention/key", "attention/value")),
    from_heads("proj", "attention/out"),
    norm("norm", "mlp_norm"),
    linear("mlp.fc1", "mlp/in"),
    linear("mlp.fc2", "mlp/out"),
)


class TimmVit(ImageAlone):
    """A ViT of timm."""

    title = "timm VisionTransformer"
    exports = False
    ignored = r"^(head|head_dist)\."
    settings = Settings(keys=())
    rules = within(
        "",
        "model/image/",
        TOKENS,
        patches("patch_embed.proj", "patch_embedding"),
        norm("norm_pre", "embedding_norm"),
        LAYERS,
        norm("norm", "norm"),
        norm("fc_norm", "norm"),
        POOLING,
    )

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings that the shapes, the arguments of the model and its name give."""
        given, name = theirs.get("model_args", {}), theirs["architecture"]
        unknown = sorted(key for key, value in given.items() if value and not SHOWN.fullmatch(key))
        if unknown or "pos_embed" not in shapes or "patch_embed.proj.weight" not in shapes:
            missing = unknown or ["a ViT without pos_embed or patch_embed.proj"]
            raise CheckpointError(f"{place}: {missing[0]} is not supported")
        front = sum(token in shapes for token in ("cls_token", "dist_token"))
        registers = shapes.get("reg_token", (1, 0))[1]
        width, _, patch, _ = shapes["patch_embed.proj.weight"]
        pooling = pooling_of(theirs, shapes, front)
        if pooling not in POOLINGS:
            raise CheckpointError(f"{place}: global_pool {pooling!r} is not supported")
        found = {
            "width": width,
            "patch_size": patch,
            "image_size": side_of(shapes["pos_embed"][1], front + registers, place) * patch,
            "depth": 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")),
            "heads": given.get("num_heads") or heads_of(name, width),
            "mlp_dim": shapes["blocks.0.mlp.fc2.weight"][1],
            "activation": activation_of(name, given, shapes, place),
            "norm_epsilon": 1e-5 if "norm_pre.weight" in shapes else 1e-6,
            "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in shapes else None,
            "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
            "embedding_norm": "norm_pre.weight" in shapes,
            "patch_bias": "patch_embed.proj.bias" in shapes,
            "norm_before_pooling": "fc_norm.weight" not in shapes,
            "pooling": POOLINGS[pooling],
            "class_tokens": front,
            "registers": registers,
        }
        settings = super().config(theirs, shapes, place)
        return {
            **settings,
            "model.embedding_dim": width,
            **{f"model.image.{key}": value for key, value in found.items()},
        }


def pooling_of(theirs: Mapping[str, Any], shapes: Mapping[str, Shape], front: int) -> str:
    """Their name of the pooling, from the config or from the tensors."""
    given = theirs.get("model_args", {}).get("global_pool", theirs.get("global_pool"))
    if "attn_pool.latent" in shapes:
        return "map"
    return given if isinstance(given, str) else "token" if front else "avg"


def side_of(positions: int, others: int, place: str) -> int:
    """The patches along each side, from the number of positions, which may be of all tokens.

    Raises:
      CheckpointError: they are no square.
    """
    for count in (positions, positions - others):
        if math.isqrt(count) ** 2 == count:
            return math.isqrt(count)
    raise CheckpointError(f"{place}: {positions} positions are no square of patches")


def heads_of(name: str, width: int) -> int:
    """The heads of an architecture."""
    if name.startswith("test_vit"):
        return width // 32
    if "giantopt" in name or name.startswith("vit_base_patch16_gap"):
        return 16
    return HEADS.get(width, width // 64)


def activation_of(
    name: str, given: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
) -> str:
    """Our name of an architecture's activation.

    Raises:
      CheckpointError: it is not supported.
    """
    if shapes["blocks.0.mlp.fc1.weight"][0] == 2 * shapes["blocks.0.mlp.fc2.weight"][1]:
        return "swiglu"
    usual = "quick_gelu" if "quickgelu" in name else "gelu_tanh" if TANH.search(name) else "gelu"
    found = given.get("act_layer") or usual
    names = {**ACTIVATIONS, "gelu_tanh": "gelu_tanh"}
    if found not in names:
        raise CheckpointError(f"{place}: act_layer {found!r} is not supported")
    return names[found]
