"""A mask of attention that tells tokens apart by numbers."""

import flax.struct
import jax


@flax.struct.dataclass
class Segments:
    """A mask of attention by numbers: a query sees the tokens of its own number, and none of number 0.

    queries: int32 [B, N]; memory: int32 [B, M]. A query of another number than 0 has a token to see.
    """

    queries: jax.Array
    memory: jax.Array

    def visible(self) -> jax.Array:
        """[B, N, M] bool."""
        memory = self.memory[:, None, :]
        return (self.queries[:, :, None] == memory) & (memory > 0)


Mask = jax.Array | Segments | None  # bool [B, M], False hides a token; or by numbers; None shows all


def shown(mask: jax.Array | Segments) -> jax.Array:
    """[B, 1 or N, M] bool, which tokens of the memory each query sees."""
    return mask.visible() if isinstance(mask, Segments) else mask[:, None]
