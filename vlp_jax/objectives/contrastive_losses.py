"""Contrastive losses as plain functions on all pairs of a batch at once.

`contrastive_blocks.py` has blockwise ones.
"""

import jax
import jax.numpy as jnp


def softmax_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    positives: jax.Array | None = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """InfoNCE in both directions, image to text and text to image (Radford et al. 2021, figure 3).

    Args:
      image, text: [B, E] unit vectors.
      scale: scalar that multiplies their cosines (an inverse temperature).
      positives: [B, B] bool, True where image i and text j are a match, at least one in every row
        and column. A row's target is uniform over its positives (Khosla et al. 2020 with the sum
        outside the logarithm). None: the identity.
      label_smoothing: weight of the uniform distribution in the targets.
    Returns: the mean over examples and directions, float32.
    """
    logits = scale * cosines(image, text)
    positives = jnp.eye(len(image), dtype=bool) if positives is None else positives
    return 0.5 * (
        cross_entropy(logits, positives, label_smoothing)
        + cross_entropy(logits.T, positives.T, label_smoothing)
    )


def cross_entropy(logits: jax.Array, positives: jax.Array, label_smoothing: float) -> jax.Array:
    """The mean over rows of -sum_j t_j log softmax(logits)_j, with t uniform over the positives and
    smoothed.

    With p and n the log-sum-exp of the positive and of the other logits, this is log(1 + exp(n -
    p)) + (p - mean of the positives) + label_smoothing (mean of the positives - mean of all).
    Unlike log_softmax, this form is exact, including its gradients, where the single positive of a
    row is almost certain and the loss is tiny.

    Args:
      logits: [B, C].
      positives: [B, C] bool.
      label_smoothing: weight of the uniform distribution in the targets.
    """
    own, others = (
        jax.nn.logsumexp(jnp.where(kept, logits, -1e30), axis=-1)
        for kept in (positives, ~positives)
    )
    count = positives.sum(axis=-1)
    mean = jnp.where(positives, logits, 0.0).sum(axis=-1) / count
    # 0 for one positive; rounding errors of its gradient would dominate
    spread = jnp.where(count > 1, own - mean, 0.0)
    return (
        jax.nn.softplus(others - own) + spread + label_smoothing * (mean - logits.mean(axis=-1))
    ).mean()


def sigmoid_contrastive(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    positives: jax.Array | None = None,
) -> jax.Array:
    """Pairwise sigmoid loss (Zhai et al. 2023, eq. 1): an independent binary classification of
    every pair.

    Args:
      image, text: [B, E] unit vectors.
      scale, bias: scalars.
      positives: [B, B] bool; None: the identity.
    Returns: the sum over pairs divided by B, float32.
    """
    logits = scale * cosines(image, text) + bias
    signs = jnp.where(
        jnp.eye(len(image), dtype=bool) if positives is None else positives, 1.0, -1.0
    )
    return -jax.nn.log_sigmoid(signs * logits).sum() / len(image)


def cosines(image: jax.Array, text: jax.Array) -> jax.Array:
    """Inner products [B, B] of unit vectors, at least in float32, whatever the dtype of the
    inputs."""
    return inner("id,jd->ij", image, text)


def inner(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` with dtype and precision of at least float32, whatever the dtype of the
    inputs."""
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return jnp.einsum(
        letters, a, b, preferred_element_type=dtype, precision=jax.lax.Precision.HIGHEST
    )


def top1_accuracy(image: jax.Array, text: jax.Array, positives: jax.Array) -> jax.Array:
    """The fraction of images whose nearest text in the batch is a positive; a scalar in [0, 1]."""
    nearest = jnp.argmax(image @ text.T, axis=1)
    return jnp.take_along_axis(positives, nearest[:, None], axis=1).mean()
