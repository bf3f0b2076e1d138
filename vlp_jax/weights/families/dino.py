"""DINOv2 without and with registers, and DINOv3's ViTs, in Hugging Face folders (transformers'
Dinov2Model, Dinov2WithRegistersModel and DINOv3ViTModel; Oquab et al. 2023, Darcet et al. 2024,
Simeoni et al. 2025).

The mask token, which is for pretraining, and a classifier are left out. Registers are the last
tokens here, and follow the class token there.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.families.vit import ATTENTION, CLASS_TOKEN
from vlp_jax.weights.rules import (
    Shape,
    attention,
    class_and_positions,
    gated,
    linear,
    norm,
    patches,
    same,
    within,
    zeros,
)
from vlp_jax.weights.settings import Given, Settings

BRANCHES = (
    *norm("norm1", "attention_norm"),
    same("layer_scale1.lambda1", "attention_layer_scale"),
    *norm("norm2", "mlp_norm"),
    same("layer_scale2.lambda1", "mlp_layer_scale"),
)
TOKENS = (
    same("embeddings.cls_token", "class_token"),
    same("embeddings.register_tokens", "registers"),
)
WIDTH, MLP = "hidden_size", "intermediate_size"


class Dinov2(ImageAlone):
    """Dinov2Model and Dinov2WithRegistersModel."""

    title = "Dinov2Model"
    exports = False
    prefix: tuple[str, ...] = ("dinov2.", "dinov2_with_registers.")
    ignored = r"^embeddings\.mask_token$|^classifier\."
    settings = Settings(
        keys=image(""),
        given=(Given("num_channels", 3), Given("qkv_bias", True)),
        fixed={**CLASS_TOKEN, "model.image.layer_scale": 1.0},
    )
    rules = within(
        "",
        "model/image/",
        TOKENS,
        class_and_positions("embeddings.position_embeddings", dims=3),
        patches("embeddings.patch_embeddings.projection", "patch_embedding"),
        within(
            "encoder.layer.{}.",
            "transformer/layer_{}/",
            BRANCHES,
            ATTENTION,
            linear("mlp.fc1", "mlp/in"),
            linear("mlp.fc2", "mlp/out"),
            gated("mlp.weights_in", "mlp/gate", "mlp/in"),
            linear("mlp.weights_out", "mlp/out"),
        ),
        norm("layernorm", "norm"),
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head, and without a table of no registers."""
        found: dict[str, str] = {}
        for name in (name for name, shape in shapes.items() if 0 not in shape):
            short = next((each for each in self.prefix if name.startswith(each)), "")
            found[name.removeprefix(short)] = name
        return {name: found[name] for name in super().names(dict.fromkeys(found, ()))}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings; the width of the MLPs is that of their tensors."""
        gate = bool(theirs.get("use_swiglu_ffn") or theirs.get("use_gated_mlp"))
        ratio = theirs.get("mlp_ratio")
        mlp_dim = int(theirs[WIDTH] * ratio) if ratio else theirs[MLP]
        if theirs.get("use_swiglu_ffn"):
            mlp_dim = (mlp_dim * 2 // 3 + 7) // 8 * 8
        found = super().config(
            {**theirs, MLP: mlp_dim, **activated(theirs, gate, place)}, shapes, place
        )
        if gate:
            found["model.image.activation"] = "swiglu"
        return {**found, "model.image.registers": theirs.get("num_register_tokens", 0)}


def activated(theirs: Mapping[str, Any], gate: bool, place: str) -> dict[str, Any]:
    """The activation without a gate; with one it is SiLU, which is a part of "swiglu".

    Raises:
      CheckpointError: the gate has another one.
    """
    if not gate:
        return {}
    if theirs.get("use_gated_mlp") and theirs["hidden_act"] != "silu":
        raise CheckpointError(
            f"{place}: hidden_act is {theirs['hidden_act']!r}, and with use_gated_mlp only 'silu' "
            "is supported"
        )
    return {"hidden_act": "gelu"}


class Dinov3(Dinov2):
    """DINOv3ViTModel. Its positions turn queries and keys, and its keys have no bias: here they
    have one of zeros."""

    title = "DINOv3ViTModel"
    prefix = ("dinov3_vit.",)
    settings = Settings(
        keys=image(""),
        given=(
            Given("num_channels", 3),
            Given("rope_theta", 100.0),
            Given("proj_bias", True),
            Given("mlp_bias", True),
        ),
        fixed={**Dinov2.settings.fixed, "model.image.position": "rotary2d_unit"},
    )
    rules = within(
        "",
        "model/image/",
        TOKENS,
        zeros("class_position", "embeddings.cls_token", unless="embeddings.position_embeddings"),
        patches("embeddings.patch_embeddings", "patch_embedding"),
        within(
            "layer.{}.",
            "transformer/layer_{}/",
            BRANCHES,
            attention(
                query="attention.q_proj",
                key="attention.k_proj",
                value="attention.v_proj",
                out="attention.o_proj",
            ),
            *(
                zeros(f"attention/{part}/bias", f"{name}.weight", unless=f"{name}.bias")
                for part, name in (
                    ("query", "attention.q_proj"),
                    ("key", "attention.k_proj"),
                    ("value", "attention.v_proj"),
                )
            ),
            linear("mlp.up_proj", "mlp/in"),
            linear("mlp.gate_proj", "mlp/gate"),
            linear("mlp.down_proj", "mlp/out"),
        ),
        norm("norm", "norm"),
    )
