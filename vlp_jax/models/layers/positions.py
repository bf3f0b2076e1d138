"""Position embeddings of image patches and of text: additive, rotary, and as biases of attention
logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.models.options import with_logical_axes

# buckets of distances, and the distance from which all share one: T5 (Raffel et al. 2020, section
# 2.1)
BUCKETS, FARTHEST = 32, 128
# of the relative position bias of a grid, [buckets, H]
BIAS_INIT = with_logical_axes(nn.initializers.zeros, (None, "heads"))


def sincos2d(side: int, width: int, *, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed position embedding of a side x side grid (MoCo v3, Chen et al. 2021, and MAE).

    A quarter of the width each holds sin and cos of x and of y. Frequencies decrease from 1 towards
    1 / temperature, which is not reached, as in the released code.

    Args:
      side: number of patches along each axis.
      width: number of features; divides by 4.
      temperature: inverse of the limit of the frequencies.
    Returns: float32 [side^2, width], rows from the top.
    """
    frequencies = temperature ** -(np.arange(width // 4) / (width // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def rotary2d(
    side: int,
    head_dim: int,
    *,
    temperature: float = 100.0,
    offset: float = 0.0,
    reference: int | None = None,
) -> np.ndarray:
    """Angles of a side x side grid for rotary positions along both axes.

    Heo et al. 2024, "Rotary position embedding for vision transformer", section 3.1. Half of the
    angles are multiples of x, half of y.

    Args:
      side: number of patches along each axis.
      head_dim: width of a head; divides by 4.
      temperature: inverse of the limit of the frequencies.
      offset: coordinate of the first patch; tokens without a place in the image are at 0.
      reference: side of the grid to which coordinates are scaled; None: that of the image.
    Returns: float32 [side^2, head_dim / 2], rows from the top.
    """
    frequencies = temperature ** -(np.arange(head_dim // 4) / (head_dim // 4))
    grid = (np.mgrid[:side, :side].astype(np.float64) + offset) * ((reference or side) / side)
    y, x = (axis.reshape(-1, 1) * frequencies for axis in grid)
    return np.concatenate([x, y], axis=1).astype(np.float32)


def rotary2d_unit(side: int, head_dim: int, *, temperature: float = 100.0) -> np.ndarray:
    """Angles as of `rotary2d` whose coordinates are those of patch centres between -1 and 1, in
    full turns, so that they change little with the size of the grid (Simeoni et al. 2025,
    "DINOv3", section 3.2).

    Half of the angles are multiples of y, half of x.

    Args:
      side: number of patches along each axis.
      head_dim: width of a head; divides by 4.
      temperature: inverse of the limit of the frequencies.
    Returns: float32 [side^2, head_dim / 2], rows from the top.
    """
    frequencies = temperature ** -(np.arange(head_dim // 4) / (head_dim // 4))
    grid = (2 * np.mgrid[:side, :side].astype(np.float64) + 1) / side - 1
    y, x = (2 * np.pi * axis.reshape(-1, 1) * frequencies for axis in grid)
    return np.concatenate([y, x], axis=1).astype(np.float32)


def bucket_count(side: int) -> int:
    """The number of buckets of `grid_buckets`: the offsets of two patches, and three for pairs with
    another token."""
    return (2 * side - 1) ** 2 + 3


def grid_buckets(side: int, before: int, after: int) -> np.ndarray:
    """The bucket of every pair of tokens of an image for a relative position bias (Bao et al. 2022,
    "BEiT", section 2.1 and its code).

    There is one for each offset between patches along both axes. The last three are for queries
    without a position, for keys without one, and for pairs without any.

    Args:
      side: number of patches along each axis.
      before: number of tokens without a position before the patches.
      after: number of those after them.
    Returns: int32 [M, M], M tokens.
    """
    row, column = np.divmod(np.arange(side**2), side)
    down, across = (place[:, None] - place + side - 1 for place in (row, column))
    around, last = (before, after), bucket_count(side) - 1
    found = np.pad(down * (2 * side - 1) + across, around, constant_values=last)
    patches = np.pad(np.ones(side**2, bool), around)
    found[~patches[:, None] & patches] = last - 2
    found[patches[:, None] & ~patches] = last - 1
    return found.astype(np.int32)


def sinusoidal(length: int, width: int) -> np.ndarray:
    """Fixed position embedding of text (Vaswani et al. 2017, section 3.5).

    Feature 2 i of position p is the sine of p / 10000^(2 i / D), feature 2 i + 1 its cosine.

    Args:
      length: number of positions.
      width: number of features; even.
    Returns: float32 [length, width].
    """
    angles = np.arange(length)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)
    return (
        np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        .reshape(length, width)
        .astype(np.float32)
    )


def sinusoidal_halves(length: int, width: int) -> np.ndarray:
    """Fixed position embedding as in tensor2tensor: the sines of all frequencies, then their
    cosines; the last frequency is 1 / 10000.

    Args:
      length: number of positions.
      width: number of features; even, and at least four.
    Returns: float32 [length, width].
    """
    half = width // 2
    angles = np.arange(length)[:, None] / 10_000.0 ** (np.arange(half) / (half - 1))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def relative_bias(
    table: jax.Array, first: jax.Array | int, *, queries: int, memory: int, causal: bool
) -> jax.Array:
    """Relative position bias of attention logits (Raffel et al. 2020, "T5", section 2.1).

    It is a scalar per head and distance bucket.

    Args:
      table: float32 [BUCKETS, H], learned.
      first: position of the first query.
      queries: number of queries.
      memory: number of keys.
      causal: whether the stack is causal; no bucket is then used for later positions.
    Returns: float32 [H, queries, memory].
    """
    return jnp.take(table, buckets(first, queries, memory=memory, causal=causal), axis=0).transpose(
        2, 0, 1
    )


def buckets(first: jax.Array | int, queries: int, *, memory: int, causal: bool) -> jax.Array:
    """Distance bucket of every pair of query and key.

    Half of the buckets hold a single distance each; the others grow logarithmically up to FARTHEST.
    If not causal, one half of the buckets is for earlier positions, the other for later ones.

    Returns: int32 [queries, memory].
    """
    distance = jnp.arange(memory) - (first + jnp.arange(queries))[:, None]
    count = BUCKETS if causal else BUCKETS // 2
    single = count // 2
    growth = (FARTHEST / single) ** (np.arange(1, count - single) / (count - single))
    # The first distance of each bucket after bucket 0, as integers, so that no rounding of a
    # logarithm matters.
    begins = np.concatenate([np.arange(1, single + 1), np.ceil(single * growth - 1e-9)]).astype(
        np.int32
    )
    found = jnp.searchsorted(
        begins, jnp.maximum(-distance, 0) if causal else jnp.abs(distance), side="right"
    ).astype(jnp.int32)
    return found if causal else found + count * (distance > 0)
