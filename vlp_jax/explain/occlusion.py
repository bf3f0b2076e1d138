"""Occlusion: how much a score falls where a part of the image is hidden (Zeiler & Fergus 2014,
"Visualizing and Understanding Convolutional Networks", section 4.2)."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.explain.method import MethodConfig
from vlp_jax.explain.score import ScoreConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class OcclusionConfig(MethodConfig):
    """A square that slides over the image and hides it by the mean of its pixels."""

    size: float = between(0.25, 0.01, 1.0)  # side of the square, as a fraction of the image's
    steps: int = between(8, 1)  # positions of the square along each axis

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """Nothing: it works with any model."""
        return None

    def maps(self, pairs: "Explained") -> np.ndarray:
        """The mean fall of the score over the squares that hide each of steps x steps regions: [B,
        steps, steps]."""
        image = np.asarray(pairs.batch["image"])
        fill = image.mean(axis=(1, 2), keepdims=True)
        falls = np.zeros((len(image), self.steps, self.steps))
        counts = np.zeros((self.steps, self.steps))
        centres = (np.arange(self.steps) + 0.5) / self.steps
        for top, left, hidden in self.squares(image.shape[1]):
            occluded = np.where(hidden[None, :, :, None], fill, image)
            values = pairs.scores_of({**pairs.batch, "image": jnp.asarray(occluded)})
            rows, columns = (
                np.abs(centres - begin - self.size / 2) <= self.size / 2 for begin in (top, left)
            )
            covered = rows[:, None] & columns
            fall = (pairs.scores - values).astype(np.float64)
            falls += fall[:, None, None] * covered
            counts += covered
        return falls / np.maximum(counts, 1)

    def squares(self, side: int) -> Iterator[tuple[float, float, np.ndarray]]:
        """(top, left) of each square as fractions, and the pixels that it hides, bool [side,
        side]."""
        places = (np.arange(side) + 0.5) / side
        for top in self.begins():
            for left in self.begins():
                rows, columns = (
                    (places >= begin) & (places < begin + self.size) for begin in (top, left)
                )
                yield top, left, rows[:, None] & columns

    def begins(self) -> np.ndarray:
        """Where the squares begin along an axis, as fractions: they cover the image to its ends."""
        return np.linspace(0.0, 1.0 - self.size, self.steps)
