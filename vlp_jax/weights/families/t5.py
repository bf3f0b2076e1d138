"""The encoder of T5 in Hugging Face folders (transformers' T5EncoderModel; Raffel et al. 2020).

T5 does not divide logits of attention by the square root of a head's width: the queries of our
layers are larger by it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.bert import FREE_OF_IMAGES, TEXT_ALONE
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rule, Shape, one, same, transposed, within
from vlp_jax.weights.settings import Given, Key, Settings

LENGTH = 512  # of texts, where the config has none; positions are relative


def scaled(theirs: str, ours: str) -> Rule:
    """The queries of T5: weight [H K, D] to kernel [D, H, K], times the square root of K."""

    def take(array: np.ndarray, shape: Shape) -> np.ndarray:
        return (array.T * np.float32(shape[-1] ** 0.5)).reshape(shape)

    def give(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), -1).T / np.float32(array.shape[-1] ** 0.5)

    return one(theirs, ours, take, give, "transposed and scaled")


def from_heads(theirs: str, ours: str) -> Rule:
    """The layer behind attention: weight [D, H K] to kernel [H, K, D]."""
    return one(
        theirs,
        ours,
        lambda array, shape: array.T.reshape(shape),
        lambda array: array.reshape(-1, array.shape[-1]).T,
        "transposed",
    )


ATTENTION = within(
    "layer.0.SelfAttention.",
    "attention/",
    scaled("q.weight", "query/kernel"),
    transposed("k.weight", "key/kernel"),
    transposed("v.weight", "value/kernel"),
    from_heads("o.weight", "out/kernel"),
)
MLP = within(
    "layer.1.DenseReluDense.",
    "mlp/",
    transposed("wi.weight", "in/kernel"),
    transposed("wi_0.weight", "gate/kernel"),
    transposed("wi_1.weight", "in/kernel"),
    transposed("wo.weight", "out/kernel"),
)


class T5Encoder(Family):
    """transformers' T5EncoderModel, and the encoder alone of a whole T5; only read."""

    title, model_type = "T5EncoderModel", "t5"
    exports = False
    parts = ("model/",)
    free = FREE_OF_IMAGES
    settings = Settings(
        keys=(
            Key("d_model", "model.text.width"),
            Key("num_layers", "model.text.depth"),
            Key("num_heads", "model.text.heads"),
            Key("d_ff", "model.text.mlp_dim"),
            Key("vocab_size", "model.text.vocab_size"),
            Key("layer_norm_epsilon", "model.text.norm_epsilon"),
            Key(
                "feed_forward_proj",
                "model.text.activation",
                {
                    "relu": "relu",
                    "gelu": "gelu",
                    "gated-gelu": "geglu_tanh",
                    "gated-silu": "swiglu",
                },
            ),
        ),
        given=(
            Given("relative_attention_num_buckets", 32),
            Given("relative_attention_max_distance", 128),
        ),
        fixed={
            **{key: value for key, value in TEXT_ALONE.items() if "tied" not in key},
            "model.text.norm": "pre",
            "model.text.norm_kind": "rms",
            "model.text.final_norm": True,
            "model.text.embedding_norm": False,
            "model.text.bias": False,
            "model.text.position": "relative",
            "model.text.pooling": "mean",
            "objectives.words.keep_first": False,
        },
    )
    rules = within(
        "",
        "model/text/",
        same("shared.weight", "tokens/embedding"),
        same(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "relative_bias"
        ),
        within(
            "encoder.block.{}.",
            "transformer/layer_{}/",
            ATTENTION,
            MLP,
            same("layer.0.layer_norm.weight", "attention_norm/scale"),
            same("layer.1.layer_norm.weight", "mlp_norm/scale"),
        ),
        same("encoder.final_layer_norm.weight", "norm/scale"),
    )
    ignored = r"^decoder\.|^lm_head\.|^encoder\.embed_tokens\."
    text_tokens = (None, "eos_token")
    default_tokens = {"eos_token": "</s>", "pad_token": "<pad>"}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config.

        Raises:
          CheckpointError: as `Family.config`, and for heads that are not as wide together as the
            layers.
        """
        width = theirs["num_heads"] * theirs["d_kv"]
        if width != theirs["d_model"]:
            raise CheckpointError(
                f"{place}: num_heads times d_kv is {width}, and only d_model={theirs['d_model']} "
                "is supported"
            )
        found = super().config(theirs, shapes, place)
        return {
            **found,
            "model.text.length": theirs.get("n_positions") or LENGTH,
            "objectives.words.mask_id": theirs["vocab_size"] - 1,
        }
