"""Several short texts packed into a row of tokens, each with its own image."""

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from vlp_jax.models.layers.segment_mask import Segments
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import present
from vlp_jax.sharding.layout import constrain


@flax.struct.dataclass
class PackedRows:
    """Segment ids of packed rows.

    Attributes:
      segments: int32 [T, L], the number of the text that a token belongs to; 0 for padding.
      windows: the T rows are divided into this many windows of T / windows rows; texts 1 ... W of a
        window belong to its W images.
    """

    segments: jax.Array
    windows: int = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, segments: jax.Array) -> "PackedRows":
        """Packed rows from segments int32 [windows, rows, L]."""
        return cls(rearrange(segments, "w r l -> (w r) l"), len(segments))

    def places(self) -> jax.Array:
        """The position of each token in its own text, from 0, int32 [T, L]."""
        order = jnp.arange(self.segments.shape[1], dtype=jnp.int32)
        start = jnp.where(~self.continued(), order, 0)
        return order - jax.lax.cummax(start, axis=1)

    def continued(self) -> jax.Array:
        """Whether a token belongs to the same text as the token before it, bool [T, L]."""
        same = self.segments[:, 1:] == self.segments[:, :-1]
        return jnp.pad(same, ((0, 0), (1, 0)))

    def themselves(self) -> Segments:
        """The mask of self-attention."""
        return Segments(self.segments, self.segments)

    def pictures(self, memory: Encoding) -> tuple[jax.Array, Segments]:
        """The images' tokens for each row, and the mask of cross-attention.

        Args:
          memory: Encoding of the images, with tokens [B, M, D].
        Returns: the tokens of all images of a row's window, [T, W M, D], and Segments by which each
          text attends to its own image.
        """
        given = present(memory.tokens)
        rows, count = len(self.segments) // self.windows, given.shape[1]
        tokens = repeat(given, "(n w) m d -> (n r) (w m) d", n=self.windows, r=rows)
        each = len(given) // self.windows
        numbers = jnp.broadcast_to(
            repeat(jnp.arange(1, each + 1), "w -> (w m)", m=count), tokens.shape[:2]
        )
        if memory.mask is not None:
            numbers *= repeat(memory.mask, "(n w) m -> (n r) (w m)", n=self.windows, r=rows)
        return constrain(tokens, ("batch", "tokens", "activation_embed")), Segments(
            self.segments, numbers
        )
