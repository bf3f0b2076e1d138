"""Classification and regression metrics of supervised objectives, with majority-class and mean baselines."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from vlp_jax.data.target_kinds import ScoresTargetConfig, TargetConfig
from vlp_jax.data.targets import Targets, values_in
from vlp_jax.errors import DataError
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.metrics.classification import credits_won, f1_of_labels, mean_average_precision
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.objectives.base import ObjectiveConfig

CLASSIFICATION_METRICS = tuple(f"classification_{name}" for name in ("samples", "known", "accuracy", "majority"))
LABEL_METRICS = tuple(f"classification_{name}" for name in ("f1_micro", "f1_macro", "average_precision"))  # see `several_labels`
REGRESSION_METRICS = tuple(f"regression_{name}" for name in ("samples", "squared_error", "absolute_error", "variance"))
# The kinds of objectives whose heads a task uses.
HEADS = {"classification": ("classification", "answering"), "regression": ("regression",), "answers": ("answering",)}
Predict = Callable[[Sequence[tuple[int, str]]], np.ndarray]  # (index of a sample, its text) -> float [N, outputs]


@dataclasses.dataclass(frozen=True)
class SupervisedHead:
    """The head of a supervised objective and the target that it predicts.

    Attributes:
      kind: kind of the objective.
      predictor: its `pairs` runs the head.
      target: name of the target.
      targets: all targets of the config.
      writer: for a head that generates answers, `writer(search)`, whose `pairs` returns the tokens
        of an answer to each pair, int32 [N, L].
    """

    kind: str
    predictor: Predictor
    target: str
    targets: Targets
    writer: Callable[[BeamSearch], Predictor] | None = None


Asked = TypeVar("Asked", SupervisedHead, ObjectiveConfig)


def several_labels(target: TargetConfig) -> bool:
    """Whether each class of a sample is either fully true or not.

    This is so where one annotator suffices for the full score. Partial scores belong to answers:
    there are thousands of them, and one is to be given.
    """
    return isinstance(target, ScoresTargetConfig) and target.agreeing == 1


def supervised_metrics(data: EvaluationSet, spec: EvaluatorConfig, heads: Mapping[str, SupervisedHead] | None,
         asked_of: Callable[[Predictor], Predict]) -> dict[str, float]:
    """The metrics of `classification` and `regression` where these are among `spec.tasks`.

    They are those of the objective that the evaluator names, or of the first with such a head.

    Args:
      data: the set.
      spec: the config of the evaluator.
      heads: by the name of the objective.
      asked_of: returns the function that runs a predictor on the set.
    """
    results = {}
    for task in ("classification", "regression"):
        if task not in spec.tasks:
            continue
        head = head_of(task, spec, heads)
        predict = asked_of(head.predictor)
        results |= classification(predict, data, head, spec.by) if task == "classification" else regression(predict, data, head)
    return results


def head_of(task: str, spec: EvaluatorConfig, heads: Mapping[str, Asked]) -> Asked:
    """The head that the evaluator names, or the first of a kind that the task uses."""
    return heads[spec.objective] if spec.objective else next(one for one in heads.values() if one.kind in HEADS[task])


def check_supervised(data: EvaluationSet, spec: EvaluatorConfig, heads: Mapping[str, SupervisedHead] | None) -> None:
    """Checks, before the first update of a run, that every sample has the fields that the tasks read.

    Raises:
      DataError: a sample lacks a field that `supervised_metrics` or `answers` reads.
    """
    if "classification" in spec.tasks:
        true_classes(data, head_of("classification", spec, heads))
        if spec.by is not None:
            data.labels(spec.by, "by")
    if "regression" in spec.tasks:
        true_numbers(data, head_of("regression", spec, heads))
    if "answers" in spec.tasks:
        require_targets(data, head_of("answers", spec, heads))


def classification(predict: Predict, data: EvaluationSet, head: SupervisedHead, by: str | None = None) -> dict[str, float]:
    """Classification metrics of a head on a set.

    The text of a sample with several texts is its first.

    Args:
      predict: (index of a sample, its text) pairs -> float [N, C].
      data: the set.
      head: the head.
      by: a metadata field, for each of whose values the metrics of its samples are returned too.
    Returns:
      classification_samples: number of samples.
      classification_known: fraction of samples whose class is one of the target's; all others count
        as errors.
      classification_accuracy: how often the true class scores highest, or the mean credit of the
        class that does, over all samples.
      classification_majority: the accuracy of always answering the class that is best for this set.
      classification_f1_micro, classification_f1_macro, classification_average_precision: for a
        target with `several_labels`, of each class by itself, by `f1_of_labels` (a score above 0, a
        probability above one half, counts as yes) and `mean_average_precision`.
      classification_accuracy/VALUE, classification_majority/VALUE, classification_samples/VALUE:
        with `by`, of the samples with this value.
      classification_majority_by_FIELD: with `by`, the accuracy of always answering the best class
        of each value.
    Raises:
      DataError: a sample lacks the target's field, or `by`.
    """
    truth = true_classes(data, head)
    scores = predict(first_texts(data))
    won = credits_won(scores, truth)
    results = {"classification_samples": len(truth), "classification_known": float((truth > 0).any(axis=1).mean()),
               "classification_accuracy": float(won.mean()), "classification_majority": best_answer(truth)}
    if several_labels(head.targets.specs[head.target]):
        labels = truth >= 0.5
        results |= zip(LABEL_METRICS, (*f1_of_labels(scores > 0, labels), mean_average_precision(scores, labels)), strict=True)
    if by is None:
        return results
    groups, best = data.labels(by, "by"), 0.0
    for place, value in enumerate(groups[0]):
        rows = groups[1] == place
        majority = best_answer(truth[rows])
        best += majority * rows.mean()
        results |= {f"classification_accuracy/{value}": float(won[rows].mean()), f"classification_majority/{value}": majority,
                    f"classification_samples/{value}": int(rows.sum())}
    return results | {f"classification_majority_by_{by}": float(best)}


def true_classes(data: EvaluationSet, head: SupervisedHead) -> np.ndarray:
    """The credit of each class as an answer for each sample, float32 [N, C].

    Raises:
      DataError: a sample lacks the target's field.
    """
    require_targets(data, head)
    return np.stack([credits_of(data, number, head) for number in range(len(data))])


def best_answer(truth: np.ndarray) -> float:
    """The largest mean credit of a class, from credits [N, C]."""
    return float(truth.mean(axis=0, dtype=np.float64).max())


def regression(predict: Predict, data: EvaluationSet, head: SupervisedHead) -> dict[str, float]:
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
    return {"regression_samples": len(truth), "regression_squared_error": float(np.square(answers - truth).mean()),
            "regression_absolute_error": float(np.abs(answers - truth).mean()), "regression_variance": float(truth.var())}


def true_numbers(data: EvaluationSet, head: SupervisedHead) -> np.ndarray:
    """The number of each sample, float64 [N].

    Raises:
      DataError: a sample has none.
    """
    truth = np.array([head.targets.of(head.target, metadata) for metadata in data.metadata], np.float64)
    for number in np.flatnonzero(np.isnan(truth)):
        missing(data, number, head)
    return truth


def first_texts(data: EvaluationSet) -> list[tuple[int, str]]:
    """The index of each sample with its first text, or an empty one where it has only a class."""
    return [(number, data.captions[texts[0]] if texts else "") for number, texts in enumerate(data.captions_of_image)]


def credits_of(data: EvaluationSet, number: int, head: SupervisedHead) -> np.ndarray:
    """The credit of each class as an answer for a sample, float32 [C]."""
    spec, metadata = head.targets.specs[head.target], data.metadata[number]
    target = head.targets.of(head.target, metadata)
    if spec.kind == "scores":
        return target
    if spec.kind == "text":
        target = head.targets.places[head.target].get(target, -1)
    return (np.arange(len(head.targets.classes[head.target])) == target).astype(np.float32)


def require_targets(data: EvaluationSet, head: SupervisedHead) -> None:
    """Checks that every sample has a value in the target's field.

    Raises:
      DataError: a sample has none.
    """
    for number, metadata in enumerate(data.metadata):
        if not values_in(metadata, head.targets.specs[head.target]):
            missing(data, number, head)


def missing(data: EvaluationSet, number: int, head: SupervisedHead) -> None:
    """Raises the DataError that names a sample without a target."""
    spec = head.targets.specs[head.target]
    raise DataError(f"{data.source.spec}: {data.source[int(number)].key}: an evaluation needs a {spec.kind} in the metadata field "
                    f"{spec.field!r} (data.targets.{head.target}), {data.found(int(number), spec.field)}")
