"""Mixup: the weight's distribution, the mixed pictures, and the contrastive loss mixed alike, in
float64."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_oracle import softmax_oracle
from counted_flops import counted_flops
from tiny_experiment import batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.objectives.mixup import mixed, neighbour
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.accumulation import check_accumulation, prepare
from vlp_jax.training.build import build_module, build_run, example_batch
from vlp_jax.training.cost.flops import train_step_flops

PARTNER = np.array([1, 0, 3, 2, 5, 4, 7, 6])


@pytest.mark.variants
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_weight_is_drawn_from_beta(alpha):
    draws = 4000
    x = jnp.arange(2.0)
    weights = np.sort(
        jax.jit(jax.vmap(lambda key: mixed(key, x, alpha)[1]))(
            jax.random.split(jax.random.key(1), draws)
        )
    )
    expected = np.sort(np.random.default_rng(0).beta(alpha, alpha, draws))
    places = np.linspace(0, 1, 201)
    difference = [
        np.searchsorted(found, places, side="right") / draws for found in (weights, expected)
    ]
    # Kolmogorov and Smirnov, at 0.1%
    assert np.abs(difference[0] - difference[1]).max() < 1.95 * np.sqrt(2 / draws)


@pytest.mark.full
def test_pictures_are_mixed_in_pairs_by_one_weight_of_the_key():
    x = np.random.default_rng(3).normal(size=(8, 4, 4, 3)).astype(np.float32)
    found, weight = mixed(jax.random.key(2), jnp.asarray(x), 0.4)
    assert 0 < weight < 1
    np.testing.assert_allclose(
        found, float(weight) * x + (1 - float(weight)) * x[PARTNER], rtol=1e-5, atol=1e-6
    )
    assert (
        float(mixed(jax.random.key(2), jnp.asarray(x), 0.4)[1])
        == float(weight)
        != float(mixed(jax.random.key(3), x, 0.4)[1])
    )
    with pytest.raises(
        ConfigError, match="mixes the examples of a batch in pairs, and 3 is an odd number"
    ):
        neighbour(x[:3])


def mixup_experiment(**changes):
    objective = dict(kind="clip", mixup=0.6) | changes.pop("objective", {})
    return experiment(objectives=dict(contrastive=objective), **changes)


@pytest.mark.full
@pytest.mark.parametrize("implementation", ["dense", "chunked"])
def test_the_loss_mixes_those_of_both_texts_in_both_directions(implementation):
    """Row i of the targets is w times the positives of example i and 1 - w times those of its
    neighbour."""
    config = mixup_experiment(objective=dict(implementation=implementation, label_smoothing=0.1))
    module, batch = build_module(config), batch_of()
    batch["caption_id"][4] = batch["caption_id"][0]  # a positive beside the diagonal
    batch = prepare(batch, config.data.images)
    shapes = nn.meta.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), batch)))["params"]
    rng = np.random.default_rng(5)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    loss = jax.jit(functools.partial(module.apply, train=True))(
        {"params": params}, batch, rngs={"dropout": jax.random.key(4)}
    )
    w = float(loss.metrics["contrastive/mixup_weight"])
    pictures = w * np.asarray(batch["image"]) + (1 - w) * np.asarray(batch["image"])[PARTNER]
    embeddings = module.apply(
        {"params": params}, pictures, batch["text"], batch["text_mask"], method="embed"
    )
    image, text = (np.float64(x) for x in embeddings)
    positives = np.eye(8, dtype=bool)
    positives[0, 4] = positives[4, 0] = True
    scale = np.exp(float(params["objectives_contrastive"]["log_scale"]))
    own, other = (
        softmax_oracle(image, text, scale, hit, 0.1)[0] for hit in (positives, positives[PARTNER])
    )
    np.testing.assert_allclose(loss.value, w * own + (1 - w) * other, rtol=2e-5)


def test_flops_are_those_of_the_traced_program():
    config = mixup_experiment()
    module, batch = build_module(config), example_batch(config, rows=8)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    program = jax.make_jaxpr(
        lambda variables: module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)})
    )(variables)
    accuracies = 2 * 2 * 8**2 * 8  # which have no backward pass
    assert 3 * (counted_flops(program.jaxpr) - accuracies) == train_step_flops(config)


def test_mixed_pictures_of_a_batch_do_not_come_in_microbatches():
    check_accumulation(mixup_experiment(accumulation=dict(microbatches=2, negatives="microbatch")))
    with pytest.raises(
        ConfigError,
        match="objectives.contrastive compares the examples of a batch by their image, which",
    ):
        check_accumulation(mixup_experiment(accumulation=dict(microbatches=2)))


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["dense", "ring"])
def test_the_losses_are_the_same_on_a_mesh(implementation):
    found = []
    for mesh in (MeshConfig(data=1), MeshConfig(data=4, fsdp=2, replicate_below=256)):
        config = mixup_experiment(
            objective=dict(implementation=implementation),
            data__batch_size=32,
            data__train__source="synthetic:64",
            model__text__vocab_size=4096,
            mesh=vars(mesh),
        )
        run = build_run(config)
        state, batches, losses = run.initial_state(), run.batches(0), []
        for _ in range(3):
            state, metrics = run.train_step(state, run.to_device(next(batches)))
            losses.append(float(metrics["loss"]))
        batches.close()
        found.append(losses)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert len({round(loss, 6) for loss in found[0]}) == 3
