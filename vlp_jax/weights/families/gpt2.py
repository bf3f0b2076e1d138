"""GPT-2 in Hugging Face folders (transformers' GPT2LMHeadModel; Radford et al. 2019).

Its linear layers are [in, out], as here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rule, Rules, Shape, leading, norm, reshaped, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings


def linear(theirs: str, ours: str) -> Rules:
    """A linear layer: weight [in, out] and bias."""
    return same(f"{theirs}.weight", f"{ours}/kernel"), same(f"{theirs}.bias", f"{ours}/bias")


def several(theirs: str, ours: str, names: Sequence[str]) -> Rules:
    """Linear layers to heads, in one: weight [in, sum of outs] and bias.

    Args:
      theirs: their name.
      ours: our path of attention.
      names: of the layers, in this order.
    """

    def split(arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> Sequence[np.ndarray]:
        parts = np.split(arrays[0], len(names), axis=-1)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def joined(axes: int) -> Any:
        return lambda arrays: (
            np.concatenate([array.reshape(*array.shape[:axes], -1) for array in arrays], axis=axes),
        )

    return tuple(
        Rule(
            (f"{theirs}.{there}",),
            tuple(f"{ours}/{name}/{here}" for name in names),
            split,
            joined(axes),
            "split",
        )
        for there, here, axes in (("weight", "kernel", 1), ("bias", "bias", 0))
    )


def from_heads(theirs: str, ours: str) -> Rules:
    """The linear layer behind attention: weight [H K, D] to kernel [H, K, D]."""
    kernel = Rule(
        (f"{theirs}.weight",),
        (f"{ours}/kernel",),
        lambda arrays, shapes: (arrays[0].reshape(shapes[0]),),
        lambda arrays: (arrays[0].reshape(-1, arrays[0].shape[-1]),),
        "reshaped",
    )
    return kernel, same(f"{theirs}.bias", f"{ours}/bias")


def to_heads(theirs: str, ours: str) -> Rules:
    """The linear layer of queries: weight [D, H K] to kernel [D, H, K]."""
    kernel = Rule(
        (f"{theirs}.weight",),
        (f"{ours}/kernel",),
        lambda arrays, shapes: (arrays[0].reshape(shapes[0]),),
        lambda arrays: (arrays[0].reshape(len(arrays[0]), -1),),
        "reshaped",
    )
    return kernel, reshaped(f"{theirs}.bias", f"{ours}/bias", (-1,))


DECODER = within(
    "",
    "model/decoder/",
    same("wte.weight", "tokens"),
    leading("wpe.weight", "position"),
    within(
        "h.{}.",
        "transformer/layer_{}/",
        norm("ln_1", "attention_norm"),
        several("attn.c_attn", "attention", ("query", "key", "value")),
        from_heads("attn.c_proj", "attention/out"),
        norm("ln_cross_attn", "cross_norm"),
        to_heads("crossattention.q_attn", "cross/query"),
        several("crossattention.c_attn", "cross", ("key", "value")),
        from_heads("crossattention.c_proj", "cross/out"),
        norm("ln_2", "mlp_norm"),
        linear("mlp.c_fc", "mlp/in"),
        linear("mlp.c_proj", "mlp/out"),
    ),
    norm("ln_f", "norm"),
)
BUFFERS = r"\.(crossattention|attn)\.(masked_)?bias$|^(decoder\.)?lm_head\.weight$"


def decoder(theirs: str = "") -> tuple[Key, ...]:
    """The settings of the decoder."""
    return (
        Key(f"{theirs}n_embd", "model.decoder.width"),
        Key(f"{theirs}n_layer", "model.decoder.depth"),
        Key(f"{theirs}n_head", "model.decoder.heads"),
        Key(f"{theirs}n_inner", "model.decoder.mlp_dim"),
        Key(f"{theirs}activation_function", "model.decoder.activation", ACTIVATIONS),
        Key(f"{theirs}layer_norm_epsilon", "model.decoder.norm_epsilon"),
        Key(f"{theirs}vocab_size", "model.text.vocab_size"),
        Key(f"{theirs}n_positions", "model.text.length"),
    )


def given(theirs: str = "") -> tuple[Given, ...]:
    """Variants of the layers that we do not have."""
    return (
        Given(f"{theirs}scale_attn_weights", True),
        Given(f"{theirs}scale_attn_by_inverse_layer_idx", False),
        Given(f"{theirs}tie_word_embeddings", True),
    )


# No objective of captions alone reads a tower, which has then no parameters.
NO_IMAGE = {
    "model.image.preset": "Ti",
    "model.image.depth": 0,
    "model.image.patch_size": 8,
    "model.image.image_size": 32,
}
NO_TEXT_LAYERS = {"model.text.preset": "Ti", "model.text.depth": 0}
FREE_OF_TEXT_LAYERS = (
    "model.embedding_dim",
    *(
        f"model.text.{key}"
        for key in (
            *("width", "depth", "heads", "mlp_dim", "causal", "pooling", "position", "norm*"),
            *("activation", "final_norm", "embedding_norm", "pooler", "token_types"),
            *("projection", "padding_mask", "qk_norm", "layer_scale", "position_offset"),
        )
    ),
)
TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


class Gpt2(Family):
    """transformers' GPT2LMHeadModel, a decoder of texts alone. Neither tower has parameters."""

    title, model_type = "GPT2LMHeadModel", "gpt2"
    parts = ("model/",)
    free = ("model.image.*", *FREE_OF_TEXT_LAYERS)
    settings = Settings(
        keys=decoder(),
        given=(*given(), Given("add_cross_attention", False)),
        fixed={
            **NO_IMAGE,
            **NO_TEXT_LAYERS,
            "model.decoder.kind": "transformer",
            "model.decoder.image": "none",
            "objectives.captioning.kind": "captioning",
        },
    )
    rules = DECODER
    ignored = BUFFERS
    text_tokens = ("bos_token", "eos_token")
    default_tokens = {"bos_token": "<|endoftext|>", **TOKENS}

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix that the class has and the first files have not."""
        return {
            name.removeprefix("transformer."): file for name, file in super().names(shapes).items()
        }

    def written_name(self, name: str) -> str:
        """With the prefix of the class."""
        return f"transformer.{name}"

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; the MLP is by default four times as wide as the layers."""
        return super().config(with_mlp(theirs), shapes, place)


def with_mlp(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A config of GPT-2 that names the width of the MLP."""
    return {**theirs, "n_inner": theirs.get("n_inner") or 4 * theirs["n_embd"]}
