"""What attention reads besides the tokens that pass through a stack of layers."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.segment_mask import Mask
from vlp_jax.models.options import present


@flax.struct.dataclass
class Cache:
    """Position and length of the keys and values kept in the collection "cache" for incremental
    decoding.

    Attributes:
      position: int32 scalar, position of the first new token; None: the memory is complete and kept
        as it is.
      length: number of tokens that the cache holds.
    """

    position: jax.Array | int | None
    length: int = flax.struct.field(pytree_node=False)

    def visible(self, queries: int) -> jax.Array:
        """Causal mask of N new tokens over the cache: each attends to itself and to all earlier
        positions.

        Returns: bool [1, N, length].
        """
        return (jnp.arange(self.length) <= present(self.position) + jnp.arange(queries)[:, None])[
            None
        ]


@flax.struct.dataclass
class AttentionInputs:
    """What the attention of all layers of a stack reads besides the tokens that pass through it.

    N tokens pass through the stack. A part that is None has no effect.

    Attributes:
      mask: [B, N] bool, the visible tokens of self-attention; hidden ones (padding) come last. Or
        Segments.
      memory: [B, M, D'] in the compute dtype, the tokens of cross-attention; None where the cache
        has their keys and values.
      memory_mask: [B, M] bool, the visible tokens of the memory. Or Segments.
      angles: float [B or 1, N, K / 2], the rotation of the queries and keys of self-attention (see
        `positions.rotary2d`).
      visible: [B or 1, N, N] bool, the allowed pairs of self-attention, combined with `mask` and in
        place of `LayerOptions.causal`; [.., N, cache.length] with a cache.
      bias: float32 [H, N, N] or [B, H, N, N], added to the logits of self-attention (see
        `positions.relative_bias`); [H, N, cache.length] with a cache.
      buckets: int32 [N, N] or [B, N, N], the row of a table of position biases for each pair of
        tokens (see `positions.grid_buckets`).
      cache: position of the N tokens among those whose keys and values are kept. The memory is
        given in the first call only.
      pool_position: position of the one token of each example that the last layer computes.
    """

    mask: Mask = None
    memory: jax.Array | None = None
    memory_mask: Mask = None
    angles: jax.Array | None = None
    visible: jax.Array | None = None
    bias: jax.Array | None = None
    cache: Cache | None = None
    pool_position: PoolPosition | None = None
    buckets: jax.Array | None = None

    def with_bias(self, table: jax.Array) -> "AttentionInputs":
        """With the logit bias of a table float32 [buckets, H], of each pair by its bucket."""
        bias = jnp.moveaxis(jnp.take(table, present(self.buckets), axis=0), -1, -3)
        return dataclasses.replace(self, bias=bias)


ALL_TOKENS = AttentionInputs()  # self-attention of all tokens
