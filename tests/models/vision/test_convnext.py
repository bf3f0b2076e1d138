"""ConvNeXt: its published size, its FLOPs, and what training changes. Its outputs are compared with
transformers' in tests/weights."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.vision.convnext import ConvNextConfig

SMALL = ConvNextConfig(widths=(6, 10), blocks=(1, 2), patch_size=2, image_size=8, layer_scale=0.5)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)


def test_the_tiny_size_has_as_many_parameters_as_published_without_the_classifier():
    module = ConvNextConfig().build(Precision())
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == 28_589_128 - 1000 * 769  # Liu et al. 2022, table 1: 29M
    out = jax.eval_shape(module.apply, shapes, image)
    assert out.tokens.shape == (1, 49, 768) and out.pooled.shape == (1, 768)
    assert ConvNextConfig().tokens == 49
    flops = ConvNextConfig().encoder_flops(train=False, tokens=False)
    assert abs(flops / 2 / 4.5e9 - 1) < 0.02  # multiplications, there


@pytest.mark.full
def test_stochastic_depth_acts_in_training_alone_and_rematerialisation_changes_nothing():
    module = dataclasses.replace(SMALL, stochastic_depth=0.9).build(Precision())
    variables = nn.meta.unbox(module.init(jax.random.key(0), IMAGES))
    plain = SMALL.build(Precision()).apply(variables, IMAGES)
    np.testing.assert_array_equal(module.apply(variables, IMAGES).tokens, plain.tokens)
    dropped = module.apply(variables, IMAGES, True, rngs={"dropout": jax.random.key(1)})
    assert not np.allclose(dropped.tokens, plain.tokens)
    full = dataclasses.replace(SMALL, rematerialisation="full").build(Precision())
    np.testing.assert_allclose(full.apply(variables, IMAGES).pooled, plain.pooled, rtol=1e-6)
    assert full.apply(variables, IMAGES, tokens=False).tokens is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(blocks=(1,)), "widths: needs one entry for each of blocks"),
        (dict(image_size=3), "leaves nothing behind the strides; use 4 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_config_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes).build(Precision())
