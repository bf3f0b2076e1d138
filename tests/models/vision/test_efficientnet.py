"""EfficientNet: its published sizes, its FLOPs, its padding, and what training changes. Its outputs
are compared with transformers' in tests/weights."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.vision.efficientnet import EfficientNetConfig

SMALL = EfficientNetConfig(
    stem_width=8,
    widths=(8, 16),
    blocks=(2, 2),
    kernels=(3, 5),
    strides=(1, 2),
    expansions=(1, 2),
    head_width=24,
    image_size=14,
)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 14, 14, 3)), jnp.float32)


def count(config):
    """The number of parameters, without running statistics."""
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), np.float32)
    shapes = jax.eval_shape(config.build(Precision()).init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


# torchvision's efficientnet_*, less the classifier
@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("B0", 5_288_548 - 1000 * 1281),
        pytest.param("B3", 12_233_232 - 1000 * 1537, marks=pytest.mark.full),
        pytest.param("B7", 66_347_960 - 1000 * 2561, marks=pytest.mark.full),
    ],
)
def test_presets_have_the_published_number_of_parameters(preset, published):
    assert count(EfficientNetConfig(preset=preset)) == published


def test_flops_are_those_of_the_paper_and_the_map_has_its_side():
    config = EfficientNetConfig()
    assert abs(config.encoder_flops(train=False, tokens=False) / 2 / 0.39e9 - 1) < 0.02
    assert config.tokens == 49 and config.token_width == 1280  # tables 1 and 2


@pytest.mark.parametrize("padding", ["same", "floor"])
@pytest.mark.parametrize("size", [14, 15, 17])
def test_the_side_of_the_map_is_that_of_the_tokens(padding, size):
    config = dataclasses.replace(SMALL, padding=padding, image_size=size)
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    module = config.build(Precision())
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    out = jax.eval_shape(module.apply, shapes, image)
    assert out.tokens.shape == (1, config.tokens, 24) and out.pooled.shape == (1, 24)


@pytest.mark.full
def test_paddings_are_equal_where_no_side_is_odd_before_a_stride():
    same, floor = (
        dataclasses.replace(SMALL, padding=padding, image_size=12).build(Precision())
        for padding in ("same", "floor")
    )
    image = IMAGES[:, :12, :12]
    variables = same.init(jax.random.key(0), image)
    np.testing.assert_allclose(
        same.apply(variables, image).tokens, floor.apply(variables, image).tokens, rtol=1e-6
    )


@pytest.mark.full
def test_training_updates_statistics_and_drops_branches():
    module = dataclasses.replace(SMALL, stochastic_depth=0.9).build(Precision())
    variables = nn.meta.unbox(module.init(jax.random.key(0), IMAGES))
    plain = SMALL.build(Precision()).apply(variables, IMAGES)
    np.testing.assert_array_equal(module.apply(variables, IMAGES).tokens, plain.tokens)
    trained, state = SMALL.build(Precision()).apply(
        variables, IMAGES, True, mutable=["batch_stats"]
    )
    dropped, _ = module.apply(
        variables, IMAGES, True, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"]
    )
    assert not np.allclose(dropped.tokens, trained.tokens)
    before, after = (
        tree["block_0"]["norm_depthwise"]["mean"]
        for tree in (variables["batch_stats"], state["batch_stats"])
    )
    assert not np.allclose(before, after)


@pytest.mark.full
def test_rematerialisation_changes_nothing_and_no_parameter_is_dead():
    module = SMALL.build(Precision())
    full = dataclasses.replace(SMALL, rematerialisation="full").build(Precision())
    variables = nn.meta.unbox(module.init(jax.random.key(0), IMAGES))

    def gradients(module):
        def loss(params):
            out = module.apply({**variables, "params": params}, IMAGES, tokens=False)
            assert out.tokens is None
            return (out.pooled * jnp.cos(jnp.arange(24.0))).sum()

        return jax.grad(loss)(variables["params"])

    plain = gradients(module)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))
    for found, expected in zip(
        jax.tree.leaves(gradients(full)), jax.tree.leaves(plain), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(blocks=(1,)), "blocks: needs a positive number for each of 2 stages"),
        (dict(kernels=(3, 4)), "kernels: must be odd"),
        (dict(strides=(1, 3)), "strides: must be 1 or 2"),
        (dict(image_size=3, padding="floor"), "leaves nothing behind the strides; use 4 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_config_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes).build(Precision())
