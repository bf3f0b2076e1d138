"""The two contrastive losses as sums over pairs that can be computed block by block.

A loss defines a summary of an example's pairs with others, how summaries of parts are merged, and
the loss and its derivative with respect to each logit from a complete summary. Both losses are the
mean of two directions: of a loss of each image's pairs (along axis 1), and of each text's (axis 0).
A pair's logit is scale * cosine + bias. Cosines are kept and compared, not logits, so that rounding
errors are not those of the larger logits.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

FLOOR = -1e30  # below any cosine, and finite, so that the difference of two is not NaN


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairLoss:
    """Base class of the two losses.

    A summary describes n examples, each paired with some others: a struct of arrays [n] with at
    least `own_max` and `other_max`, the largest cosine of its positives and of its other pairs.

    Attributes:
      scale, bias: scalars.
      size: the number of examples of the batch. The methods need these three; `at` sets them.
    """

    scale: Any = None
    bias: Any = None
    size: int = 0

    def at(self, scale: jax.Array, bias: jax.Array | float, size: int) -> "PairLoss":
        """The loss with its scale, bias and batch size set."""
        return dataclasses.replace(self, scale=scale, bias=bias, size=size)

    def summarise(self, cosine: jax.Array, positives: jax.Array, axis: int) -> Any:
        """Summary of a block [b, c] of pairs, which may be empty, reduced along `axis`."""
        raise NotImplementedError

    def merge(self, summaries: Any) -> Any:
        """Merges summaries of the same examples with different others, stacked along axis 0."""
        raise NotImplementedError

    def losses(self, summary: Any) -> jax.Array:
        """The examples' losses [n], from a summary with all others."""
        raise NotImplementedError

    def slopes(self, summary: Any) -> Any:
        """What `slope` needs of the examples: a pytree of arrays [n]."""
        raise NotImplementedError

    def slope(self, cosine: jax.Array, positives: jax.Array, slopes: Any, axis: int) -> jax.Array:
        """The derivative of the examples' losses with respect to each logit of a block, [b, c].

        An example's pairs are along `axis`.
        """
        raise NotImplementedError


@flax.struct.dataclass
class SoftmaxSummary:
    """Summary of softmax losses.

    For the positives (`own`) and the others: the largest cosine, and the sum of exp(scale (cosine -
    largest)). Also the sums of the positives' cosines and of all, and the number of positives.
    """

    own_max: jax.Array
    own_sum: jax.Array
    other_max: jax.Array
    other_sum: jax.Array
    own_total: jax.Array
    total: jax.Array
    count: jax.Array


