"""Measures of whether a map is about the model: deletion, insertion, and randomised parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.stats

from vlp_jax.explain.drawing import resized
from vlp_jax.explain.explained import Explained

STEPS = 16  # of the curves


def deletion_and_insertion(pairs: Explained, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the curves of the score as pixels are deleted or inserted, those with the highest
    values first (Petsiuk et al. 2018, "RISE", section 4.2).

    Deleted pixels are the mean of the image. A good map has a small area of deletion and a large
    one of insertion.

    Args:
      pairs: the pairs.
      maps: [B, h, w].
    Returns: the two areas, float64 [B] each, over fractions from 0 to 1.
    """
    image = np.asarray(pairs.batch["image"])
    empty = np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    ranks = np.stack([ranks_of(resized(values, image.shape[1:3])) for values in maps])
    deleted, inserted = [], []
    for step in range(STEPS + 1):
        first = (ranks < step / STEPS)[..., None]
        for kept, curve in ((~first, deleted), (first, inserted)):
            shown = np.where(kept, image, empty)
            curve.append(pairs.scores_of({**pairs.batch, "image": shown}))
    return tuple(
        np.trapezoid(np.stack(curve).astype(np.float64), dx=1 / STEPS, axis=0)
        for curve in (deleted, inserted)
    )


def ranks_of(values: np.ndarray) -> np.ndarray:
    """The rank of each value as a fraction from 0, for the highest, to below 1; equal values in
    their order."""
    order = np.argsort(-values, axis=None, kind="stable")
    ranks = np.empty(values.size)
    ranks[order] = np.arange(values.size) / values.size
    return ranks.reshape(values.shape)


def shuffled(variables: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Variables whose parameters are randomised: the values of each array in a random order."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: rng.permutation(np.asarray(leaf).reshape(-1)).reshape(leaf.shape),
        variables["params"],
    )
    return {**variables, "params": params}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over pairs of Spearman's rank correlation of two maps (Adebayo et al. 2018, "Sanity
    Checks for Saliency Maps"); constant maps count as 0.

    Args:
      first, second: [B, h, w].
    """
    found = []
    for one, other in zip(first, second, strict=True):
        constant = np.ptp(one) == 0 or np.ptp(other) == 0
        found.append(
            0.0 if constant else scipy.stats.spearmanr(one.reshape(-1), other.reshape(-1))[0]
        )
    return float(np.mean(found))
