"""Masked language modelling against transformers' BertForMaskedLM: golden files that
tests/golden/make_bert.py wrote."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from parity import loss_and_gradient, loss_of, relative_error, shapes_of
from torch_weights import Tensors

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives import masked_language
from vlp_jax.objectives.masked_language import MaskedLanguageConfig, MaskedText
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden/bert.npz"))
BOUND = 1e-5  # max|a-b| / max|b|, float32
HEADS, DEPTH = 3, 2
TEXT = TextTransformerConfig(
    preset="Ti",
    width=24,
    depth=DEPTH,
    heads=HEADS,
    mlp_dim=40,
    vocab_size=50,
    length=9,
    causal=False,
    pooling="first",
    norm="post",
    norm_epsilon=1e-12,
    final_norm=False,
    embedding_norm=True,
    token_types=2,
)


def module_of(**changes):
    model = ModelConfig(image=ViTConfig(), text=dataclasses.replace(TEXT, **changes))
    return PretrainingModule(
        model, {"words": MaskedLanguageConfig(with_image=False, mask_id=49, tied=True)}, Precision()
    )


def layer(take, name):
    own = f"{name}.attention.self"
    return {
        "attention": take.attention(
            f"{own}.query", f"{own}.key", f"{own}.value", f"{name}.attention.output.dense", HEADS
        ),
        "attention_norm": take.norm(f"{name}.attention.output.LayerNorm"),
        "mlp_norm": take.norm(f"{name}.output.LayerNorm"),
        "mlp": {
            "in": take.dense(f"{name}.intermediate.dense"),
            "out": take.dense(f"{name}.output.dense"),
        },
    }


def parameters():
    """Ours from those of transformers, which are all used up."""
    take = Tensors(GOLDEN["shapes"])
    text = {
        "tokens": {"embedding": take("bert.embeddings.word_embeddings.weight")},
        "position": take("bert.embeddings.position_embeddings.weight")[None],
        "token_type": take("bert.embeddings.token_type_embeddings.weight"),
        "embedding_norm": take.norm("bert.embeddings.LayerNorm"),
        "transformer": {f"layer_{i}": layer(take, f"bert.encoder.layer.{i}") for i in range(DEPTH)},
    }
    head = {
        "dense": take.dense("cls.predictions.transform.dense"),
        "norm": take.norm("cls.predictions.transform.LayerNorm"),
        "bias": take("cls.predictions.bias"),
    }
    assert not take.left
    return {"model": {"text": text}, "objectives_words": {"head": head}}


@pytest.fixture
def given_choice(monkeypatch):
    """The tokens that the golden file chose and what became of them, in place of a draw."""
    masked = MaskedText(GOLDEN["masked"], GOLDEN["chosen"], GOLDEN["text_mask"])
    monkeypatch.setattr(masked_language, "mask_tokens", lambda *drawn: masked)


BATCH = {name: GOLDEN[name] for name in ("text", "text_mask")}


def test_tokens_logits_loss_and_gradient_equal_those_of_transformers(given_choice):
    params, module = parameters(), module_of()
    assert jax.tree.map(np.shape, params) == shapes_of(module, BATCH)
    (loss, captured), gradient = loss_and_gradient(module, params, BATCH)
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=BOUND)
    real = GOLDEN["text_mask"]
    tokens = captured["model"]["text"]["__call__"][0].tokens
    assert relative_error(tokens[real], GOLDEN["tokens"][real]) <= BOUND
    assert (
        relative_error(
            captured["objectives_words"]["head"]["__call__"][0][real], GOLDEN["logits"][real]
        )
        <= BOUND
    )
    assert (
        relative_error(gradient["model"]["text"]["tokens"]["embedding"], GOLDEN["gradient"])
        <= 10 * BOUND
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "change",
    [
        dict(norm_epsilon=1e-2),
        dict(activation="gelu_tanh"),
        dict(padding_mask=False),
        dict(token_types=0),
        dict(embedding_norm=False),
    ],
)
def test_another_tower_would_be_noticed(given_choice, change):
    assert (
        abs(loss_of(module_of(**change), parameters(), BATCH)[0] / GOLDEN["loss"] - 1) > 3 * BOUND
    )
