"""Masked autoencoding against transformers' ViTMAEForPreTraining: golden files that
tests/golden/make_mae.py wrote."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import loss_and_gradient, loss_of, relative_error, shapes_of
from torch_weights import Tensors, kernel_of_patches

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoderConfig, visible_patches
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden/mae.npz"))
BOUND = 1e-5  # max|a-b| / max|b|, float32
IMAGE = ViTConfig(
    preset="Ti/4", width=24, depth=2, heads=3, mlp_dim=40, image_size=16, position="sincos2d"
)
DECODER = MaskedAutoencoderConfig(
    mask_ratio=0.7, decoder_width=16, decoder_depth=2, decoder_heads=2
)
BATCH = {"image": GOLDEN["image"]}


def module_of(**changes):
    model = ModelConfig(image=dataclasses.replace(IMAGE, **changes), text=TextTransformerConfig())
    return PretrainingModule(model, {"mae": DECODER}, Precision())


def layer(take, name, heads):
    projections = (f"{name}.attention.{part}_proj" for part in "qkvo")
    return {
        "attention": take.attention(*projections, heads),
        "attention_norm": take.norm(f"{name}.layernorm_before"),
        "mlp_norm": take.norm(f"{name}.layernorm_after"),
        "mlp": {"in": take.dense(f"{name}.mlp.fc1"), "out": take.dense(f"{name}.mlp.fc2")},
    }


def parameters():
    """Ours from those of transformers, which are all used up; the class token has no position
    there."""
    take = Tensors(GOLDEN["shapes"])
    image = {
        "patch_embedding": take.patches("vit.embeddings.patch_embeddings.projection"),
        "class_token": take("vit.embeddings.cls_token"),
        "class_position": np.zeros((1, 1, 24), np.float32),
        "transformer": {
            f"layer_{i}": layer(take, f"vit.layers.{i}", IMAGE.heads) for i in range(2)
        },
        "norm": take.norm("vit.layernorm"),
    }
    decoder = {
        f"layer_{i}": layer(take, f"decoder.decoder_layers.{i}", DECODER.decoder_heads)
        for i in range(2)
    }
    head = {
        "mask_token": take("decoder.mask_token"),
        "in": take.dense("decoder.decoder_embed"),
        "decoder": decoder,
        "norm": take.norm("decoder.decoder_norm"),
        "out": take.dense("decoder.decoder_pred"),
    }
    assert not take.left
    return {"model": {"image": image}, "objectives_mae": head}


@pytest.fixture
def given_noise(monkeypatch):
    """The noise of the golden file in place of what is drawn."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.asarray(GOLDEN["noise"]))


@pytest.mark.full
def test_visible_patches_encodings_predictions_loss_and_gradient_equal_those_of_transformers(
    given_noise,
):
    params, module = parameters(), module_of()
    kept, restore = visible_patches(jax.random.key(0), 3, 16, DECODER.mask_ratio)
    np.testing.assert_array_equal(restore >= kept.shape[1], GOLDEN["mask"])
    (loss, captured), gradient = loss_and_gradient(module, params, BATCH)
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=BOUND)
    assert (
        relative_error(captured["model"]["image"]["__call__"][0].tokens, GOLDEN["tokens"]) <= BOUND
    )
    assert (
        relative_error(captured["objectives_mae"]["out"]["__call__"][0], GOLDEN["logits"]) <= BOUND
    )
    found = gradient["model"]["image"]["patch_embedding"]["kernel"]
    assert relative_error(found, kernel_of_patches(GOLDEN["gradient"])) <= 10 * BOUND


def test_the_parameters_are_all_that_the_module_has():
    assert jax.tree.map(np.shape, parameters()) == shapes_of(module_of(), BATCH)


@pytest.mark.full
@pytest.mark.parametrize(
    "change",
    [dict(norm_epsilon=1e-3), dict(activation="gelu_tanh"), dict(norm_before_pooling=False)],
)
def test_another_tower_would_be_noticed(given_noise, change):
    _, captured = loss_of(module_of(**change), parameters(), BATCH)
    assert (
        relative_error(captured["model"]["image"]["__call__"][0].tokens, GOLDEN["tokens"])
        > 10 * BOUND
    )
