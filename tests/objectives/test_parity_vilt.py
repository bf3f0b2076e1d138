"""Masked words beside a picture, and matching, against transformers' ViLT: golden files that
tests/golden/make_vilt.py wrote."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import loss_and_gradient, loss_of, relative_error, shapes_of
from torch_weights import Tensors, kernel_of_patches

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.fusion.attention import MergedAttentionConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives import masked_language
from vlp_jax.objectives.masked_language import MaskedLanguageConfig, MaskedText
from vlp_jax.objectives.matching import MatchingConfig, matching_loss
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden/vilt.npz"))
BOUND = 1e-5  # max|a-b| / max|b|, float32
HEADS, DEPTH = 3, 2
SIZE = dict(preset="Ti", width=24, heads=HEADS, mlp_dim=40)
IMAGE = ViTConfig(
    **SIZE, depth=0, patch_size=4, image_size=12, pooling="cls", norm_before_pooling=False
)
TEXT = TextTransformerConfig(
    **SIZE,
    depth=0,
    vocab_size=50,
    length=9,
    causal=False,
    pooling="first",
    final_norm=False,
    embedding_norm=True,
    norm_epsilon=1e-12,
    token_types=2,
)
FUSION = MergedAttentionConfig(**SIZE, depth=DEPTH, pooler=True, norm_epsilon=1e-12)
WORDS = {"words": MaskedLanguageConfig(mask_id=49, tied=True)}
BATCH = {name: GOLDEN[name] for name in ("image", "text", "text_mask")} | {
    name: np.stack([np.arange(4), np.arange(4)], axis=1).astype(np.int32)
    for name in ("caption_id", "image_id")
}


def module_of(objectives, **changes):
    return PretrainingModule(
        ModelConfig(image=IMAGE, text=TEXT, fusion=dataclasses.replace(FUSION, **changes)),
        objectives,
        Precision(),
    )


def layer(take, name):
    own = f"{name}.attention.attention"
    return {
        "attention": take.attention(
            f"{own}.query", f"{own}.key", f"{own}.value", f"{name}.attention.output.dense", HEADS
        ),
        "attention_norm": take.norm(f"{name}.layernorm_before"),
        "mlp_norm": take.norm(f"{name}.layernorm_after"),
        "mlp": {
            "in": take.dense(f"{name}.intermediate.dense"),
            "out": take.dense(f"{name}.output.dense"),
        },
    }


def parameters():
    """The model's, of its MLM head, and of its matching head, from those of transformers, which are
    all used up. Its one log-odds is the second of our two logits, the first being 0; what our image
    tower pools, behind a norm, is not looked at.
    """
    take = Tensors(GOLDEN["shapes"])
    words, positions = (
        "vilt.embeddings.text_embeddings",
        take("vilt.embeddings.position_embeddings"),
    )
    kinds = take("vilt.embeddings.token_type_embeddings.weight")
    image = {
        "patch_embedding": take.patches("vilt.embeddings.patch_embeddings.projection"),
        "class_token": take("vilt.embeddings.cls_token"),
        "class_position": positions[:, :1],
        "position": positions[:, 1:],
        "norm": {"scale": np.ones(24, np.float32), "bias": np.zeros(24, np.float32)},
    }
    text = {
        "tokens": {"embedding": take(f"{words}.word_embeddings.weight")},
        "position": take(f"{words}.position_embeddings.weight")[None],
        "token_type": take(f"{words}.token_type_embeddings.weight"),
        "embedding_norm": take.norm(f"{words}.LayerNorm"),
    }
    fusion = {
        "text_type": kinds[0],
        "image_type": kinds[1],
        "norm": take.norm("vilt.layernorm"),
        "transformer": {f"layer_{i}": layer(take, f"vilt.encoder.layer.{i}") for i in range(DEPTH)},
        "pooler": take.dense("vilt.pooler.dense"),
    }
    told = {
        "dense": take.dense("mlm_score.transform.dense"),
        "norm": take.norm("mlm_score.transform.LayerNorm"),
        "bias": take("mlm_score.decoder.bias"),
    }
    odds = take.dense("rank_output")
    matching = {
        "kernel": np.pad(odds["kernel"], ((0, 0), (1, 0))),
        "bias": np.pad(odds["bias"], (1, 0)),
    }
    assert not take.left
    return {"image": image, "text": text, "fusion": fusion}, {"head": told}, {"head": matching}


@pytest.fixture
def given_choice(monkeypatch):
    """The tokens that the golden file chose, in place of a draw."""
    masked = MaskedText(GOLDEN["masked"], GOLDEN["chosen"], GOLDEN["text_mask"])
    monkeypatch.setattr(masked_language, "mask_tokens", lambda *drawn: masked)


def words_of(**changes):
    """A module and the parameters of its model and its MLM head."""
    model, told, _ = parameters()
    return module_of(WORDS, **changes), {"model": model, "objectives_words": told}


@pytest.mark.full
def test_masked_words_logits_loss_and_gradient_equal_those_of_transformers(given_choice):
    module, params = words_of()
    (loss, captured), gradient = loss_and_gradient(module, params, BATCH)
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=BOUND)
    real = GOLDEN["text_mask"]
    assert (
        relative_error(
            captured["objectives_words"]["head"]["__call__"][0][real], GOLDEN["logits"][real]
        )
        <= BOUND
    )
    found = gradient["model"]["image"]["patch_embedding"]["kernel"]
    assert relative_error(found, kernel_of_patches(GOLDEN["gradient"])) <= 10 * BOUND


@pytest.mark.full
def test_the_odds_and_the_loss_of_pairs_equal_those_of_transformers():
    model, _, head = parameters()
    module, params = (
        module_of({"pairs": MatchingConfig(negatives="uniform")}),
        {"model": model, "objectives_pairs": head},
    )
    assert jax.tree.map(np.shape, params) == shapes_of(module, BATCH)
    logits = module.apply({"params": params}, BATCH, method="match")
    assert relative_error(logits[:, 1] - logits[:, 0], GOLDEN["odds"]) <= BOUND
    loss = matching_loss(logits, jnp.asarray(GOLDEN["labels"]), jnp.ones(4, bool))
    np.testing.assert_allclose(loss.value, GOLDEN["matching_loss"], rtol=BOUND)


@pytest.mark.full
@pytest.mark.parametrize(
    "change", [dict(norm_epsilon=1e-2), dict(activation="gelu_tanh"), dict(final_norm=False)]
)
def test_another_fusion_would_be_noticed(given_choice, change):
    module, params = words_of(**change)
    real, captured = GOLDEN["text_mask"], loss_of(module, params, BATCH)[1]
    assert (
        relative_error(
            captured["objectives_words"]["head"]["__call__"][0][real], GOLDEN["logits"][real]
        )
        > 10 * BOUND
    )


@pytest.mark.full
def test_another_picture_would_be_noticed(given_choice):
    module, params = words_of()
    turned = BATCH | {"image": BATCH["image"][::-1]}
    assert abs(loss_of(module, params, turned)[0] / GOLDEN["loss"] - 1) > 10 * BOUND
