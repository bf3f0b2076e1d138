"""Positions of image patches and of words: added to tokens (sine and cosine), turning queries and keys (rotary), or told to
attention by how far apart two words stand."""

import jax
import jax.numpy as jnp
import numpy as np

BUCKETS, FARTHEST = 32, 128  # of distances between words, and from where on all are alike: T5's (Raffel et al. 2020, section 2.1)


def sincos2d(side: int, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed position embedding of a side x side grid (MoCo v3, Chen et al. 2021, and MAE): [side^2, width], rows from the top.

    A quarter of the width each for sin and cos of x and of y, with frequencies from 1 towards 1 / temperature, which as there is
    not reached; the width divides by 4.
    """
    frequencies = temperature ** -(np.arange(width // 4) / (width // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def rotary2d(side: int, head_dim: int, temperature: float = 100.0) -> np.ndarray:
    """Angles of a side x side grid for rotary positions along both axes (Heo et al. 2024, "Rotary position embedding for vision
    transformer", section 3.1): [side^2, head_dim / 2], rows from the top. Half of the angles are multiples of x, half of y;
    head_dim divides by 4."""
    frequencies = temperature ** -(np.arange(head_dim // 4) / (head_dim // 4))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([x, y], axis=1).astype(np.float32)


def sinusoidal(length: int, width: int) -> np.ndarray:
    """Fixed positions of words (Vaswani et al. 2017, section 3.5), float32 [length, width], the width even: at 2 i the sine of
    p / 10000^(2 i / D), at 2 i + 1 its cosine."""
    angles = np.arange(length)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width).astype(np.float32)


def relative_bias(table: jax.Array, first: jax.Array | int, queries: int, memory: int, causal: bool) -> jax.Array:
    """What is added to the logits of attention between words (Raffel et al. 2020, "T5", section 2.1): a number for each head and
    each bucket of distances.

    table: float32 [BUCKETS, H]; first: where the first query stands; of a causal stack no bucket is spent on later words.
    Returns: float32 [H, queries, memory].
    """
    return jnp.take(table, buckets(first, queries, memory, causal), axis=0).transpose(2, 0, 1)


def buckets(first: jax.Array | int, queries: int, memory: int, causal: bool) -> jax.Array:
    """int32 [queries, memory]: half of the buckets are for a single distance each, the others grow with its logarithm up to
    FARTHEST; without causality earlier words have one half of the buckets, later ones the other."""
    distance = jnp.arange(memory) - (first + jnp.arange(queries))[:, None]
    count = BUCKETS if causal else BUCKETS // 2
    single = count // 2
    growth = (FARTHEST / single) ** (np.arange(1, count - single) / (count - single))
    # Where each bucket but the first begins, in whole numbers: no rounding of a logarithm decides.
    begins = np.concatenate([np.arange(1, single + 1), np.ceil(single * growth - 1e-9)]).astype(np.int32)
    found = jnp.searchsorted(begins, jnp.maximum(-distance, 0) if causal else jnp.abs(distance), side="right").astype(jnp.int32)
    return found if causal else found + count * (distance > 0)
