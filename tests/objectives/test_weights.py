"""How much each objective counts, over the updates: against the sum written here in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import batch_of, experiment, leaves

from vlp_jax.errors import ConfigError
from vlp_jax.objectives.base import weight_at
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoderConfig
from vlp_jax.training.accumulation import AccumulationConfig, loss_gradients
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import TrainState

PATCHES = dict(kind="masked_autoencoder", decoder_width=8, decoder_depth=1, decoder_heads=2)
LATE = dict(weight=0.5, weight_start=3, weight_warmup=4, weight_end=9)


def config_of(count=1, **patches):
    config = experiment(
        objectives=dict(contrastive=dict(kind="clip", weight=2.0), patches=PATCHES | patches)
    )
    return dataclasses.replace(config, accumulation=AccumulationConfig(microbatches=count))


def expected_weight(updates, weight, weight_start, weight_warmup, weight_end):
    if not weight_start <= updates < weight_end:
        return 0.0
    return weight * min(1.0, (updates - weight_start) / weight_warmup)


@pytest.mark.parametrize("updates", range(12))
def test_a_weight_starts_grows_and_ends(updates):
    weight = weight_at(MaskedAutoencoderConfig(**LATE), jnp.int32(updates))
    np.testing.assert_allclose(weight, expected_weight(updates, **LATE), rtol=1e-6)


def test_without_a_plan_or_outside_training_the_weight_is_the_configs():
    assert weight_at(MaskedAutoencoderConfig(weight=0.3), jnp.int32(0)) == 0.3
    assert weight_at(MaskedAutoencoderConfig(**LATE), None) == 0.5


@pytest.fixture(scope="module")
def parts():
    config = config_of(**LATE)
    module = build_module(config)
    variables = module.init(
        {"params": jax.random.key(1), "dropout": jax.random.key(2)}, example_batch(config)
    )
    return config, module, jax.tree.map(jnp.asarray, variables["params"])


@pytest.mark.full
@pytest.mark.parametrize("updates", [2, 5, 8, 9])
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_loss_and_its_gradients_are_the_weighted_sum(parts, updates, count):
    config, module, params = parts
    batch, key = batch_of(), jax.random.key(3)

    def found(config, module, updates):
        state = TrainState(jnp.int32(updates), params, None, None, {}, jax.random.key_data(key))
        return jax.jit(lambda state: loss_gradients(config, module, state, batch, key)[:2])(state)

    gradients, metrics = found(config_of(count, **LATE), module, updates)
    weight = expected_weight(updates, **LATE)
    np.testing.assert_allclose(
        metrics["loss"],
        2.0 * metrics["contrastive/loss"] + weight * metrics["patches/loss"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(metrics["patches/weight"], weight, rtol=1e-6)
    steady = config_of(count, weight=weight)
    expected, _ = found(steady, build_module(steady), updates)
    for path, slope in leaves(expected).items():
        np.testing.assert_allclose(
            leaves(gradients)[path], slope, rtol=1e-4, atol=1e-6, err_msg=path
        )


def test_a_weight_that_ends_before_it_starts_is_refused():
    with pytest.raises(ConfigError, match="objectives.patches.weight_end"):
        config_of(weight_start=5, weight_end=5)
