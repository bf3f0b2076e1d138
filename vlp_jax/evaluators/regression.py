"""Regression metrics of supervised heads, with the error of a constant prediction."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.evaluators.supervised import (
    Predict,
    SupervisedHead,
    SupervisedTaskConfig,
    first_texts,
    missing,
)

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

REGRESSION_METRICS = tuple(
    f"regression_{name}" for name in ("samples", "squared_error", "absolute_error", "variance")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionTaskConfig(SupervisedTaskConfig):
    """The errors of a head, compared with the variance."""

    head = "regression"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `REGRESSION_METRICS`."""
        return REGRESSION_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every sample has a number, and the boxes and parses where they are read.

        Raises: DataError where they are missing.
        """
        data = context.data.by_sample
        true_numbers(data, self.head_of(context.heads))
        data.check_graphs(context.predictor.preprocessor)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The errors of the head's predictions."""
        head, data = self.head_of(context.heads), context.data.by_sample
        return regression(context.ask(head.predictor, data), data, head)


def regression(predict: Predict, data: "EvaluationSet", head: SupervisedHead) -> dict[str, float]:
    """Regression metrics of a head on a set.

    They are those of the target standardised by its mean and standard deviation.

    Returns:
      regression_samples: number of samples.
      regression_squared_error: mean squared error.
      regression_absolute_error: mean absolute error.
      regression_variance: squared error of always predicting the mean of the set.
    Raises:
      DataError: a sample has no number.
    """
    truth = true_numbers(data, head)
    answers = predict(first_texts(data))[:, 0].astype(np.float64)
    if not np.isfinite(answers).all():
        raise ValueError("predicted numbers are not finite")
    return {
        "regression_samples": len(truth),
        "regression_squared_error": float(np.square(answers - truth).mean()),
        "regression_absolute_error": float(np.abs(answers - truth).mean()),
        "regression_variance": float(truth.var()),
    }


def true_numbers(data: "EvaluationSet", head: SupervisedHead) -> np.ndarray:
    """The number of each sample, float64 [N].

    Raises:
      DataError: a sample has none.
    """
    truth = np.array(
        [head.targets.of(head.target, metadata) for metadata in data.metadata], np.float64
    )
    for number in np.flatnonzero(np.isnan(truth)).tolist():
        missing(data, number, head)
    return truth
