"""Precision, recall and F1 of every class, and their averages, from a confusion matrix."""

import dataclasses

import numpy as np


def predicted_classes(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class with the highest score of each sample; of the true class and another one with the
    same score, the other one.

    Args:
      scores: [N, C], float.
      labels: [N], int, the true classes.

    Returns: [N], int64.

    Raises:
      ValueError: if scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    highest = scores == scores.max(axis=1, keepdims=True)
    tied = np.flatnonzero(highest.sum(axis=1) > 1)
    highest[tied, labels[tied]] = False
    return highest.argmax(axis=1)


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How often samples of each class are predicted as each class.

    Args:
      predicted: [N], int.
      labels: [N], int.
      classes: number of classes C.

    Returns: [C, C], int64, rows are true classes.
    """
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of each class; a ratio of nothing is 0, as in scikit-learn with
    zero_division=0.

    Attributes:
      precision: [C], float64.
      recall: [C], float64.
      f1: [C], float64.
      support: [C], number of samples of each class.
      predicted: [C], number of predictions of each class.
      right: [C], number of correct predictions of each class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @property
    def occurring(self) -> np.ndarray:
        """Whether each class is true or predicted for some sample, [C], bool."""
        return (self.support + self.predicted) > 0

    @property
    def f1_micro(self) -> float:
        """F1 of all predictions together: 2 TP / (2 TP + FP + FN)."""
        return float(2 * self.right.sum() / max((self.support + self.predicted).sum(), 1))

    @property
    def f1_macro(self) -> float:
        """The mean F1 of the classes that occur."""
        return float(self.f1[self.occurring].mean()) if self.occurring.any() else 0.0

    @property
    def f1_weighted(self) -> float:
        """The mean F1, weighted by the number of samples of each class."""
        return float((self.f1 * self.support).sum() / max(self.support.sum(), 1))

    @property
    def mean_per_class_recall(self) -> float:
        """The mean recall of the classes that have samples (balanced accuracy)."""
        present = self.support > 0
        return float(self.recall[present].mean()) if present.any() else 0.0


def class_scores(confusion: np.ndarray) -> ClassScores:
    """The scores of each class of a confusion matrix [C, C]."""
    right, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(
        precision=right / np.maximum(predicted, 1),
        recall=right / np.maximum(support, 1),
        f1=2 * right / np.maximum(support + predicted, 1),
        support=support,
        predicted=predicted,
        right=right,
    )
