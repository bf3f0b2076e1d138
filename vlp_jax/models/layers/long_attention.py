"""Attention over long sequences on TPU, by JAX's splash kernel, block by block.

The kernel needs each head in rows of its own and lengths that divide by 128, so queries and keys
are rearranged and padded. For a sequence that fits on-chip as a whole, `fused_attention` is faster.
"""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from vlp_jax.models.layers.segment_mask import Mask, Segments

LANES = 128
LARGEST_BLOCK = 4 * LANES


def long_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    heads: int,
    mask: Mask = None,
    causal: bool = False,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v of every head, with the softmax in float32.

    Args:
      q: [B, N, H K], the heads concatenated.
      k, v: [B, M, H K].
      heads: H.
      mask: [B, M] bool, False hides a token; or Segments; None: all visible.
      causal: whether a query attends to no later token.
      interpret: runs the kernel in Pallas' interpreter, on any platform.
    Returns: [B, N, H K]; zeros for a query without any visible token.
    """
    length = q.shape[1]
    numbers, some = numbered(mask, len(q), length=length, memory_length=k.shape[1])
    q, k, v = (
        padded(rearrange(x, "b n (h k) -> b h n k", h=heads), axis=2)
        for x in (q * (q.shape[-1] // heads) ** -0.5, k, v)
    )
    shape = (q.shape[2], k.shape[2])
    head_mask = (splash.CausalMask if causal else splash.FullMask)(shape)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([head_mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=blocks(*shape),
        interpret=interpret,
    )
    segments = splash.SegmentIds(padded(numbers.queries, axis=1), padded(numbers.memory, axis=1))
    attended: Any = jax.vmap(kernel)(q, k, v, segments)
    attended = rearrange(attended[:, :, :length], "b h n k -> b n (h k)")
    return jnp.where(some[:, :, None], attended, 0)


def numbered(
    mask: Mask, batch: int, *, length: int, memory_length: int
) -> tuple[Segments, jax.Array]:
    """The mask as Segments in which every query has a visible token, as the kernel's softmax needs.

    Returns: the Segments, and [B, 1 or N] bool, True for queries that had a visible token before;
      only their outputs are valid.
    """
    if isinstance(mask, Segments):
        queries, memory = mask.queries, mask.memory
        return Segments(
            jnp.where(queries > 0, queries, memory.min(axis=1, keepdims=True)), memory
        ), queries > 0
    mask = jnp.ones((batch, memory_length), bool) if mask is None else jnp.asarray(mask)
    some = mask.any(axis=1, keepdims=True)
    return Segments(
        jnp.ones((batch, length), jnp.int32), jnp.where(some, mask, True).astype(jnp.int32)
    ), some


def padded(x: jax.Array, axis: int) -> jax.Array:
    """`x`, zero-padded at the end to a multiple of 128 along `axis`."""
    return jnp.pad(x, [(0, -size % LANES if i == axis else 0) for i, size in enumerate(x.shape)])


def blocks(length: int, memory_length: int) -> splash.BlockSizes:
    """Block sizes: the largest multiple of 128 up to 512 that divides each length."""
    queries, keys = (
        max(size for size in range(LANES, LARGEST_BLOCK + 1, LANES) if total % size == 0)
        for total in (length, memory_length)
    )
    return splash.BlockSizes(
        block_q=queries,
        block_q_dkv=queries,
        block_q_dq=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        block_kv_dq=keys,
    )
