"""Classification metrics of supervised heads, with majority-class baselines."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.supervised import (
    Predict,
    SupervisedHead,
    SupervisedTaskConfig,
    first_texts,
    require_targets,
)
from vlp_jax.metrics.calibration import expected_calibration_error
from vlp_jax.metrics.classification import (
    credits_won,
    f1_of_labels,
    mean_average_precision,
    top_k_accuracy,
)
from vlp_jax.metrics.curves import mean_roc_auc
from vlp_jax.metrics.per_class import class_scores, confusion_matrix, predicted_classes

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

CLASSIFICATION_METRICS = tuple(
    f"classification_{name}" for name in ("samples", "known", "accuracy", "majority")
)
# Of a target whose classes are each either fully true or not (`TargetConfig.several_labels`).
LABEL_METRICS = tuple(
    f"classification_{name}" for name in ("f1_micro", "f1_macro", "average_precision")
)
# Of a target with one class a sample.
CLASS_METRICS = tuple(
    f"classification_{name}"
    for name in (
        "top_5",
        "mean_per_class_recall",
        "precision_macro",
        "f1_macro",
        "f1_weighted",
        "roc_auc",
        "calibration_error",
    )
)
# Of the class `positive`, of a target with one class a sample.
POSITIVE_METRICS = tuple(f"classification_{name}" for name in ("precision", "recall", "f1"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationTaskConfig(SupervisedTaskConfig):
    """The accuracy of a head, compared with that of the best constant answer."""

    head = "classification"

    # metadata field, with dots as in targets; accuracy is also reported for each of its values
    by: str | None = None
    # the class whose precision, recall and F1 are also reported, such as "True" of NLVR2
    positive: str | None = None

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `CLASSIFICATION_METRICS`, and in `LABEL_METRICS` where a sample can have
        several classes, or in `CLASS_METRICS` where it has one, with `positive` also in
        `POSITIVE_METRICS`."""
        objective = self.head_of(experiment.objectives)
        target = None if objective is None else experiment.data.targets.get(objective.target)
        if target is None:
            return CLASSIFICATION_METRICS
        if target.one_class:
            further = CLASS_METRICS + (() if self.positive is None else POSITIVE_METRICS)
        else:
            further = LABEL_METRICS if target.several_labels else ()
        return CLASSIFICATION_METRICS + further

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks the targets and graphs, the class `positive`, and the field by which accuracies
        are split.

        Raises:
          DataError: one of them is missing.
          ConfigError: the target has no class `positive`.
        """
        super().check(context, where)
        if self.positive is not None:
            positive_class(self.head_of(context.heads), self.positive, f"{where}positive")
        if self.by is not None:
            context.data.by_sample.labels(self.by, f"{where}by")

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """Accuracies of the head's predictions, also for each value of the field `by`."""
        head, data = self.head_of(context.heads), context.data.by_sample
        return classification(context.ask(head.predictor, data), data, head, self.by, self.positive)


