"""Adafactor (Shazeer and Stern 2018) that follows the logical axes of each parameter.

A stack of scanned layers counts as one parameter per layer, and an attention kernel with a heads
axis counts as the matrix that it is. Scanning the layers or splitting the heads therefore changes
no update. `optax.scale_by_factored_rms` and `optax.clip_by_block_rms` use only the shape of an
array. On plain matrices and vectors the functions of this module equal them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlp_jax.config.fields import between
from vlp_jax.sharding.linear_maps import own_axes, sides
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.training.optimizers.base import OptimizerConfig, axes_at, is_masked

# least length of the shorter side of a matrix whose moments are factored, as in Optax
SMALLEST = 128
EPSILON = 1e-30  # added to squared gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdafactorConfig(OptimizerConfig):
    """Adafactor without its relative step size: factored second moments, clipped updates, momentum
    b1.

    The second moments decay by 1 - t^-0.8, at most b2 (Shazeer and Stern 2018; momentum and b2 as
    in Zhai et al. 2022, section 3.4).
    """

    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """Factored second moments, clipping of each parameter's update, and momentum where b1 is
        not 0."""
        momentum = [optax.ema(self.b1, debias=False)] if self.b1 else []
        factored = scale_by_factored_moments(
            axes, lambda step: jnp.minimum(1.0 - (step + 1.0) ** -0.8, self.b2)
        )
        return [factored, clip_by_parameter_rms(axes, 1.0), *momentum]


class FactoredState(NamedTuple):
    """Factored second moments, as trees of the parameters.

    The unused representation of a moment holds a single zero.

    Attributes:
      count: int32, updates made.
      rows, columns: means of squared gradients along the other axis.
      whole: squared gradients of parameters that are not factored.
    """

    count: jax.Array
    rows: Any
    columns: Any
    whole: Any


def scale_by_factored_moments(
    axes: Mapping[str, Axes], decay: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """Divides gradients by the root of their second moments (Shazeer and Stern 2018, algorithm 4).

    The moments of a large matrix are kept as an outer product.

    Args:
      axes: {path: logical axes} of the parameters; those of absent parameters are unnamed.
      decay: decay of the moments as a function of the number of updates made.
    """

    def factors(path: tuple, leaf: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        return factored_axes(leaf.shape, axes_at(axes, path, leaf))

    def start(path, leaf):
        if is_masked(leaf):
            return (leaf,) * 3
        found, nothing = factors(path, leaf), jnp.zeros((1,), leaf.dtype)
        if found is None:
            return nothing, nothing, jnp.zeros_like(leaf)
        return *(
            jnp.zeros_like(leaf, shape=_without(leaf.shape, mean_over))
            for mean_over in reversed(found)
        ), nothing

    def init(params):
        return FactoredState(
            jnp.zeros((), jnp.int32),
            *_unzip(jax.tree_util.tree_map_with_path(start, params, is_leaf=is_masked)),
        )

    def update(updates, state, params=None):
        gradients, rate = updates, decay(state.count)

        def moved(moment, square):
            return rate * moment + (1.0 - rate) * square

        def scaled(path, gradient, rows, columns, whole):
            if is_masked(gradient):
                return (gradient,) * 4
            square, found = jnp.square(gradient) + EPSILON, factors(path, gradient)
            if found is None:
                whole = moved(whole, square)
                return gradient * jax.lax.rsqrt(whole), rows, columns, whole
            short, long = found
            rows, columns = (
                moved(rows, square.mean(axis=long)),
                moved(columns, square.mean(axis=short)),
            )
            by_row, by_column = jnp.expand_dims(rows, long), jnp.expand_dims(columns, short)
            scale = jax.lax.rsqrt(by_row / by_row.mean(axis=short, keepdims=True)) * jax.lax.rsqrt(
                by_column
            )
            return gradient * scale, rows, columns, whole

        found = jax.tree_util.tree_map_with_path(
            scaled, gradients, state.rows, state.columns, state.whole, is_leaf=is_masked
        )
        updates, *moments = _unzip(found)
        return updates, FactoredState(jnp.asarray(optax.safe_increment(state.count)), *moments)

    return optax.GradientTransformation(init, update)


def clip_by_parameter_rms(
    axes: Mapping[str, Axes], threshold: float
) -> optax.GradientTransformation:
    """Divides each update by its root mean square over `threshold`, where that is more than 1.

    See Shazeer and Stern 2018, section 6. Each layer of a stack is clipped by itself.

    Args:
      axes: as in `scale_by_factored_moments`.
      threshold: largest root mean square of an update.
    """

    def clip(path, update):
        if is_masked(update):
            return update
        own = own_axes(axes_at(axes, path, update))
        return update / jnp.maximum(
            1.0, jnp.sqrt(jnp.square(update).mean(axis=own, keepdims=True)) / threshold
        )

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(clip, updates, is_leaf=is_masked)
    )


def factored_axes(
    shape: tuple[int, ...], axes: Axes
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The two longest sides of a parameter, the shorter one first, each as the axes that it spans.

    Returns: None where the second longest side has fewer than SMALLEST elements.
    """
    found = sides(axes)
    lengths = [math.prod(shape[i] for i in side) for side in found]
    order = np.argsort(lengths, kind="stable")
    if len(found) < 2 or lengths[order[-2]] < SMALLEST:
        return None
    return found[order[-2]], found[order[-1]]


def _without(shape: tuple[int, ...], dropped: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for i, size in enumerate(shape) if i not in dropped)


def _unzip(tree: Any) -> tuple:
    """A tree of tuples as a tuple of trees."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: type(node) is tuple)
    return tuple(jax.tree.unflatten(structure, part) for part in zip(*leaves, strict=True))
