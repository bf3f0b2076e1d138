"""What is a matrix, and which sides it has: by the logical axes of a parameter, whatever it is
called."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlp_jax.models.layers.transformer import LayerOptions, Transformer
from vlp_jax.models.options import Precision
from vlp_jax.models.target_head import TargetHead
from vlp_jax.models.text.transformer import embedded_words
from vlp_jax.models.vision.convolutions import Convolutions
from vlp_jax.sharding.linear_maps import linear_map, sides
from vlp_jax.sharding.parameter_sharding import is_boxed, named_axes
from vlp_jax.training.optimizer import build_optimizer, only_where_trained
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.optimizers.muon import matrix_axes


class Small(nn.Module):
    """One parameter of each sort: embeddings, a scanned stack, a convolution, and the head of a
    target."""

    @nn.compact
    def __call__(self, text, image):
        x = embedded_words(text, 140, 16, Precision())
        x = Transformer(LayerOptions(width=16, heads=2, mlp_dim=24), scan=True, name="transformer")(
            x
        ).mean(axis=1)
        x += (
            Convolutions()
            .convolution(16, 3, bias=True, name="convolution")(image)
            .mean(axis=(1, 2))
        )
        return TargetHead(20, 5, 0.0, 0.0, Precision(), name="head")(x)


BOXED = jax.eval_shape(
    lambda: Small().init(jax.random.key(0), jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 4, 4, 3)))
)["params"]


def renamed(tree):
    """The same tree with every module and parameter under another name."""
    return (
        {name[::-1]: renamed(branch) for name, branch in tree.items()}
        if isinstance(tree, dict)
        else tree
    )


def draw(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), nn.meta.unbox(BOXED)
    )


def last_update(optimizer, tree):
    params, update = tree(draw(0)), jax.jit(optimizer.update)
    state = optimizer.init(params)
    for seed in range(1, 3):
        updates, state = update(tree(draw(seed)), state, params)
    return updates


@pytest.mark.parametrize("kind", OptimizerConfig.kinds)
def test_names_of_modules_change_no_update_of_any_optimizer(kind):
    fields = dict(newton_schulz_steps=1) if kind == "muon" else {}
    config = OptimizerConfig.of(
        kind, weight_decay=0.0 if kind == "adam" else 0.1, decay_multipliers=(), **fields
    )
    plain, other = (
        only_where_trained(build_optimizer(config, optax.constant_schedule(0.1), boxed), boxed)
        for boxed in (BOXED, renamed(BOXED))
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        renamed(last_update(plain, lambda tree: tree)),
        last_update(other, renamed),
    )


def test_names_of_modules_change_no_working_copy():
    precision = Precision(jnp.bfloat16)
    plain = precision.working_copy(draw(0), named_axes(BOXED))
    assert renamed(jax.tree.map(lambda leaf: leaf.dtype, plain)) == jax.tree.map(
        lambda leaf: leaf.dtype,
        precision.working_copy(renamed(draw(0)), named_axes(renamed(BOXED))),
    )
    cast = {axes for path, axes in named_axes(BOXED).items() if linear_map(axes) is not None}
    assert cast == {
        ("layers", "embed", "heads", "head_dim"),
        ("layers", "heads", "head_dim", "embed"),
        ("layers", "embed", "mlp"),
        ("layers", "mlp", "embed"),
        ("kernel_height", "kernel_width", "channels", "embed"),
        ("embed", "mlp"),
        ("mlp", "targets"),
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(plain)} == {
        jnp.dtype("float32"),
        jnp.dtype("bfloat16"),
    }


def test_every_parameter_of_a_model_is_called_by_its_axes():
    assert all(is_boxed(leaf) for leaf in jax.tree.leaves(BOXED, is_leaf=is_boxed))


@pytest.mark.parametrize(
    ("axes", "inputs", "outputs"),
    [
        (("embed", "mlp"), (0,), (1,)),
        (("layers", "embed", "heads", "head_dim"), (1,), (2, 3)),
        (("heads", "head_dim", "embed"), (0, 1), (2,)),
        (("patch", "embed", "mlp"), (0, 1), (2,)),
        (("kernel_height", "kernel_width", "channels", "embed"), (0, 1, 2), (3,)),
        (("mlp", "targets"), (0,), (1,)),
    ],
)
def test_the_last_side_holds_the_outputs(axes, inputs, outputs):
    assert linear_map(axes) == (inputs, outputs)
    numbers = matrix_axes(axes)
    if "targets" in axes:
        assert numbers is None
    else:
        assert [tuple(i + len(axes) for i in side) for side in numbers] == [inputs, outputs]


@pytest.mark.parametrize(
    "axes",
    [
        (),
        ("embed",),
        ("layers", "embed"),
        ("vocab", "embed"),
        (None, None, "embed"),
        (None, None),
        ("heads", "head_dim"),
        ("layers", "heads", "head_dim"),
    ],
)
def test_what_has_one_side_an_unnamed_axis_or_a_row_per_word_is_no_linear_map(axes):
    assert linear_map(axes) is None and matrix_axes(axes) is None


def test_heads_and_their_features_are_one_side():
    assert sides(("layers", "embed", "heads", "head_dim")) == [(1,), (2, 3)]
    assert sides(("heads", "head_dim", "embed")) == [(0, 1), (2,)]
    assert sides(("embed", "head_dim")) == [(0,), (1,)]
