"""The base of all methods that explain a score by a map over the image."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.explain.score import ScoreConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig(Component):
    """How a map is made.

    Attributes:
      by_word: whether it makes a map for each token of the text, too.
    """

    kinds: ClassVar[Kinds] = Kinds(
        {
            "attention": "vlp_jax.explain.attention_map:AttentionMapConfig",
            "rollout": "vlp_jax.explain.rollout:RolloutConfig",
            "relevance": "vlp_jax.explain.relevance:RelevanceConfig",
            "grad_cam": "vlp_jax.explain.grad_cam:GradCamConfig",
            "patch_similarity": "vlp_jax.explain.patch_similarity:PatchSimilarityConfig",
            "word_attention": "vlp_jax.explain.word_attention:WordAttentionConfig",
            "occlusion": "vlp_jax.explain.occlusion:OcclusionConfig",
        },
        default="grad_cam",
    )
    by_word: ClassVar[bool] = False

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """What the model would need for this method; None where it has all."""
        raise NotImplementedError

    def maps(self, pairs: "Explained") -> np.ndarray:
        """How much each region of the images counts for the scores.

        Returns: float64 [B, h, w], row by row from the top; larger is more.
        """
        raise NotImplementedError

    def word_maps(self, pairs: "Explained") -> np.ndarray:
        """How much each region counts for each token of the texts: float64 [B, L, h, w]."""
        raise NotImplementedError


def on_grid(values: np.ndarray, side: int) -> np.ndarray:
    """Values [..., side * side] of the patches as maps [..., side, side]."""
    return values.reshape(*values.shape[:-1], side, side)