def classification(
    predict: Predict,
    data: "EvaluationSet",
    head: SupervisedHead,
    by: str | None = None,
    positive: str | None = None,
) -> dict[str, float]:
    """Classification metrics of a head on a set.

    The text of a sample with several texts is its first.

    Args:
      predict: (index of a sample, its text) pairs -> float [N, C].
      data: the set.
      head: the head.
      by: a metadata field, for each of whose values the metrics of its samples are returned too.
      positive: a class, whose precision, recall and F1 are returned too.
    Returns:
      classification_samples: number of samples.
      classification_known: fraction of samples whose class is one of the target's; all others count
        as errors.
      classification_accuracy: how often the true class scores highest, or the mean credit of the
        class that does, over all samples.
      classification_majority: the accuracy of always answering the class that is best for this set.
      classification_f1_micro, classification_f1_macro, classification_average_precision: for a
        target with several labels, of each class by itself, by `f1_of_labels` (a score above 0, a
        probability above one half, counts as yes) and `mean_average_precision`.
      classification_top_5 and the others of `CLASS_METRICS`: for a target with one class a sample,
        by `of_classes`.
      classification_precision, classification_recall, classification_f1: with `positive`, of this
        class, among the samples whose class is one of the target's.
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
    results = {
        "classification_samples": len(truth),
        "classification_known": float((truth > 0).any(axis=1).mean()),
        "classification_accuracy": float(won.mean()),
        "classification_majority": best_answer(truth),
    }
    spec = head.targets.specs[head.target]
    if spec.several_labels:
        labels = truth >= 0.5
        results |= zip(
            LABEL_METRICS,
            (*f1_of_labels(scores > 0, labels), mean_average_precision(scores, labels)),
            strict=True,
        )
    elif spec.one_class:
        chosen = None if positive is None else positive_class(head, positive, "positive")
        results |= of_classes(scores, truth, chosen)
    if by is None:
        return results
    groups, best = data.labels(by, "by"), 0.0
    for place, value in enumerate(groups[0]):
        rows = groups[1] == place
        majority = best_answer(truth[rows])
        best += majority * rows.mean()
        results |= {
            f"classification_accuracy/{value}": float(won[rows].mean()),
            f"classification_majority/{value}": majority,
            f"classification_samples/{value}": int(rows.sum()),
        }
    return results | {f"classification_majority_by_{by}": float(best)}


def positive_class(head: SupervisedHead, name: str, setting: str) -> int:
    """The index of a class of a head's target, which has one class a sample.

    Raises:
      ConfigError: there is no such class, or a sample can have several.
    """
    names = head.targets.classes.get(head.target, ())
    if not head.targets.specs[head.target].one_class:
        raise ConfigError(
            f"{setting}: needs a target with one class a sample, and {head.target!r} has several"
        )
    if name not in names:
        raise ConfigError(
            f"{setting}: {name!r} is no class of the target {head.target!r} (there are: "
            f"{', '.join(map(str, names[:20])) or 'none'})"
        )
    return names.index(name)


def of_classes(
    scores: np.ndarray, truth: np.ndarray, positive: int | None = None
) -> dict[str, float]:
    """The metrics `CLASS_METRICS` of the samples whose class is one of the target's.

    Args:
      scores: [N, C], logits.
      truth: [N, C], 1 for the class of a sample.
      positive: the class of the metrics `POSITIVE_METRICS`; None: without them.
    Returns: nothing where no sample has a class of the target's.
    """
    known = truth.any(axis=1)
    if not known.any():
        return {}
    labels = truth.argmax(axis=1)
    if not known.all():
        scores, labels = scores[known], labels[known]
    predicted = predicted_classes(scores, labels)
    each = class_scores(confusion_matrix(predicted, labels, scores.shape[1]))
    values = (
        top_k_accuracy(scores, labels, 5),
        each.mean_per_class_recall,
        float(each.precision[each.occurring].mean()),
        each.f1_macro,
        each.f1_weighted,
        mean_roc_auc(scores, labels[:, None] == np.arange(scores.shape[1])),
        expected_calibration_error(confidence(scores), predicted == labels),
    )
    results = dict(zip(CLASS_METRICS, values, strict=True))
    if positive is not None:
        own = (each.precision[positive], each.recall[positive], each.f1[positive])
        results |= zip(POSITIVE_METRICS, map(float, own), strict=True)
    return results


def confidence(scores: np.ndarray, rows: int = 128) -> np.ndarray:
    """The probability of the likeliest class, float64 [N], from logits [N, C]."""
    parts = (scores[start : start + rows] for start in range(0, len(scores), rows))
    return np.concatenate([softmax(part.astype(np.float64), axis=1).max(axis=1) for part in parts])


def true_classes(data: "EvaluationSet", head: SupervisedHead) -> np.ndarray:
    """The credit of each class as an answer for each sample, float32 [N, C].

    Raises:
      DataError: a sample lacks the target's field.
    """
    require_targets(data, head)
    return np.stack([head.targets.credits(head.target, metadata) for metadata in data.metadata])


def best_answer(truth: np.ndarray) -> float:
    """The largest mean credit of a class, from credits [N, C]."""
    return float(truth.mean(axis=0, dtype=np.float64).max())
