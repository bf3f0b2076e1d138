"""Losses of supervised targets, one per row, and the least losses of constant predictions."""

import jax
import jax.numpy as jnp

from vlp_jax.objectives.tokens import entropy_of


def softmax_losses(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy with the target (1 - s) onehot(label) + s / C (Szegedy et al. 2016, section 7).

    Args:
      logits: float32 [B, C].
      labels: int32 [B].
      label_smoothing: s.
    Returns: [B].
    """
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * own - label_smoothing * log_p.mean(axis=1)


def binary_losses(logits: jax.Array, scores: jax.Array) -> jax.Array:
    """Binary cross-entropy of every class, with soft labels (Teney et al. 2018, equation 1).

    For logits z and scores s:

      sum_c -s_c log sigmoid(z_c) - (1 - s_c) log(1 - sigmoid(z_c)).

    Args:
      logits, scores: float32 [B, C].
    Returns: [B].
    """
    return (jax.nn.softplus(logits) - scores * logits).sum(axis=1)


def hinge_losses(logits: jax.Array, labels: jax.Array, margin: float = 1.0) -> jax.Array:
    """max(0, margin + max over other classes j of z_j - z_label) (Crammer & Singer 2001, equation
    4).

    Args:
      logits: float32 [B, C].
      labels: int32 [B].
      margin: of logits.
    Returns: [B].
    """
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    others = jnp.where(own, -jnp.inf, logits).max(axis=1)
    return jax.nn.relu(margin + others - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0])


def softmax_reference(counts: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """The least mean of `softmax_losses` for constant logits, the entropy of the mean target.

    Args:
      counts: [C], of the labels.
      label_smoothing: s.
    """
    frequencies = counts / jnp.maximum(counts.sum(), 1e-9)
    return entropy_of((1.0 - label_smoothing) * frequencies + label_smoothing / len(counts))


def binary_reference(scores: jax.Array, rows: jax.Array) -> jax.Array:
    """The least mean of `binary_losses` for constant logits.

    It is the sum of the binary entropies of the mean scores.

    Args:
      scores: [C], summed over rows.
      rows: number of rows.
    """
    mean = jnp.clip(scores / jnp.maximum(rows, 1e-9), 0.0, 1.0)
    return (jax.scipy.special.entr(mean) + jax.scipy.special.entr(1.0 - mean)).sum()


def hinge_reference(counts: jax.Array, margin: float = 1.0) -> jax.Array:
    """The least mean of `hinge_losses` for constant logits.

    With p the fraction of the most frequent class and d the margin of its logit over the others,
    which are equal at the optimum, the mean is p max(0, margin - d) + (1 - p) (margin + d). It is
    least at d = 0, or at d = margin where p is above one half.

    Args:
      counts: [C], of the labels.
      margin: of the loss.
    """
    most = counts.max() / jnp.maximum(counts.sum(), 1e-9)
    return margin * jnp.minimum(1.0, 2.0 * (1.0 - most))


def moments(values: jax.Array, given: jax.Array) -> jax.Array:
    """Number, mean, and sum of squared deviations of the values [B] that are `given`, bool [B]:
    float32 [3]."""
    rows = given.sum(dtype=jnp.float32)
    mean = jnp.where(given, values, 0.0).sum() / jnp.maximum(rows, 1.0)
    return jnp.stack([rows, mean, jnp.where(given, jnp.square(values - mean), 0.0).sum()])


def moments_of_both(one: jax.Array, other: jax.Array) -> jax.Array:
    """`moments` of the union of two sets (Chan et al. 1979, equation 2.1).

    Sums of squares would lose a variance that is small compared with the squared mean.
    """
    rows = jnp.maximum(one[0] + other[0], 1e-9)
    difference = other[1] - one[1]
    squares = one[2] + other[2] + jnp.square(difference) * one[0] * other[0] / rows
    return jnp.stack([one[0] + other[0], one[1] + difference * other[0] / rows, squares])


def variance(rows: jax.Array, squares: jax.Array) -> jax.Array:
    """The least mean squared error of a constant prediction, from `moments`."""
    return squares / jnp.maximum(rows, 1e-9)
