"""Functions shared by the losses on tokens."""

import jax
import jax.numpy as jnp

from vlp_jax.models.decoder.packed_rows import PackedRows


def rows_of_text(batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, PackedRows | None]:
    """The rows of text of a batch.

    Returns: text int32 [T, L], mask bool [T, L], and the segments of packed rows, None without
      packing.
    """
    packed = PackedRows.of(batch["segment"]) if "segment" in batch else None
    text, mask = (batch[name].reshape(-1, batch[name].shape[-1]) for name in ("text", "text_mask"))
    return text, mask, packed


def log_likelihood(logits: jax.Array, text: jax.Array) -> jax.Array:
    """log softmax(logits)[text] in float32. logits: [B, L, V]; text: int32 [B, L] -> [B, L]."""
    logits = logits.astype(jnp.float32)
    return jnp.take_along_axis(logits, text[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(
        logits, axis=-1
    )


def kl_divergence(teacher: jax.Array, student: jax.Array) -> jax.Array:
    """KL(q || p) of q = softmax(teacher) and p = softmax(student), in float32.

    Args:
      teacher, student: logits [B, L, V].
    Returns: [B, L].
    """
    log_q, log_p = (jax.nn.log_softmax(logits.astype(jnp.float32)) for logits in (teacher, student))
    return (jnp.exp(log_q) * (log_q - log_p)).sum(axis=-1)


def mean_where(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of `values` where `mask` is True; 0 where it is True nowhere."""
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def entropy_of(counts: jax.Array) -> jax.Array:
    """The entropy, in nats, of the distribution in proportion to counts [V]; 0 where all are 0."""
    return jax.scipy.special.entr(counts / jnp.maximum(counts.sum(), 1e-9)).sum()
