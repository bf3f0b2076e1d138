"""What a supervised objective tells of a set: classes, or answers in their order, beside the most frequent ones, and numbers beside
their mean."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from vlp_jax.config import schema
from vlp_jax.data.targets import Targets, values_in
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.metrics.classification import credits_won, f1_of_labels, mean_average_precision
from vlp_jax.models.decoder.generation import BeamSearch

CLASSIFICATION_METRICS = tuple(f"classification_{name}" for name in ("samples", "known", "accuracy", "majority"))
LABEL_METRICS = tuple(f"classification_{name}" for name in ("f1_micro", "f1_macro", "average_precision"))  # see `several_labels`
REGRESSION_METRICS = tuple(f"regression_{name}" for name in ("samples", "squared_error", "absolute_error", "variance"))
# Kinds of objectives that a task asks.
HEADS = {"classification": ("classification", "answering"), "regression": ("regression",), "answers": ("answering",)}
Predict = Callable[[Sequence[tuple[int, str]]], np.ndarray]  # (number of a sample, its text) -> float [N, outputs]


@dataclasses.dataclass(frozen=True)
class SupervisedHead:
    """An objective's head, which `predictor.pairs` runs, and the target that it tells. kind: of the objective.

    writer: of one that writes, `writer(search)`, whose `pairs` gives the tokens of an answer, int32 [N, L], to each pair.
    """

    kind: str
    predictor: Predictor
    target: str
    targets: Targets
    writer: Callable[[BeamSearch], Predictor] | None = None


Asked = TypeVar("Asked", SupervisedHead, schema.Objective)


def several_labels(target: schema.AnyTarget) -> bool:
    """Whether a sample has classes each of which is fully true or not: scores by what one annotator says. Scores between are of
    answers, of which there are thousands and one is to be given."""
    return isinstance(target, schema.ScoresTarget) and target.agreeing == 1


def supervised_metrics(data: EvaluationSet, spec: schema.Evaluator, heads: Mapping[str, SupervisedHead] | None,
         asked_of: Callable[[Predictor], Predict]) -> dict[str, float]:
    """The metrics of `classification` and `regression` where these are among `spec.tasks`, by the objective that the evaluator
    names, or the first that has such a head. heads: by the objective's name. asked_of: how a predictor is asked about the set."""
    results = {}
    for task in ("classification", "regression"):
        if task not in spec.tasks:
            continue
        head = head_of(task, spec, heads)
        predict = asked_of(head.predictor)
        results |= classification(predict, data, head, spec.by) if task == "classification" else regression(predict, data, head)
    return results


def head_of(task: str, spec: schema.Evaluator, heads: Mapping[str, Asked]) -> Asked:
    """The one that the evaluator names, or the first of a kind that the task asks."""
    return heads[spec.objective] if spec.objective else next(one for one in heads.values() if one.kind in HEADS[task])


def check_supervised(data: EvaluationSet, spec: schema.Evaluator, heads: Mapping[str, SupervisedHead] | None) -> None:
    """Raises: DataError, before a run's first update, for a sample that lacks what `told`, or `answers`, reads."""
    if "classification" in spec.tasks:
        true_classes(data, head_of("classification", spec, heads))
        if spec.by is not None:
            data.labels(spec.by, "by")
    if "regression" in spec.tasks:
        true_numbers(data, head_of("regression", spec, heads))
    if "answers" in spec.tasks:
        require_targets(data, head_of("answers", spec, heads))


def classification(predict: Predict, data: EvaluationSet, head: SupervisedHead, by: str | None = None) -> dict[str, float]:
    """`classification_accuracy`: how often the true class scores highest, or the mean score of the class that does, over all
    samples; those whose class is none of the target's (all but the share `classification_known`) count as wrong.
    `classification_majority`: that of always answering the class which is best for this set.

    Of a target with `several_labels` also how well each class is told by itself, a score above 0 (a probability of half) saying
    yes: LABEL_METRICS, by `f1_of_labels` and `mean_average_precision`.

    by: a field of the metadata, for each of whose values the two are given over its samples, `classification_accuracy/VALUE`,
      and their number; `classification_majority_by_FIELD` always answers the best class for the value.
    A sample with several texts is asked about by its first. Raises: DataError for a sample without the target's field, or `by`.
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
    """float32 [N, C]: what each class is worth as an answer about each sample. Raises: DataError for one without the field."""
    require_targets(data, head)
    return np.stack([credits_of(data, number, head) for number in range(len(data))])


def best_answer(truth: np.ndarray) -> float:
    """The mean credit [N, C] of the class of which it is largest."""
    return float(truth.mean(axis=0, dtype=np.float64).max())


def regression(predict: Predict, data: EvaluationSet, head: SupervisedHead) -> dict[str, float]:
    """`regression_squared_error` beside `regression_variance`, what always the set's mean has, and `regression_absolute_error`; in
    the units of the target, less its mean, divided by its deviation. Raises: DataError for a sample without a number."""
    truth = true_numbers(data, head)
    answers = predict(first_texts(data))[:, 0].astype(np.float64)
    if not np.isfinite(answers).all():
        raise ValueError("numbers told are not finite")
    return {"regression_samples": len(truth), "regression_squared_error": float(np.square(answers - truth).mean()),
            "regression_absolute_error": float(np.abs(answers - truth).mean()), "regression_variance": float(truth.var())}


def true_numbers(data: EvaluationSet, head: SupervisedHead) -> np.ndarray:
    """float64 [N]: the number of each sample. Raises: DataError for one without."""
    truth = np.array([head.targets.of(head.target, metadata) for metadata in data.metadata], np.float64)
    for number in np.flatnonzero(np.isnan(truth)):
        missing(data, number, head)
    return truth


def first_texts(data: EvaluationSet) -> list[tuple[int, str]]:
    """Each sample's number, with its first text, or an empty one where it has a class alone."""
    return [(number, data.captions[texts[0]] if texts else "") for number, texts in enumerate(data.captions_of_image)]


def credits_of(data: EvaluationSet, number: int, head: SupervisedHead) -> np.ndarray:
    """float32 [C]: what each class is worth as an answer about a sample."""
    spec, metadata = head.targets.specs[head.target], data.metadata[number]
    target = head.targets.of(head.target, metadata)
    if spec.kind == "scores":
        return target
    if spec.kind == "text":
        target = head.targets.places[head.target].get(target, -1)
    return (np.arange(len(head.targets.classes[head.target])) == target).astype(np.float32)


def require_targets(data: EvaluationSet, head: SupervisedHead) -> None:
    """Raises: DataError for a sample without a value in the target's field."""
    for number, metadata in enumerate(data.metadata):
        if not values_in(metadata, head.targets.specs[head.target]):
            missing(data, number, head)


def missing(data: EvaluationSet, number: int, head: SupervisedHead) -> None:
    """Raises: DataError that says which sample has no target."""
    spec = head.targets.specs[head.target]
    raise DataError(f"{data.source.spec}: {data.source[int(number)].key}: an evaluation needs a {spec.kind} in the metadata field "
                    f"{spec.field!r} (data.targets.{head.target}), {data.found(int(number), spec.field)}")
