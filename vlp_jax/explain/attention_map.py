"""Attention of the pooled token to the patches, in one layer of a Vision Transformer."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.explain.image_tower import (
    POOLING,
    lacks_attention,
    layer_paths,
    of_queries,
    patches_of,
    pooled_row,
    vit_of,
)
from vlp_jax.explain.method import MethodConfig, on_grid
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.models.vision.vit_config import ViTConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Attention, Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionMapConfig(MethodConfig):
    """Attention weights of the class token, of the pooling query, or the mean over the patches
    where these are averaged; the mean over heads.

    It depends on the image alone.
    """

    # number of the layer from 0; None: the attention that pools, or of the last layer
    layer: int | None = between(None, 0)

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """A Vision Transformer with this layer."""
        lacking = lacks_attention(experiment)
        if lacking is None and (self.layer or 0) >= vit_of(experiment).size.depth:
            return f"a layer {self.layer} of model.image, counted from 0"
        return lacking

    def maps(self, pairs: "Explained") -> np.ndarray:
        """Attention to the patches [B, side, side], with sum 1."""
        config = vit_of(pairs.config)
        return attention_maps(config, pairs.image_attention, self.layer)


def attention_maps(
    config: ViTConfig, attention: "Attention", layer: int | None = None
) -> np.ndarray:
    """`AttentionMapConfig.maps` of recorded attention weights: float64 [B, side, side]."""

    def attention_of(path: str) -> np.ndarray:
        return attention[path][0].mean(axis=1)

    if layer is None and config.pooling in ("map", "queries"):
        row = of_queries(config, attention_of(POOLING)[:, :1])[:, 0]
    else:
        weights = attention_of(layer_paths(config)[-1 if layer is None else layer])
        # of pooling by queries, the mean over all tokens of an inner layer
        own = config.pooling in ("cls", "mean")
        row = pooled_row(config, weights, attention_of) if own else weights.mean(axis=1)
    patches = patches_of(config, row)
    return on_grid(patches / patches.sum(axis=-1, keepdims=True), config.side)
