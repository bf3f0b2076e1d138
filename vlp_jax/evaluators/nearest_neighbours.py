"""k nearest neighbours on frozen features (Wu et al. 2018; Caron et al. 2021, "DINO")."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.fields import between, positive
from vlp_jax.evaluators.probe import Labelled, ProbeTaskConfig
from vlp_jax.metrics.classification import accuracy
from vlp_jax.metrics.ranking import HELD, similarities

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestNeighboursTaskConfig(ProbeTaskConfig):
    """Accuracy of weighted votes of the nearest training images."""

    # numbers of neighbours, as in DINO's eval_knn.py; the training set has at least as many images
    neighbours: tuple[int, ...] = between((10, 20, 100, 200), 1)
    temperature: float = positive(0.07)  # the vote of a neighbour is exp(cosine / temperature)

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """One name for each number of neighbours."""
        return tuple(metric_name(k) for k in self.neighbours)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The accuracy with each number of neighbours."""
        train, classes = self.learned_from(context, self.train), len(self.names(context))
        return nearest_neighbours(
            train, self.tested(context), classes, self.neighbours, self.temperature
        )


def metric_name(k: int) -> str:
    """The metric of k neighbours."""
    return f"knn_{k}_accuracy"


def nearest_neighbours(
    train: Labelled, test: Labelled, classes: int, neighbours: Sequence[int], temperature: float
) -> dict[str, float]:
    """Accuracies of the votes of the k nearest training images, exp(cosine / temperature) each.

    With fewer training images than k, all of them vote.

    Args:
      train: the training set.
      test: the evaluation set.
      classes: number of classes.
      neighbours: the numbers k.
      temperature: of the votes.
    Returns: {"knn_K_accuracy": accuracy}.
    """
    rows = max(1, HELD // len(train.labels))
    scores = [
        votes(unit(train.features), train.labels, part, classes, neighbours, temperature)
        for part in np.split(unit(test.features), range(rows, len(test.labels), rows))
    ]
    return {
        metric_name(k): accuracy(np.concatenate([part[i] for part in scores]), test.labels)
        for i, k in enumerate(neighbours)
    }


def votes(
    known: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    classes: int,
    neighbours: Sequence[int],
    temperature: float,
) -> np.ndarray:
    """The sum of the votes for each class.

    Args:
      known: [N, D], unit vectors.
      labels: int [N], their classes.
      queries: [Q, D], unit vectors.
      classes: number of classes C.
      neighbours: the numbers k.
      temperature: of the votes.
    Returns: float64 [len(neighbours), Q, C].
    """
    cosines = similarities(queries, known)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : max(neighbours)]
    closeness = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
    weights = np.exp((closeness - 1.0) / temperature)  # the constant factor prevents overflow
    found = np.zeros((len(neighbours), len(queries), classes))
    for i, k in enumerate(neighbours):
        np.add.at(
            found[i], (np.arange(len(queries))[:, None], labels[nearest[:, :k]]), weights[:, :k]
        )
    return found


def unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64; a zero row stays zero."""
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)
