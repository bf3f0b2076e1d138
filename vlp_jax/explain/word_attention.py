"""Grad-CAM of the cross-attention of words to the image (Li et al. 2021, "ALBEF", section 5.4 and
its code for visual grounding)."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.explain.method import MethodConfig, on_grid
from vlp_jax.explain.relevance_rules import averaged
from vlp_jax.explain.route import IMAGE, TEXT, Step, route_of
from vlp_jax.explain.score import ScoreConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordAttentionConfig(MethodConfig):
    """Cross-attention of each word to the patches in one layer, times the positive part of its
    gradient; the mean over heads. The map of a text is the mean over its words."""

    by_word = True
    # number of the layer with cross-attention from 0; None: in the middle, of 6 layers the third as
    # in ALBEF
    layer: int | None = between(None, 0)

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """Cross-attention of the text to an image's grid, in this layer."""
        steps = crossing_steps(experiment, score)
        grid = experiment.model.image.grid
        if not steps or not grid.side:
            return (
                "a score whose text attends to the patches, such as 'matching' with "
                "model.fusion.kind='cross_attention'"
            )
        if (self.layer or 0) >= len(steps):
            return f"a layer {self.layer} with cross-attention, counted from 0"
        return None

    def maps(self, pairs: "Explained") -> np.ndarray:
        """The mean over the words of each text: [B, side, side]."""
        words = np.asarray(word_tokens(pairs), np.float64)
        words = words / np.maximum(words.sum(axis=1, keepdims=True), 1.0)
        return np.einsum("bl,blhw->bhw", words, self.word_maps(pairs))

    def word_maps(self, pairs: "Explained") -> np.ndarray:
        """The maps of all tokens: [B, L, side, side]."""
        steps = crossing_steps(pairs.config, pairs.score)
        path = steps[(len(steps) - 1) // 2 if self.layer is None else self.layer].path
        weights = averaged(pairs.attention[path][-1], pairs.attention_gradients[path][-1])
        grid = pairs.config.model.image.grid
        length = np.asarray(pairs.batch["text"]).shape[1]
        patches = weights[:, -length:, grid.before : grid.before + grid.side**2]
        return on_grid(patches, grid.side)


def crossing_steps(experiment: "Experiment", score: ScoreConfig) -> list[Step]:
    """The cross-attention of the text to the image's own tokens, layer by layer."""
    route = route_of(experiment, score)
    if route is None or route.pooler:
        return []
    return [
        step
        for layer in route.layers
        for step in layer
        if step.stream == TEXT and step.memory == IMAGE
    ]


def word_tokens(pairs: "Explained") -> np.ndarray:
    """The tokens of the texts that are words, bool [B, L]: neither padding nor special."""
    ids, mask = (np.asarray(pairs.batch[name]) for name in ("text", "text_mask"))
    return mask & ~np.isin(ids, pairs.special_ids)
