"""Scikit-learn's metrics of random predictions, written to `classification_metrics.json`.

pip install scikit-learn==1.9.1
python tests/golden/make_classification_metrics.py
"""

import json
import pathlib

import numpy as np
from sklearn import metrics

CASES = [(0, 60, 7, False), (1, 400, 3, False), (2, 50, 12, True), (3, 5, 9, False)]


def case(seed: int, samples: int, classes: int, ties: bool) -> dict:
    """Scores without ties of the true class, or with many, and what scikit-learn says."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(2, classes - 1), samples)  # the last class has no samples
    scores = rng.integers(0, 4, (samples, classes)) + (
        0 if ties else rng.random((samples, classes))
    )
    scores = scores.astype(np.float64)
    scores[np.arange(samples), labels] += 0.5 if ties else 0.9
    predicted, names = scores.argmax(axis=1), np.arange(classes)
    truth = labels[:, None] == names
    both = truth.any(axis=0) & ~truth.all(axis=0)
    each = metrics.precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0)
    curve = metrics.precision_recall_curve(truth[:, labels[0]], scores[:, labels[0]])
    averages = {
        f"f1_{kind}": metrics.f1_score(labels, predicted, average=kind, zero_division=0)
        for kind in ("micro", "macro", "weighted")
    }
    return {
        "scores": scores.tolist(),
        "labels": labels.tolist(),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=names).tolist(),
        "precision": each[0].tolist(),
        "recall": each[1].tolist(),
        "f1": each[2].tolist(),
        "support": each[3].tolist(),
        **averages,
        "balanced": metrics.balanced_accuracy_score(labels, predicted),
        "top_5": metrics.top_k_accuracy_score(labels, scores, k=5, labels=names),
        "roc_auc": float(
            np.mean(
                [metrics.roc_auc_score(truth[:, c], scores[:, c]) for c in np.flatnonzero(both)]
            )
        ),
        "average_precision": float(
            np.mean(
                [
                    metrics.average_precision_score(truth[:, c], scores[:, c])
                    for c in np.flatnonzero(truth.any(axis=0))
                ]
            )
        ),
        "curve": [part.tolist() for part in curve],
    }


if __name__ == "__main__":
    place = pathlib.Path(__file__).with_name("classification_metrics.json")
    place.write_text(json.dumps([case(*each) for each in CASES]) + "\n")
