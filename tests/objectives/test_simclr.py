"""Two views of a picture: the loss and its gradients from SimCLR's equation in float64, the head,
and accumulation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_oracle import relative_error, unit
from counted_flops import counted_flops
from tiny_experiment import batch_of, experiment, leaves

from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.errors import ConfigError
from vlp_jax.models.options import Precision
from vlp_jax.objectives.pretraining_module import asked_inputs
from vlp_jax.objectives.simclr import ProjectionHead, nt_xent
from vlp_jax.training.accumulation import loss_gradients, prepare
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.state import TrainState

RNG = np.random.default_rng(7)


def loss_in_float64(first, second, temperature):
    """Chen et al. 2020, equation 1 and algorithm 1: views 2k and 2k + 1 are a pair."""
    views = np.stack([first, second], axis=1).reshape(-1, first.shape[1])
    similarity = np.exp(views @ views.T / temperature)
    losses = [
        -np.log(similarity[i, i ^ 1] / (similarity[i].sum() - similarity[i, i]))
        for i in range(len(views))
    ]
    return np.mean(losses)


def slope_in_float64(first, second, temperature, step=1e-6):
    slope = np.zeros_like(first)
    for place in np.ndindex(first.shape):
        moved = np.zeros_like(first)
        moved[place] = step
        slope[place] = loss_in_float64(first + moved, second, temperature) - loss_in_float64(
            first - moved, second, temperature
        )
    return slope / (2 * step)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_loss_and_gradients_are_those_of_the_equation(temperature):
    first = unit(RNG.normal(size=(6, 5)))
    second = unit(first + 0.3 * RNG.normal(size=(6, 5)))
    loss = jax.jit(lambda a, b: nt_xent(a, b, temperature)[0])
    found, gradients = jax.value_and_grad(loss, argnums=(0, 1))(
        jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, loss_in_float64(first, second, temperature), rtol=1e-5)
    assert relative_error(gradients[0], slope_in_float64(first, second, temperature)) < 1e-5
    assert relative_error(gradients[1], slope_in_float64(second, first, temperature)) < 1e-5


def test_accuracy_is_how_often_the_nearest_other_view_is_of_the_same_picture():
    first = np.eye(4, dtype=np.float32)
    second = first[[0, 1, 2, 2]]  # the last picture's second view looks like the third
    assert nt_xent(jnp.asarray(first), jnp.asarray(second), 0.1)[1] == 0.75


def test_the_head_is_three_linear_layers_with_batch_normalisation_between_them():
    head, x = ProjectionHead(7, 3, Precision()), RNG.normal(size=(9, 5))
    params = nn.meta.unbox(head.init(jax.random.key(0), x))["params"]
    params = jax.tree.map(lambda leaf: np.asarray(RNG.normal(size=leaf.shape), np.float32), params)
    expected = x
    for i in range(3):
        linear = params[f"linear_{i}"]
        expected = expected @ np.float64(linear["kernel"]) + linear["bias"]
        if i < 2:
            expected = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-5)
            expected = np.maximum(
                expected * params[f"norm_{i}"]["scale"] + params[f"norm_{i}"]["bias"], 0
            )
    np.testing.assert_allclose(head.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-4)


def views_experiment(first, **changes):
    objectives = dict(
        contrastive=dict(kind="clip"),
        views=dict(kind="simclr", first=first, hidden_dim=6, output_dim=4),
    )
    return experiment(objectives=objectives, **changes)


def batch_with_views():
    views = np.random.default_rng(8).integers(0, 256, (2, 8, 8, 8, 3)).astype(np.uint8)
    return batch_of() | {"first_view": views[0], "second_view": views[1]}


def parameters(config, module):
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: module.init(jax.random.key(0), example_batch(config)))
    )["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("first", "asked"), [("image", ("second_view",)), ("first_view", ("first_view", "second_view"))]
)
def test_the_towers_pooled_vectors_of_two_views_are_compared_and_asked_of_the_pipeline(
    first, asked
):
    config = views_experiment(first)
    assert asked_inputs(config.objectives) == asked and set(asked) < set(example_batch(config))
    module, batch = build_module(config), prepare(batch_with_views(), config.data.images)
    params = parameters(config, module)
    metrics = jax.jit(module.apply)({"params": params}, batch).metrics
    pooled = [
        module.apply(
            {"params": params},
            batch[name],
            method=lambda module, image: module.model.encode_image(image).pooled,
        )
        for name in (first, "second_view")
    ]
    head = ProjectionHead(6, 4, Precision())
    embedded = [
        unit(np.float64(head.apply({"params": params["objectives_views"]["head"]}, x)))
        for x in pooled
    ]
    np.testing.assert_allclose(metrics["views/loss"], loss_in_float64(*embedded, 0.1), rtol=1e-4)
    np.testing.assert_allclose(metrics["views/uniform"], np.log(15), rtol=1e-6)


@pytest.mark.parametrize("first", ["image", "first_view"])
def test_flops_are_those_of_the_traced_program(first):
    config = views_experiment(first)
    module, batch = build_module(config), example_batch(config, rows=8)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    program = jax.make_jaxpr(functools.partial(module.apply, mutable=False))(variables, batch)
    accuracy = 2 * 8**2 * 8  # of the contrastive objective, which has no backward pass
    assert 3 * (counted_flops(program.jaxpr) - accuracy) == train_step_flops(config)


@pytest.mark.slow
def test_microbatches_give_the_gradients_of_the_batch():
    config = views_experiment("first_view")
    module, batch = build_module(config), batch_with_views()
    state = TrainState(
        jnp.int32(0),
        parameters(config, module),
        None,
        None,
        {},
        jax.random.key_data(jax.random.key(3)),
    )
    whole, parts = (
        jax.jit(functools.partial(loss_gradients, changed, module))(state, batch, jax.random.key(4))
        for changed in (config, views_experiment("first_view", accumulation=dict(microbatches=4)))
    )
    for (name, one), other in zip(leaves(whole[0]).items(), leaves(parts[0]).values(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max() + 1e-7, err_msg=name)
    np.testing.assert_allclose(parts[1]["views/loss"], whole[1]["views/loss"], rtol=1e-5)


def test_an_augmentation_of_views_that_nothing_asks_for_is_a_config_error():
    with pytest.raises(
        ConfigError,
        match="data.view_augmentation: has no effect without an objective of kind 'simclr'",
    ):
        experiment(data__view_augmentation=dict(flip=0.5))
    assert views_experiment(
        "image", data__view_augmentation=dict(flip=0.5)
    ).data.view_augmentation == AugmentationConfig(flip=0.5)
