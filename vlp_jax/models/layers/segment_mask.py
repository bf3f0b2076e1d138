"""Attention mask by segment ids."""

import flax.struct
import jax


@flax.struct.dataclass
class Segments:
    """Attention mask by segment ids: a query attends to the tokens of its own segment.

    Id 0 is padding and never attended to.

    Attributes:
      queries: int32 [B, N]. A query with another id than 0 has at least one token to attend to.
      memory: int32 [B, M].
    """

    queries: jax.Array
    memory: jax.Array

    def visible(self) -> jax.Array:
        """The mask as allowed pairs, [B, N, M] bool."""
        memory = self.memory[:, None, :]
        return (self.queries[:, :, None] == memory) & (memory > 0)


# bool [B, M], False hides a token; or segment ids; None: all visible
Mask = jax.Array | Segments | None


def shown(mask: jax.Array | Segments) -> jax.Array:
    """The tokens of the memory that each query may attend to, [B, 1 or N, M] bool."""
    return mask.visible() if isinstance(mask, Segments) else mask[:, None]
