"""Multinomial logistic regression with an L2 penalty, and the choice of the penalty."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

SEARCH_TOLERANCE = 1e-4  # while penalties are compared; scikit-learn's default
# Radford et al. 2021, appendix A.3: 8 steps per decade from 1e-6 to 1e6
PENALTIES = np.logspace(-6, 6, 97)


@dataclasses.dataclass(frozen=True)
class LogisticRegression:
    """A linear classifier.

    Attributes:
      weights: float64 [D, C].
      bias: float64 [C].
    """

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Log-probabilities of the classes, [N, D] -> float64 [N, C]."""
        return log_softmax(features.astype(np.float64) @ self.weights + self.bias, axis=1)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    penalty: float,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> LogisticRegression:
    """The minimum of sum_i -log p(y_i | x_i) + penalty / 2 |W|^2, by L-BFGS in float64.

    The bias has no penalty. This is the objective of scikit-learn's `LogisticRegression` with
    C = 1 / penalty. With two classes scikit-learn penalises the difference w of the two columns,
    where softmax has W = (-w/2, w/2) and |W|^2 = |w|^2 / 2; the penalty is doubled for the same
    minimum.

    Args:
      features: [N, D].
      labels: int [N].
      classes: number of classes C.
      penalty: the L2 penalty.
      iterations: most iterations of L-BFGS; 1,000 in Radford et al. 2021.
      tolerance: largest entry of the gradient, of the objective divided by N, at the end.
    """
    x, rows = features.astype(np.float64), np.arange(len(labels))
    count, width = x.shape
    strength = penalty * (2 if classes == 2 else 1) / count

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        logs = log_softmax(x @ weights + bias, axis=1)
        error = np.exp(logs)
        error[rows, labels] -= 1.0
        slopes = x.T @ error / count + strength * weights
        value = -logs[rows, labels].mean() + strength / 2 * np.square(weights).sum()
        return float(value), np.concatenate([slopes.ravel(), error.mean(axis=0)])

    found = minimize(
        objective,
        np.zeros((width + 1) * classes),
        method="L-BFGS-B",
        jac=True,
        options={
            "maxiter": iterations,
            "maxfun": 10 * iterations,
            "maxcor": 10,
            "gtol": tolerance,
            "ftol": 64 * np.finfo(np.float64).eps,
        },
    ).x
    return LogisticRegression(found[:-classes].reshape(width, classes), found[-classes:])


def best_penalty(
    score: Callable[[float], float], penalties: Sequence[float] | np.ndarray = PENALTIES
) -> float:
    """The penalty with the highest score, by the search of Radford et al. 2021, appendix A.3.

    Seven penalties over the whole range are tried first, then those at half the distance on either
    side of the best one, until the distance is one step; of equal scores the first wins, as in
    CLIP_benchmark's `find_peak`.

    Args:
      score: penalty -> accuracy on the validation set.
      penalties: ascending; their number is 1 more than a multiple of 6.
    """
    known: dict[int, float] = {}

    def peak(places: Sequence[int]) -> int:
        for place in places:
            if place not in known:
                known[place] = score(float(penalties[place]))
        return max(places, key=known.__getitem__)  # the first of equal ones

    last = len(penalties) - 1
    span = last // 6
    best = peak(range(0, last + 1, span))
    while span := span // 2:
        best = peak([max(best - span, 0), best, min(best + span, last)])
    return float(penalties[best])
