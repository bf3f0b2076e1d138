"""Receiver operating characteristic and precision-recall curves."""

import numpy as np
from scipy.stats import rankdata


def roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve: the probability that a true sample scores higher than another
    one, where a tie counts one half (Hanley and McNeil 1982).

    Args:
      scores: [N], float.
      truth: [N], bool, with True and False.
    """
    positive = int(truth.sum())
    pairs = positive * (len(truth) - positive)
    won = rankdata(scores)[truth].sum() - positive * (positive + 1) / 2
    return float(won / pairs)


def mean_roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of `roc_auc` over the classes that are true for some samples and not for all: each
    class against the rest.

    Args:
      scores: [N, C], float.
      truth: [N, C], bool.

    Returns: the mean; 0 where no class has both.

    Raises:
      ValueError: if scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    both = truth.any(axis=0) & ~truth.all(axis=0)
    areas = [roc_auc(scores[:, own], truth[:, own]) for own in np.flatnonzero(both)]
    return float(np.mean(areas or [0.0]))


def precision_recall_curve(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of predicting everything that scores at least a threshold.

    Args:
      scores: [N], float.
      truth: [N], bool, at least one True.

    Returns: (precision, recall, thresholds), each float64 [T], one entry for each distinct score,
      ascending.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    found, ordered = np.cumsum(truth[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    precision, recall = found[last] / (last + 1), found[last] / truth.sum()
    return precision[::-1], recall[::-1], ordered[last][::-1]
