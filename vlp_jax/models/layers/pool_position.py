"""Position of the one token of each example that is pooled."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class PoolPosition:
    """Position of the pooled token of each example.

    Attributes:
      index: int32 [B]; None: the first token. The first has no index so that it is a slice: with an
        index, a TPU's compiler keeps the saved activations of all earlier layers in two layouts.
    """

    index: jax.Array | None = None

    def of(self, x: jax.Array) -> jax.Array:
        """The token at the position: [B or 1, N, D] -> [B, 1, D], or [B or 1, 1, D] for the
        first."""
        if self.index is None:
            return x[:, :1]
        x = jnp.broadcast_to(x, (len(self.index), *x.shape[1:]))
        return jnp.take_along_axis(x, self.index[:, None, None], axis=1)

    def sees(self, mask: jax.Array | None, *, batch: int, count: int) -> jax.Array:
        """The tokens that the pooled token attends to in causal attention.

        Args:
          mask: [B, N] bool, the visible tokens; None: all.
          batch: B.
          count: N.
        Returns: [B, N] bool.
        """
        index = jnp.zeros(batch, jnp.int32) if self.index is None else self.index
        seen = jnp.arange(count) <= index[:, None]
        return seen if mask is None else seen & mask

    def rows(self, bias: jax.Array) -> jax.Array:
        """The token's row of a logit bias [H, N, M]: [B, H, 1, M]; for the first, [H, 1, M] of it
        and [B, H, 1, M] of one [B, H, N, M]."""
        return (
            bias[..., :1, :]
            if self.index is None
            else jnp.take(bias, self.index, axis=1).swapaxes(0, 1)[:, :, None]
        )


def last_visible(mask: jax.Array) -> PoolPosition:
    """Position of the last token that `mask` [B, L] shows; the first token where it shows none."""
    return PoolPosition(jnp.maximum(mask.sum(axis=1, dtype=jnp.int32) - 1, 0))
