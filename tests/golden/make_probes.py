"""Probes of scikit-learn on random features, written to `probes.json`.

Logistic regression at given L2 penalties, k nearest neighbours with the votes of DINO, and ridge
regression to -1 and 1.

pip install scikit-learn==1.9.1
python tests/golden/make_probes.py
"""

import json
import pathlib

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

SETS = [(0, 90, 6, 5), (1, 60, 8, 2), (2, 20, 30, 4)]  # seed, training samples, width, classes
TEMPERATURE, RIDGE, BIAS = 0.07, 1024.0, 100.0


def case(seed: int, samples: int, width: int, classes: int) -> dict:
    """Features with some information about the classes, and the probabilities of the test set."""
    rng = np.random.default_rng(seed)
    labels = np.resize(np.arange(classes), samples + 15)
    features = rng.standard_normal((samples + 15, width)).round(4)
    features[:, 0] += labels
    train, test, known = features[:-15], features[-15:], labels[:-15]
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-5
    constant = [
        np.c_[(rows - mean) / deviation, np.full(len(rows), BIAS)] for rows in (train, test)
    ]
    return {
        "features": features.tolist(),
        "labels": labels.tolist(),
        "classes": classes,
        "logistic": {
            str(penalty): LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
            .fit(train, known)
            .predict_proba(test)
            .tolist()
            for penalty in (0.01, 1.0, 30.0)
        },
        "neighbours": {
            str(k): KNeighborsClassifier(
                k, metric="cosine", algorithm="brute", weights=lambda d: np.exp(-d / TEMPERATURE)
            )
            .fit(train, known)
            .predict_proba(test)
            .tolist()
            for k in (1, 5, 20)
        },
        "ridge": Ridge(alpha=RIDGE, fit_intercept=False, solver="cholesky")
        .fit(constant[0], 2.0 * np.eye(classes)[known] - 1.0)
        .predict(constant[1])
        .tolist(),
    }


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("probes.json")
    path.write_text(json.dumps([case(*spec) for spec in SETS]) + "\n")