@flax.struct.dataclass
class SoftmaxSlopes:
    """Coefficients of the derivative of softmax losses.

    It is own_weight exp(scale (cosine - own_max)) + own_shift for a positive pair, other_weight
    exp(scale (cosine - other_max)) for another.
    """

    own_max: jax.Array
    own_weight: jax.Array
    own_shift: jax.Array
    other_max: jax.Array
    other_weight: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxPairs(PairLoss):
    """`contrastive_losses.cross_entropy` by pairs.

    With p and n the log-sum-exp of an example's positive and other logits, the loss is log(1 +
    exp(n - p)) + (p - mean of the positives) + label_smoothing (mean of the positives - mean of
    all).
    """

    label_smoothing: float = 0.0

    def summarise(self, cosine: jax.Array, positives: jax.Array, axis: int) -> SoftmaxSummary:
        """Largest cosines, sums of exponentials relative to them, sums of cosines and counts."""
        own, other = _largest(cosine, positives, axis)
        powers = jnp.exp(
            self.scale
            * (
                cosine
                - jnp.where(positives, jnp.expand_dims(own, axis), jnp.expand_dims(other, axis))
            )
        )
        own_sum, other_sum, own_total = (
            jnp.where(kept, x, 0.0).sum(axis)
            for kept, x in ((positives, powers), (~positives, powers), (positives, cosine))
        )
        return SoftmaxSummary(
            own,
            own_sum,
            other,
            other_sum,
            own_total,
            cosine.sum(axis),
            positives.sum(axis, cosine.dtype),
        )

    def merge(self, summaries: SoftmaxSummary) -> SoftmaxSummary:
        """The sums, each rescaled to the largest cosine of all parts."""
        own, other = summaries.own_max.max(0), summaries.other_max.max(0)
        own_sum = (summaries.own_sum * jnp.exp(self.scale * (summaries.own_max - own))).sum(0)
        other_sum = (summaries.other_sum * jnp.exp(self.scale * (summaries.other_max - other))).sum(
            0
        )
        return SoftmaxSummary(
            own,
            own_sum,
            other,
            other_sum,
            summaries.own_total.sum(0),
            summaries.total.sum(0),
            summaries.count.sum(0),
        )

    def losses(self, summary: SoftmaxSummary) -> jax.Array:
        """log(1 + exp(n - p)) + (p - mean of the positives), and the label smoothing."""
        mean = summary.own_total / summary.count
        spread = jnp.where(
            summary.count > 1, self.scale * (summary.own_max - mean) + jnp.log(summary.own_sum), 0.0
        )
        smoothing = self.label_smoothing * self.scale * (mean - summary.total / self.size)
        return jax.nn.softplus(self.excess(summary)) + spread + smoothing

    def excess(self, summary: SoftmaxSummary) -> jax.Array:
        """n - p; -inf where all pairs are positive."""
        logarithms = jnp.log(summary.other_sum) - jnp.log(summary.own_sum)
        return self.scale * (summary.other_max - summary.own_max) + logarithms

    def slopes(self, summary: SoftmaxSummary) -> SoftmaxSlopes:
        """The factors of the exponentials and the constants of the derivative."""
        doubt = jax.nn.sigmoid(self.excess(summary))  # probability of the others in the softmax
        several = (summary.count > 1).astype(doubt.dtype)
        return SoftmaxSlopes(
            own_max=summary.own_max,
            own_weight=(several - doubt) / summary.own_sum,
            own_shift=(self.label_smoothing - several) / summary.count,
            other_max=summary.other_max,
            other_weight=jnp.where(summary.other_sum > 0, doubt / summary.other_sum, 0.0),
        )

    def slope(
        self, cosine: jax.Array, positives: jax.Array, slopes: SoftmaxSlopes, axis: int
    ) -> jax.Array:
        """A multiple of exp(scale * cosine), by whether the pair is positive, plus a constant."""
        slopes = jax.tree.map(lambda x: jnp.expand_dims(x, axis), slopes)
        weight = jnp.where(positives, slopes.own_weight, slopes.other_weight)
        powers = jnp.exp(
            self.scale * (cosine - jnp.where(positives, slopes.own_max, slopes.other_max))
        )
        return (
            weight * powers
            + jnp.where(positives, slopes.own_shift, 0.0)
            - self.label_smoothing / self.size
        )


@flax.struct.dataclass
class SigmoidSummary:
    """Summary of sigmoid losses: the largest cosines, and the sum of the pairs' losses."""

    own_max: jax.Array
    other_max: jax.Array
    total: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmoidPairs(PairLoss):
    """log(1 + exp(-z x)) for each pair of logit x (Zhai et al. 2023, eq. 1).

    z is 1 for a positive pair and -1 for others.
    """

    def summarise(self, cosine: jax.Array, positives: jax.Array, axis: int) -> SigmoidSummary:
        """Largest cosines, and the sum of the block's losses."""
        logits = self.scale * cosine + self.bias
        own, other = _largest(cosine, positives, axis)
        return SigmoidSummary(
            own, other, jax.nn.softplus(jnp.where(positives, -logits, logits)).sum(axis)
        )

    def merge(self, summaries: SigmoidSummary) -> SigmoidSummary:
        """The largest of the cosines, and the sum of the losses."""
        return SigmoidSummary(
            summaries.own_max.max(0), summaries.other_max.max(0), summaries.total.sum(0)
        )

    def losses(self, summary: SigmoidSummary) -> jax.Array:
        """The sums of the pairs' losses."""
        return summary.total

    def slopes(self, summary: SigmoidSummary) -> tuple[()]:
        """Nothing: the derivative of a pair depends on its own logit alone."""
        return ()

    def slope(
        self, cosine: jax.Array, positives: jax.Array, slopes: tuple[()], axis: int
    ) -> jax.Array:
        """-z sigmoid(-z x) of each pair of logit x."""
        logits = self.scale * cosine + self.bias
        return jnp.where(positives, -jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits))


def _largest(cosine: jax.Array, positives: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The largest cosine along `axis`, of the positive and of the other pairs."""
    own, other = (
        jnp.where(kept, cosine, FLOOR).max(axis, initial=FLOOR) for kept in (positives, ~positives)
    )
    return own, other
