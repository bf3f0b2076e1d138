"""Similarity of each patch and a text in the shared space."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vlp_jax.evaluators.requirements import lacks_patches
from vlp_jax.explain.method import MethodConfig
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.models.options import present
from vlp_jax.objectives.pretraining_module import PretrainingModule

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.explain.explained import Explained


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSimilarityConfig(MethodConfig):
    """Cosines of the text's embedding and the projected tokens of the image tower, as in the task
    `segmentation`."""

    def lacks(self, experiment: "Experiment", score: ScoreConfig) -> str | None:
        """Embeddings, and a tower whose tokens can be projected."""
        return lacks_patches(experiment)

    def maps(self, pairs: "Explained") -> np.ndarray:
        """The cosines, [B, side, side]."""
        found = similarities(pairs.module, pairs.variables, dict(pairs.batch))
        return np.asarray(found, np.float64)


@functools.partial(jax.jit, static_argnums=0)
def similarities(
    module: PretrainingModule, variables: dict[str, Any], batch: dict[str, Any]
) -> jax.Array:
    """The cosines of the patches of images and of texts, float32 [B, side, side]."""

    def of_pairs(bound: PretrainingModule, batch: dict[str, Any]) -> jax.Array:
        patches = bound.model.patch_embeddings(batch["image"])
        texts = present(bound.model(None, batch["text"], batch["text_mask"])[1])
        return (patches * texts[:, None, None]).sum(axis=-1)

    found: Any = module.apply(variables, batch, method=of_pairs)
    return found
