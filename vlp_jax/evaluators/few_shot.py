"""Closed-form few-shot probe: ridge regression to the classes, as big_vision's
`evaluators/fewshot_lsr.py` (Dosovitskiy et al. 2021, section 4.1)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve

from vlp_jax.config.fields import between, positive
from vlp_jax.evaluators.probe import Labelled, ProbeTaskConfig
from vlp_jax.metrics.classification import accuracy

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

BIAS = 100.0  # the constant feature: so large that its weight has almost no penalty


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShotTaskConfig(ProbeTaskConfig):
    """Accuracy of ridge regression on a few training images of each class."""

    shots: tuple[int, ...] = between((1, 5, 10, 25), 1)  # training images of each class
    draws: int = between(3, 1)  # number of random choices of these images
    ridge: float = positive(1024.0)  # the L2 penalty; 2^10 in big_vision's configs

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The mean accuracy and its standard deviation, for each number of shots."""
        return tuple(name for shots in self.shots for name in metric_pair(shots))

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The mean accuracy, over the draws, with each number of training images."""
        train, classes = self.learned_from(context, self.train), len(self.names(context))
        return few_shot(train, self.tested(context), classes, self.shots, self.draws, self.ridge)


def metric_pair(shots: int) -> tuple[str, str]:
    """The names of the mean accuracy and of its standard deviation."""
    return f"few_shot_{shots}_accuracy", f"few_shot_{shots}_accuracy_deviation"


def few_shot(
    train: Labelled, test: Labelled, classes: int, shots: Sequence[int], draws: int, penalty: float
) -> dict[str, float]:
    """Mean accuracies of ridge regression on a few images of each class.

    The images are drawn as in big_vision: seed s is of draw s, and a class with fewer images gives
    all of them.

    Args:
      train: the training set.
      test: the evaluation set.
      classes: number of classes.
      shots: numbers of images of each class.
      draws: number of draws.
      penalty: the L2 penalty.
    Returns: mean accuracy and standard deviation over the draws, by the names of `metric_pair`.
    """
    found = np.empty((len(shots), draws))
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        orders = [rng.permutation(np.flatnonzero(train.labels == c)) for c in range(classes)]
        for i, count in enumerate(shots):
            chosen = np.concatenate([order[:count] for order in orders])
            few = Labelled(train.features[chosen], train.labels[chosen])
            found[i, draw] = accuracy(
                ridge_scores(few, test.features, classes, penalty), test.labels
            )
    return {
        name: float(value)
        for count, row in zip(shots, found, strict=True)
        for name, value in zip(metric_pair(count), (row.mean(), row.std()), strict=True)
    }


def ridge_scores(train: Labelled, features: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Scores of the least-squares fit of -1 and 1 on standardised features and a constant.

    With X the N training images, the weights are (X'X + penalty I)^-1 X'Y, computed as
    X'(XX' + penalty I)^-1 Y where N is smaller than the number of features.

    Args:
      train: the training images.
      features: [M, D], the images to classify.
      classes: number of classes C.
      penalty: the L2 penalty.
    Returns: float64 [M, C].
    """
    known = train.features.astype(np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-5
    x, others = (
        np.pad((rows - mean) / deviation, ((0, 0), (0, 1)), constant_values=BIAS)
        for rows in (known, features.astype(np.float64))
    )
    y = 2.0 * np.eye(classes)[train.labels] - 1.0
    if len(x) < x.shape[1]:
        weights = x.T @ solve(x @ x.T + penalty * np.eye(len(x)), y, assume_a="pos")
    else:
        weights = solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y, assume_a="pos")
    return others @ weights
