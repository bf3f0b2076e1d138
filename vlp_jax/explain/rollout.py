"""Attention rollout (Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers")."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.explain.image_tower import lacks_attention, layer_paths, patches_of, pooled_row, vit_of
from vlp_jax.explain.method import MethodConfig, on_grid
from vlp_jax.explain.score import ScoreConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig(MethodConfig):
    """Products of the attention weights of all layers of the image tower, each averaged with the
    identity for the residual branch. It depends on the image alone."""

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """A Vision Transformer."""
        return lacks_attention(experiment)

    def maps(self, pairs: "Explained") -> np.ndarray:
        """What the pooled vector takes from each patch: [B, side, side]."""
        config, attention = vit_of(pairs.config), pairs.image_attention
        layers = [attention[path][0].mean(axis=1) for path in layer_paths(config)]
        row = pooled_row(config, rollout(layers), lambda path: attention[path][0].mean(axis=1))
        return on_grid(patches_of(config, row), config.side)


def rollout(layers: Sequence[np.ndarray]) -> np.ndarray:
    """The product of (A + I) / 2 over layers, the last one leftmost (section 3.1, equation 1).

    Args:
      layers: attention weights [B, N, N] of each layer, the mean over heads.
    Returns: float64 [B, N, N]; each row has sum 1.
    """
    identity = np.eye(layers[0].shape[-1])
    product = identity
    for weights in layers:
        product = 0.5 * (weights + identity) @ product
    return product
