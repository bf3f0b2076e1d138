"""Blockwise masking of patches (Bao et al. 2022, "BEiT", algorithm 1)."""

import math

import jax
import jax.numpy as jnp

BLOCKS = 16  # rectangles drawn for each image; far fewer mask 40% of it
ASPECT = 0.3  # smallest aspect ratio of a rectangle; its inverse is the largest


def hidden_patches(key: jax.Array, batch: int, side: int, count: int, smallest: int) -> jax.Array:
    """Draws the masked patches of each image.

    Rectangles of `smallest` to `count` patches, of any aspect ratio from ASPECT to its inverse and
    at any position, are added until `count` patches are covered. Of the last one only as many
    patches are masked as are missing, in reading order from its first or from its last, where the
    paper masks all of it.

    Args:
      key: random key.
      batch: B.
      side: patches along each axis of the image.
      count: number of masked patches, the same in each image.
      smallest: the smallest area of a rectangle in patches.
    Returns: int32 [B, count], indices among the side^2 patches, numbered row by row.
    """
    shape, place, direction = jax.random.split(key, 3)
    area, aspect = jax.random.uniform(shape, (2, batch, BLOCKS))
    area, aspect = (
        smallest + area * (count - smallest),
        jnp.exp((2.0 * aspect - 1.0) * math.log(ASPECT)),
    )
    extent = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)])
    extent = jnp.clip(jnp.round(extent), 1, side)[..., None]
    start = jnp.floor(jax.random.uniform(place, extent.shape) * (side - extent + 1))
    line = jnp.arange(side)
    rows, columns = (start <= line) & (line < start + extent)  # [B, BLOCKS, side] each
    covered = (rows[..., :, None] & columns[..., None, :]).reshape(batch, BLOCKS, side**2)
    # index of the first rectangle that covers a patch
    turn = jnp.where(covered.any(axis=1), covered.argmax(axis=1), BLOCKS)
    reading = jnp.arange(side**2)
    reading = jnp.where(jax.random.bernoulli(direction, shape=(batch, 1)), reading, reading[::-1])
    return jnp.argsort(turn * side**2 + reading, axis=1)[:, :count].astype(jnp.int32)
