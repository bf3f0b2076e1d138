"""Adafactor against Optax's, and every optimizer on scanned layers against the same layers one by
one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_experiment import experiment

from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.optimizer import build_optimizer, only_where_trained
from vlp_jax.training.optimizers.adafactor import (
    clip_by_parameter_rms,
    factored_axes,
    scale_by_factored_moments,
)
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.state import boxed_parameters


def decay(step):
    return jnp.minimum(1.0 - (step + 1.0) ** -0.8, 0.95)


def draw(shapes, seed):
    """Normal gradients of a different size for each parameter, of one seed for each path."""

    def one(path, leaf):
        rng = np.random.default_rng([seed, *path_of(path).encode()])
        return jnp.asarray(rng.normal(size=leaf.shape) * rng.uniform(0.1, 10.0), jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def updates_of(optimizer, params, gradients):
    state, update, found = optimizer.init(params), jax.jit(optimizer.update), []
    for one in gradients:
        updates, state = update(one, state, params)
        found.append(updates)
    return found


def assert_close(found, expected, rtol=2e-5):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7, err_msg=path_of(path))


@pytest.mark.variants
@pytest.mark.parametrize(
    "shape", [(160, 200), (200, 160), (130, 130), (100, 400), (7,), (3, 3, 160, 140)]
)
def test_on_plain_arrays_moments_and_clipping_are_those_of_optax(shape):
    params = {"kernel": jnp.zeros(shape)}
    gradients = [draw(params, seed) for seed in range(3)]
    ours = optax.chain(scale_by_factored_moments({}, decay), clip_by_parameter_rms({}, 1.0))
    theirs = optax.chain(
        optax.scale_by_factored_rms(decay_rate_fn=lambda step, _: decay(step)),
        optax.clip_by_block_rms(1.0),
    )
    assert_close(updates_of(ours, params, gradients), updates_of(theirs, params, gradients))


@pytest.mark.parametrize(
    ("axes", "shape", "matrix"),
    [
        (("embed", "heads", "head_dim"), (160, 6, 32), (160, 192)),
        (("heads", "head_dim", "embed"), (6, 32, 160), (192, 160)),
    ],
)
def test_a_kernel_of_heads_is_factored_as_the_matrix_that_it_is(axes, shape, matrix):
    # by its shape alone it would keep every moment
    assert factored_axes(shape, (None,) * 3) is None
    params, ours = {"kernel": jnp.zeros(shape)}, scale_by_factored_moments({"kernel": axes}, decay)
    assert {leaf.size for leaf in jax.tree.leaves(ours.init(params))} == {1, 160, 192}
    gradients = [draw(params, seed) for seed in range(3)]
    theirs = optax.scale_by_factored_rms(decay_rate_fn=lambda step, _: decay(step))
    flat = [jax.tree.map(lambda leaf: leaf.reshape(matrix), tree) for tree in gradients]
    expected = updates_of(theirs, {"kernel": jnp.zeros(matrix)}, flat)
    assert_close(
        updates_of(ours, params, gradients),
        [jax.tree.map(lambda leaf: leaf.reshape(shape), tree) for tree in expected],
    )


def shapes_of(scan):
    size = dict(width=136, depth=2, heads=4, mlp_dim=160, scan=scan)
    config = experiment(
        model__image=dict(kind="vit", preset="Ti", patch_size=4, image_size=8, **size)
    )
    boxed = boxed_parameters(build_module(config), jax.eval_shape(lambda: example_batch(config)))
    return {"model": {"image": boxed["model"]["image"]}}


def layer_by_layer(tree):
    """{path: array}, of a scanned stack each layer by the path that it has without scan."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_of(path)
        if "/layers/" in name:
            flat |= {name.replace("/layers/", f"/layer_{i}/"): leaf[i] for i in range(len(leaf))}
        else:
            flat[name] = leaf
    return flat


def as_tree(flat, like):
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    assert sorted(paths) == sorted(flat)
    return jax.tree.unflatten(jax.tree.structure(like), [flat[path] for path in paths])


@pytest.mark.full
@pytest.mark.parametrize("kind", OptimizerConfig.kinds)
def test_scan_changes_no_update_of_any_optimizer(kind):
    boxed = {scan: shapes_of(scan) for scan in (True, False)}
    shapes = {scan: nn.meta.unbox(tree) for scan, tree in boxed.items()}
    fields = dict(newton_schulz_steps=2) if kind == "muon" else {}
    config = OptimizerConfig.of(
        kind, weight_decay=0.0 if kind == "adam" else 0.1, clip_norm=1.0, **fields
    )
    scanned, single = (
        only_where_trained(
            build_optimizer(config, optax.constant_schedule(0.1), boxed[scan]), boxed[scan]
        )
        for scan in (True, False)
    )
    params, gradients = draw(shapes[True], 9), [draw(shapes[True], seed) for seed in range(3)]
    # one layer has no gradient at all in one step, as stochastic depth may have it
    gradients[1]["model"]["image"]["transformer"]["layers"] = jax.tree.map(
        lambda leaf: leaf.at[1].set(0.0), gradients[1]["model"]["image"]["transformer"]["layers"]
    )
    found = updates_of(scanned, params, gradients)
    expected = updates_of(
        single,
        as_tree(layer_by_layer(params), shapes[False]),
        [as_tree(layer_by_layer(one), shapes[False]) for one in gradients],
    )
    assert_close(
        [as_tree(layer_by_layer(one), shapes[False]) for one in found], expected, rtol=2e-4
    )
