"""Position embeddings of image patches and of text: additive, rotary, and as biases of attention
logits."""

import jax
import jax.numpy as jnp
import numpy as np

# buckets of distances, and the distance from which all share one: T5 (Raffel et al. 2020, section
# 2.1)
BUCKETS, FARTHEST = 32, 128


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


def rotary2d(side: int, head_dim: int, *, temperature: float = 100.0) -> np.ndarray:
    """Angles of a side x side grid for rotary positions along both axes.

    Heo et al. 2024, "Rotary position embedding for vision transformer", section 3.1. Half of the
    angles are multiples of x, half of y.

    Args:
      side: number of patches along each axis.
      head_dim: width of a head; divides by 4.
      temperature: inverse of the limit of the frequencies.
    Returns: float32 [side^2, head_dim / 2], rows from the top.
    """
    frequencies = temperature ** -(np.arange(head_dim // 4) / (head_dim // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([x, y], axis=1).astype(np.float32)


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
