"""One token of each example: where it stands."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class PoolPosition:
    """Where the one token stands that is wanted of each example: `index`, int32 [B], or None for the first of all.

    The first has no index so that it is a slice: with one, a TPU's compiler keeps what all layers before save in two layouts.
    """

    index: jax.Array | None = None

    def of(self, x: jax.Array) -> jax.Array:
        """[B or 1, N, D] -> [B, 1, D], or [B or 1, 1, D] for the first."""
        if self.index is None:
            return x[:, :1]
        x = jnp.broadcast_to(x, (len(self.index), *x.shape[1:]))
        return jnp.take_along_axis(x, self.index[:, None, None], axis=1)

    def sees(self, mask: jax.Array | None, batch: int, count: int) -> jax.Array:
        """[B, N] bool: what the token sees in causal attention of N = count tokens, of those that `mask` [B, N] shows."""
        index = jnp.zeros(batch, jnp.int32) if self.index is None else self.index
        seen = jnp.arange(count) <= index[:, None]
        return seen if mask is None else seen & mask

    def rows(self, bias: jax.Array) -> jax.Array:
        """What [H, N, M], added to logits, is for the token: [B, H, 1, M], or [H, 1, M] for the first."""
        return bias[:, :1] if self.index is None else jnp.take(bias, self.index, axis=1).swapaxes(0, 1)[:, :, None]


def last_visible(mask: jax.Array) -> PoolPosition:
    """The last token that `mask` [B, L] shows, the first where it shows none."""
    return PoolPosition(jnp.maximum(mask.sum(axis=1, dtype=jnp.int32) - 1, 0))
