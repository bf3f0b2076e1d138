"""Classification metrics. Ties always count against the model."""

import numpy as np


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often the true class scores strictly higher than every other.

    scores: [N, C]; labels: int [N]. Raises: ValueError for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    return float(((scores >= true).sum(axis=1) == 1).mean())


def majority(labels: np.ndarray) -> float:
    """The accuracy of always answering the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def precision_recall_f1(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Of yes-or-no answers: how many that say yes are right, how many that should do, and the harmonic mean of the two (van
    Rijsbergen 1979, chapter 7). A share of nothing is 0.

    answers, truth: bool [N].
    """
    right = int((answers & truth).sum())
    precision, recall = right / max(int(answers.sum()), 1), right / max(int(truth.sum()), 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def credits_won(scores: np.ndarray, credit: np.ndarray) -> np.ndarray:
    """The credit of the class that scores highest, of several that do so the least.

    scores, credit: [N, C]; with a credit of 1 for the true class and 0 for others this is accuracy. Returns: float64 [N].
    Raises: ValueError for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.where(highest, credit, np.inf).min(axis=1).astype(np.float64)
