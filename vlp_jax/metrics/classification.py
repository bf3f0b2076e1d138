"""Classification metrics. Ties always count against the model: what scores as high as the true stands before it."""

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


def f1_of_labels(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Of samples with several true classes, F1 = 2 TP / (2 TP + FP + FN) of all yes-or-no answers together (micro), and its mean
    over the classes, each by its own answers (macro) (Yang and Liu 1999, "A re-examination of text categorization methods").

    answers, truth: bool [N, C]. Where nothing is true and nothing answered F1 is 0, as scikit-learn's with zero_division=0: a class
    that no sample has pulls the macro mean down.
    """
    right, said = (answers & truth).sum(axis=0), answers.sum(axis=0) + truth.sum(axis=0)  # said: 2 TP + FP + FN
    return float(2 * right.sum() / max(said.sum(), 1)), float((2 * right / np.maximum(said, 1)).mean())


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """sum_n (R_n - R_n-1) P_n, precision and recall of the answers whose score is at least the n-th highest (Manning et al.
    2008, "Introduction to information retrieval", section 8.4): the mean over what is true of the share of the true among what
    scores at least as high.

    scores: [N]; truth: bool [N], some of them True.
    """
    ordered, own = np.sort(scores), np.sort(scores[truth])
    at_least, true_at_least = (len(row) - np.searchsorted(row, own, side="left") for row in (ordered, own))
    return float((true_at_least / at_least).mean())


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of `average_precision` over the classes that are true of any sample; of others it is not defined. 0 where there is
    none. scores: [N, C]; truth: bool [N, C]. Raises: ValueError for scores that are not finite."""
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    return float(np.mean([average_precision(scores[:, own], truth[:, own]) for own in np.flatnonzero(truth.any(axis=0))] or [0.0]))


def credits_won(scores: np.ndarray, credit: np.ndarray) -> np.ndarray:
    """The credit of the class that scores highest, of several that do so the least.

    scores, credit: [N, C]; with a credit of 1 for the true class and 0 for others this is accuracy. Returns: float64 [N].
    Raises: ValueError for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.where(highest, credit, np.inf).min(axis=1).astype(np.float64)
