"""Time of a linear probe: features and fits apart, next to scikit-learn's logistic regression.

pip install -e '.[reference]'
python benchmarks/linear_probe.py [--workdir=RUN] [--train=embedded:emoji/train]
    [--field=group] [--samples=2000] [--penalty=1]
  without --workdir: the fit on 10,000 random features of 384 dimensions and 100 classes. With it:
  first the embeddings of images by the trained run, and the fit on them. Both fits minimise the
  same objective with the same tolerance of the gradient; the objectives reached and the largest
  difference of a probability are printed.
"""

import argparse
import time

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from vlp_jax.data.sources.registry import open_source
from vlp_jax.evaluate import evaluation_layout
from vlp_jax.evaluators.logistic_regression import fit
from vlp_jax.loading import load
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.evaluation import build_predictor

ROWS, WIDTH, CLASSES = 10_000, 384, 100
TOLERANCE = 1e-6  # of the final fit; LinearProbeTaskConfig searches the penalty with 1e-4


def random_features() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 around the centres of their classes, and the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    rows = rng.standard_normal((CLASSES, WIDTH))[labels] + 3 * rng.standard_normal((ROWS, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def run_features(given: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of the first images of a source by a trained run, and their classes."""
    layout = evaluation_layout(MeshConfig())
    model, variables, preprocessor = load(given.workdir, layout=layout)
    predictor = build_predictor(model.module, preprocessor, layout)
    source = open_source(given.train)
    samples = [source[number] for number in range(min(given.samples, len(source)))]
    names = [sample.metadata[given.field] for sample in samples]
    predictor.images(variables, [preprocessor.pixels(samples[0].image)], 256)  # compiles
    start = time.monotonic()
    pixels = (preprocessor.pixels(sample.image) for sample in samples)
    features = predictor.images(variables, pixels, 256)
    print(f"features             {time.monotonic() - start:8.1f} s")
    return features, np.unique(names, return_inverse=True)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir")
    parser.add_argument("--train", default="embedded:emoji/train")
    parser.add_argument("--field", default="group")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--penalty", type=float, default=1.0)
    given = parser.parse_args()
    features, labels = run_features(given) if given.workdir else random_features()
    classes = int(labels.max()) + 1
    print(f"{len(features)} x {features.shape[1]}, {classes} classes, L2 {given.penalty:g}")
    found = {}
    for name, tolerance in (("search of the penalty", 1e-4), ("final fit", TOLERANCE)):
        start = time.monotonic()
        found["ours"] = fit(features, labels, classes, given.penalty, tolerance=tolerance)
        print(f"ours, {name:22} {time.monotonic() - start:8.1f} s")
        start = time.monotonic()
        theirs = LogisticRegression(C=1 / given.penalty, tol=tolerance, max_iter=1000)
        theirs.fit(features.astype(np.float64), labels)
        print(f"scikit-learn, {name:14} {time.monotonic() - start:8.1f} s")
    ours = np.exp(found["ours"].scores(features))
    reference = theirs.predict_proba(features.astype(np.float64))
    for name, weights, bias in (
        ("ours", found["ours"].weights, found["ours"].bias),
        ("scikit-learn", theirs.coef_.T, theirs.intercept_),
    ):
        logs = log_softmax(features.astype(np.float64) @ weights + bias, axis=1)
        loss = -logs[np.arange(len(labels)), labels].sum()
        objective = loss + given.penalty / 2 * np.square(weights).sum()
        print(f"objective, {name:14} {objective:.6f}")
    print(f"largest difference of a probability: {np.abs(ours - reference).max():.2g}")


if __name__ == "__main__":
    main()
