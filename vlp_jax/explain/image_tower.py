"""Where the attention of a Vision Transformer is, and which tokens it pools."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.models.vision.vit_config import ViTConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

TOWER = "model/image"
POOLING = f"{TOWER}/pooling_head/attention"
POOLED = ("cls", "mean", "map", "queries")


def lacks_attention(experiment: "Experiment") -> str | None:
    """An image tower with attention; None where the experiment has one."""
    config = experiment.model.image
    if isinstance(config, ViTConfig) and config.size.depth:
        return None
    return "an image tower of kind 'vit' with layers"


def vit_of(experiment: "Experiment") -> ViTConfig:
    """The config of the image tower, a Vision Transformer: methods that need one refuse others."""
    image = experiment.model.image
    assert isinstance(image, ViTConfig)
    return image


def layer_paths(config: ViTConfig) -> list[str]:
    """The paths of the self-attention of all layers."""
    return [f"{TOWER}/transformer/layer_{layer}/attention" for layer in range(config.size.depth)]


def patches_of(config: Any, values: np.ndarray) -> np.ndarray:
    """The values of the patches: [..., N] of all tokens before pooling -> [..., side^2]."""
    return values[..., config.front : config.front + config.side**2]


def pooled_row(
    config: ViTConfig, matrix: np.ndarray, pooling: Callable[[str], np.ndarray]
) -> np.ndarray:
    """What the pooled vector takes from each input token.

    Args:
      config: of the tower.
      matrix: float64 [B, N, N], what each token of the last layer takes from each input token.
      pooling: returns [B, Q, M], what the Q queries of attention pooling take from its M tokens, by
        the path of its module.
    Returns: [B, N].
    """
    if config.pooling == "cls":
        return matrix[:, 0]
    if config.pooling == "mean":
        return patches_of(config, matrix.swapaxes(1, 2)).mean(axis=2)
    first = pooling(POOLING)[:, :1]
    return (of_queries(config, first) @ matrix)[:, 0]


def of_queries(config: ViTConfig, weights: np.ndarray) -> np.ndarray:
    """Weights [B, Q, M] of attention pooling over all N tokens: [B, Q, N], 0 for those that it does
    not see."""
    if config.pooling != "map" or config.map_tokens == "all":
        return weights
    return np.pad(weights, ((0, 0), (0, 0), (config.front, config.registers)))
