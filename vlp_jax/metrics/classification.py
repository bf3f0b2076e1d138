"""Classification metrics.

Ties count against the model: a class with the same score as the true one ranks before it.
"""

import numpy as np


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of samples whose true class scores strictly higher than every other class.

    Args:
      scores: [N, C], float.
      labels: [N], int.

    Raises:
      ValueError: if scores are not finite.
    """
    return top_k_accuracy(scores, labels, 1)


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The fraction of samples of whose other classes fewer than k score at least as high as the
    true one.

    Args:
      scores: [N, C], float.
      labels: [N], int.
      k: with as many classes or fewer, the accuracy is 1.

    Raises:
      ValueError: if scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    return float(((scores >= true).sum(axis=1) <= k).mean())


def majority(labels: np.ndarray) -> float:
    """The accuracy of always predicting the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def precision_recall_f1(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of binary predictions (van Rijsbergen 1979, chapter 7).

    Args:
      answers: [N], bool, predictions.
      truth: [N], bool.

    Returns: (precision, recall, F1). A ratio of nothing is 0.
    """
    right = int((answers & truth).sum())
    precision, recall = right / max(int(answers.sum()), 1), right / max(int(truth.sum()), 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def f1_of_labels(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Micro and macro F1 of samples with several true classes (Yang and Liu 1999).

    Micro F1 is 2 TP / (2 TP + FP + FN) of all binary predictions together. Macro F1 is the mean
    over the classes of the F1 of each. The paper is "A re-examination of text categorization
    methods".

    Args:
      answers: [N, C], bool, predictions.
      truth: [N, C], bool.

    Returns: (micro F1, macro F1). Where nothing is true and nothing is predicted, F1 is 0, as in
      scikit-learn with zero_division=0, so a class without samples lowers the macro mean.
    """
    # said = 2 TP + FP + FN
    right, said = (answers & truth).sum(axis=0), answers.sum(axis=0) + truth.sum(axis=0)
    return float(2 * right.sum() / max(said.sum(), 1)), float(
        (2 * right / np.maximum(said, 1)).mean()
    )


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision, sum_n (R_n - R_n-1) P_n (Manning et al. 2008, section 8.4).

    P_n and R_n are precision and recall of predicting everything that scores at least the n-th
    highest score. The sum is the mean, over the true samples, of the fraction of true ones among
    all with at least the same score. The book is "Introduction to information retrieval".

    Args:
      scores: [N], float.
      truth: [N], bool, at least one True.
    """
    ordered, own = np.sort(scores), np.sort(scores[truth])
    at_least, true_at_least = (
        len(row) - np.searchsorted(row, own, side="left") for row in (ordered, own)
    )
    return float((true_at_least / at_least).mean())


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of `average_precision` over the classes that are true for some sample; it is
    undefined for others.

    Args:
      scores: [N, C], float.
      truth: [N, C], bool.

    Returns: the mean; 0 where no class is true for any sample.

    Raises:
      ValueError: if scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    return float(
        np.mean(
            [
                average_precision(scores[:, own], truth[:, own])
                for own in np.flatnonzero(truth.any(axis=0))
            ]
            or [0.0]
        )
    )


def credits_won(scores: np.ndarray, credit: np.ndarray) -> np.ndarray:
    """The credit of the class with the highest score; of tied classes the least credit.

    With a credit of 1 for the true class and 0 for others, its mean is the accuracy.

    Args:
      scores: [N, C], float.
      credit: [N, C], float.

    Returns: [N], float64.

    Raises:
      ValueError: if scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.where(highest, credit, np.inf).min(axis=1).astype(np.float64)
