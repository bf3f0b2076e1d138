"""A language model's loss against transformers' GPT2LMHeadModel: golden files that
tests/golden/make_gpt2.py wrote."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from parity import loss_and_gradient, loss_of, relative_error, shapes_of
from torch_weights import Tensors, three_in_one

from vlp_jax.data.text.packing import pack
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives.captioning import CaptioningConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden/gpt2.npz"))
BOUND = 1e-5  # max|a-b| / max|b|, float32
HEADS, DEPTH, PADDING = 3, 2, 49
DECODER = DecoderConfig.of(
    preset="Ti",
    width=24,
    depth=DEPTH,
    heads=HEADS,
    mlp_dim=40,
    image="none",
    activation="gelu_tanh",
    norm_epsilon=1e-5,
)
BATCH = {name: GOLDEN[name] for name in ("text", "text_mask")}


def module_of(**changes):
    model = ModelConfig(
        image=ViTConfig(),
        text=TextTransformerConfig(vocab_size=50, length=9),
        decoder=dataclasses.replace(DECODER, **changes),
    )
    return PretrainingModule(model, {"captioning": CaptioningConfig(unigram="batch")}, Precision())


def dense(take, name):
    """A linear layer that GPT-2 holds as [inputs, outputs]."""
    return {"kernel": take(f"{name}.weight"), "bias": take(f"{name}.bias")}


def layer(take, name):
    out = dense(take, f"{name}.attn.c_proj")
    out["kernel"] = out["kernel"].reshape(HEADS, -1, out["kernel"].shape[1])
    return {
        "attention": three_in_one(dense(take, f"{name}.attn.c_attn"), HEADS) | {"out": out},
        "attention_norm": take.norm(f"{name}.ln_1"),
        "mlp_norm": take.norm(f"{name}.ln_2"),
        "mlp": {"in": dense(take, f"{name}.mlp.c_fc"), "out": dense(take, f"{name}.mlp.c_proj")},
    }


def parameters():
    """Ours from those of transformers, which are all used up."""
    take = Tensors(GOLDEN["shapes"])
    decoder = {
        "tokens": take("transformer.wte.weight"),
        "position": take("transformer.wpe.weight")[None],
        "norm": take.norm("transformer.ln_f"),
        "transformer": {f"layer_{i}": layer(take, f"transformer.h.{i}") for i in range(DEPTH)},
    }
    assert not take.left
    return {"model": {"decoder": decoder}}


@pytest.mark.full
def test_logits_loss_and_gradient_equal_those_of_transformers():
    params, module = parameters(), module_of()
    assert jax.tree.map(np.shape, params) == shapes_of(module, BATCH)
    (loss, captured), gradient = loss_and_gradient(module, params, BATCH)
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=BOUND)
    real = GOLDEN["text_mask"]
    assert (
        relative_error(captured["model"]["decoder"]["__call__"][0][real], GOLDEN["logits"][real])
        <= BOUND
    )
    assert relative_error(gradient["model"]["decoder"]["tokens"], GOLDEN["gradient"]) <= 10 * BOUND


@pytest.mark.full
def test_the_same_texts_packed_into_fewer_rows_lose_the_same():
    packed = pack(GOLDEN["text"], GOLDEN["text_mask"], window=4, rows=3, padding=PADDING)
    assert not packed.pop("dropped").any() and packed["text"].shape == (2, 3, 9)
    (loss, _), gradient = loss_and_gradient(module_of(), parameters(), packed)
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=BOUND)
    assert relative_error(gradient["model"]["decoder"]["tokens"], GOLDEN["gradient"]) <= 10 * BOUND


@pytest.mark.full
@pytest.mark.parametrize(
    "change", [dict(norm_epsilon=1e-2), dict(activation="gelu"), dict(norm="post")]
)
def test_another_decoder_would_be_noticed(change):
    real, captured = GOLDEN["text_mask"], loss_of(module_of(**change), parameters(), BATCH)[1]
    assert (
        relative_error(captured["model"]["decoder"]["__call__"][0][real], GOLDEN["logits"][real])
        > 10 * BOUND
    )
