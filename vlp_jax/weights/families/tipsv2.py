"""TIPSv2 in Hugging Face folders (transformers' Tipsv2Model; google-deepmind/tips): a ViT with two
class tokens and a text tower with sinusoidal positions and masked mean pooling."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.weights.families.clip import layers
from vlp_jax.weights.families.openclip_vit import LAYERS
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import (
    Arrays,
    Rule,
    Shape,
    fused_attention,
    gated,
    linear,
    norm,
    one,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

ONE_WAY = "is read only"


def unwritten(arrays: Arrays) -> Arrays:
    """Nothing: the format is read only."""
    raise NotImplementedError(ONE_WAY)


CLASS_TOKENS = Rule(
    ("cls_token", "register_tokens"),
    ("class_token",),
    lambda arrays, shapes: (np.concatenate(arrays, axis=1),),
    unwritten,
    "concatenated",
)
# The second class token has no position.
POSITIONS = Rule(
    ("pos_embed",),
    ("class_position", "position"),
    lambda arrays, shapes: (
        np.pad(arrays[0][:, :1], ((0, 0), (0, shapes[0][1] - 1), (0, 0))),
        arrays[0][:, 1:],
    ),
    unwritten,
    "split",
)
IMAGE = within(
    "vision_encoder.",
    "model/image/",
    CLASS_TOKENS,
    POSITIONS,
    patches("patch_embed.proj", "patch_embedding"),
    within(
        "blocks.{}.",
        "transformer/layer_{}/",
        norm("norm1", "attention_norm"),
        fused_attention("attn.qkv.weight", "attn.qkv.bias", "attn.proj"),
        same("ls1.gamma", "attention_layer_scale"),
        norm("norm2", "mlp_norm"),
        linear("mlp.c_fc", "mlp/in"),
        linear("mlp.c_proj", "mlp/out"),
        gated("mlp.w12", "mlp/gate", "mlp/in"),
        linear("mlp.w3", "mlp/out"),
        same("ls2.gamma", "mlp_layer_scale"),
    ),
    norm("norm", "norm"),
)
TEXT = within(
    "text_encoder.",
    "model/text/",
    same("token_embedding.weight", "tokens/embedding"),
    LAYERS,
    norm("ln_final", "norm"),
)


class Tipsv2(Family):
    """transformers' Tipsv2Model.

    The first of the two class tokens is pooled. The mask token, of training alone, is not read.
    Published files lack the temperature; it then is that of the config.
    """

    title = "Tipsv2Model"
    model_type = "tipsv2"
    exports = False
    position_filter = "linear"
    optional = ("objectives_contrastive/",)
    ignored = r"(^|\.)(position_ids|mask_token)$"
    settings = Settings(
        keys=(
            Key("vision_config.hidden_size", "model.image.width"),
            Key("vision_config.num_hidden_layers", "model.image.depth"),
            Key("vision_config.num_attention_heads", "model.image.heads"),
            Key("vision_config.mlp_dim", "model.image.mlp_dim"),
            Key("vision_config.layer_norm_eps", "model.image.norm_epsilon"),
            Key(
                "vision_config.hidden_act",
                "model.image.activation",
                {**ACTIVATIONS, "swiglu": "swiglu"},
            ),
            Key("vision_config.image_size", "model.image.image_size"),
            Key("vision_config.patch_size", "model.image.patch_size"),
            Key("vision_config.layerscale_value", "model.image.layer_scale"),
            Key("vision_config.class_tokens", "model.image.class_tokens"),
            *layers("text_config.", "model.text"),
            Key("text_config.vocab_size", "model.text.vocab_size"),
            Key("text_config.max_position_embeddings", "model.text.length"),
            Key("text_config.hidden_size", "model.embedding_dim"),
            Key("scale", "objectives.contrastive.initial_scale"),
        ),
        given=(
            Given("vision_config.num_channels", 3),
            Given("vision_config.qkv_bias", True),
            Given("text_config.scale_sqrt_depth", True),
        ),
        fixed={
            "model.image.pooling": "cls",
            "model.image.projection": "none",
            "model.text.causal": False,
            "model.text.pooling": "mean",
            "model.text.position": "sinusoidal_halves",
            "model.text.projection": "none",
            "objectives.contrastive.kind": "clip",
            "data.text.canonicalize": ("lower_case",),
        },
    )
    rules = (
        *IMAGE,
        *TEXT,
        one(
            "temperature",
            "objectives_contrastive/log_scale",
            lambda array, shape: -np.log(array),
            lambda array: np.exp(-array),
            "logarithm of the inverse",
        ),
    )
    default_tokens = {"pad_token": "<pad>"}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; of a gated MLP, the width is two thirds as large, a multiple of 8."""
        image = dict(theirs["vision_config"])
        hidden = int(image["hidden_size"] * image["mlp_ratio"])
        if image["use_swiglu_ffn"]:
            image["hidden_act"], hidden = "swiglu", (int(hidden * 2 / 3) + 7) // 8 * 8
        image |= {"mlp_dim": hidden, "class_tokens": 1 + image["num_register_tokens"]}
        scale = 1 / theirs["temperature_init_value"]
        return super().config({**theirs, "vision_config": image, "scale": scale}, shapes, place)
