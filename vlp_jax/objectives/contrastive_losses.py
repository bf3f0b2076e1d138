"""Contrastive losses as plain functions that hold all pairs of a batch at once; `contrastive_blocks.py` has those that do not."""

import jax
import jax.numpy as jnp


def softmax_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, positives: jax.Array | None = None,
                        label_smoothing: float = 0.0) -> jax.Array:
    """InfoNCE both ways (Radford et al. 2021, figure 3): which text belongs to an image, and which image to a text.

    image, text: [B, E] unit vectors. scale: scalar that multiplies their cosines (an inverse temperature).
    positives: [B, B] bool, True where image i and text j belong together, at least one in every row and column;
      a row's target is uniform over its positives (Khosla et al. 2020 with the sum outside the logarithm). The identity
      if None.
    label_smoothing: mixes the targets with the uniform distribution.
    Returns: the mean over examples and directions, float32.
    """
    logits = scale * cosines(image, text)
    positives = jnp.eye(len(image), dtype=bool) if positives is None else positives
    return 0.5 * (cross_entropy(logits, positives, label_smoothing) + cross_entropy(logits.T, positives.T, label_smoothing))


def cross_entropy(logits: jax.Array, positives: jax.Array, label_smoothing: float) -> jax.Array:
    """The mean over rows of -sum_j t_j log softmax(logits)_j, where t mixes the positives' mean with the row's.

    logits: [B, C]; positives: [B, C] bool. With p and n the log-sum-exp of the positive and of the other logits this is
    log(1 + exp(n - p)) + (p - mean of the positives) + label_smoothing (mean of the positives - mean of all). Unlike
    log_softmax it stays exact, gradients included, where a row's one positive is all but certain and the loss is tiny.
    """
    own, others = (jax.nn.logsumexp(jnp.where(kept, logits, -1e30), axis=-1) for kept in (positives, ~positives))
    count = positives.sum(axis=-1)
    mean = jnp.where(positives, logits, 0.0).sum(axis=-1) / count
    spread = jnp.where(count > 1, own - mean, 0.0)  # 0 for one positive; the rounding of its gradient would drown the rest
    return (jax.nn.softplus(others - own) + spread + label_smoothing * (mean - logits.mean(axis=-1))).mean()


def sigmoid_contrastive(image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array,
                        positives: jax.Array | None = None) -> jax.Array:
    """Pairwise sigmoid loss (Zhai et al. 2023, eq. 1): every pair is its own yes/no question.

    image, text: [B, E] unit vectors; scale, bias: scalars; positives: [B, B] bool, the identity if None.
    Returns: the sum over pairs divided by B, float32.
    """
    logits = scale * cosines(image, text) + bias
    signs = jnp.where(jnp.eye(len(image), dtype=bool) if positives is None else positives, 1.0, -1.0)
    return -jax.nn.log_sigmoid(signs * logits).sum() / len(image)


def cosines(image: jax.Array, text: jax.Array) -> jax.Array:
    """Inner products [B, B] of unit vectors, in float32 at least, whatever the inputs' dtype."""
    return inner("id,jd->ij", image, text)


def inner(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` in float32 at least, whatever the inputs' dtype, and as precise as that."""
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return jnp.einsum(letters, a, b, preferred_element_type=dtype, precision=jax.lax.Precision.HIGHEST)


def top1_accuracy(image: jax.Array, text: jax.Array, positives: jax.Array) -> jax.Array:
    """How often an image's nearest text in the batch is one of its own; a scalar in [0, 1]."""
    nearest = jnp.argmax(image @ text.T, axis=1)
    return jnp.take_along_axis(positives, nearest[:, None], axis=1).mean()
