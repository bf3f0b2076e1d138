"""Geometry of the shared space: modality gap, alignment and uniformity."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from vlp_jax.evaluators.requirements import lacks_embeddings
from vlp_jax.evaluators.task import TaskConfig

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

GEOMETRY_METRICS = ("modality_gap", "alignment", "uniformity_image", "uniformity_text")
ROWS = 1024  # embeddings that are compared with all others at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometryTaskConfig(TaskConfig):
    """How the embeddings of images and captions lie on the unit sphere."""

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings of images and captions."""
        return lacks_embeddings(experiment)

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `GEOMETRY_METRICS`."""
        return GEOMETRY_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption.

        Raises: DataError where one has none.
        """
        context.data.require_captions(self.kind)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The `GEOMETRY_METRICS` of the images and the first caption of each."""
        data = context.data
        texts = context.embed_texts(data.captions)
        return geometry(context.images, texts[[own[0] for own in data.captions_of_image]])


def geometry(images: np.ndarray, texts: np.ndarray) -> dict[str, float]:
    """Measures of the embeddings of N pairs.

    Args:
      images: [N, E], unit vectors.
      texts: [N, E], unit vectors.
    Returns:
      modality_gap: the distance between the means of both (Liang et al. 2022, section 4.1).
      alignment: the mean squared distance of a pair (Wang and Isola 2020, equation 1, alpha = 2).
      uniformity_image, uniformity_text: log of the mean of exp(-2 |x - y|^2) over the pairs of
        different rows (Wang and Isola 2020, equation 2, t = 2); 0 for a single row.
    Raises:
      ValueError: embeddings are not finite.
    """
    x, y = images.astype(np.float64), texts.astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("embeddings are not finite")
    return {
        "modality_gap": float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))),
        "alignment": float(np.square(x - y).sum(axis=1).mean()),
        "uniformity_image": uniformity(x),
        "uniformity_text": uniformity(y),
    }


def uniformity(x: np.ndarray, t: float = 2.0) -> float:
    """log of the mean, over the pairs of different rows, of exp(-t |x - y|^2)."""
    count = len(x)
    if count < 2:
        return 0.0
    squares, parts = np.square(x).sum(axis=1), []
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        distances = squares[rows, None] + squares - 2 * x[rows] @ x.T
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        parts.append(logsumexp(-t * distances))
    return float(logsumexp(parts) - np.log(count * (count - 1)))
