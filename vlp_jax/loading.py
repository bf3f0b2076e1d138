"""A trained model in Python: `model, params, preprocess = vlp_jax.load(DIR)`."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from vlp_jax.config.schema import Config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import Targets
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout
from vlp_jax.training.build import build_module
from vlp_jax.training.checkpoints.format import checkpoint_folder, finished_steps, read_metadata
from vlp_jax.training.restore import find_step, restore_config, restore_variables


@dataclasses.dataclass(frozen=True)
class Model:
    """A Linen module with the config and preprocessor it was trained with. It holds no parameters.

    module: a `PretrainingModule`, whose `model` is the `VisionLanguageModel`.
    """

    module: PretrainingModule
    config: Config
    preprocessor: Preprocessor

    def embed(self, params: dict, image: jax.Array | np.ndarray | None = None, text: jax.Array | np.ndarray | None = None,
              text_mask: jax.Array | np.ndarray | None = None) -> tuple[jax.Array | None, jax.Array | None]:
        """Unit vectors (image_embeddings, text_embeddings), each float32 [B, E], None for what is not given.

        params: the variables as `load` gives them. image: float [B, H, W, 3] and text: int [B, L], as the
        preprocessor makes them. text_mask: bool [B, L]; without one it is derived from the ids by the tokenizer's rule.
        Raises: ValueError for pictures of another size.
        """
        if text is not None and text_mask is None:
            text_mask = self.preprocessor.tokenizer.mask_of(np.asarray(text))
        return _embed(self.module, params, image, text, text_mask)


@functools.partial(jax.jit, static_argnums=0)
def _embed(module: PretrainingModule, variables: dict, image, text, mask):
    return module.apply(variables, image, text, mask, method="embed")


def load(folder: str, step: int | None = None, ema: bool | None = None,
         compute: str = "float32", layout: Layout | None = None) -> tuple[Model, dict[str, Any], Preprocessor]:
    """The model of a workdir, its variables and its preprocessor.

    step: which checkpoint; the newest if None. ema: True for the averaged parameters, False for the last ones; if None,
    the averaged ones where the config keeps an average. compute: "float32" or "bfloat16". layout: over which devices the
    variables are divided; if None, they lie on the first one.
    Raises: CheckpointError where there is no such checkpoint, no average, or the files are damaged.
    """
    step = find_step(folder, step)
    metadata, config = read_metadata(checkpoint_folder(folder), step), restore_config(folder, step)
    preprocessor, module = Preprocessor.from_json(metadata["preprocessor"]), build_module(config, compute)
    variables = restore_variables(folder, step, ema, module, config, layout)
    return Model(module, config, preprocessor), variables, preprocessor


def class_descriptions(folder: str, step: int | None = None) -> dict:
    """The training captions by class that a checkpoint keeps for zero-shot evaluation."""
    checkpoints = checkpoint_folder(folder)
    return read_metadata(checkpoints, finished_steps(checkpoints)[-1] if step is None else step)["class_descriptions"]


def restore_targets(folder: str, step: int | None = None) -> Targets:
    """The targets that a checkpoint was trained to tell, with their classes."""
    checkpoints, step = checkpoint_folder(folder), find_step(folder, step)
    stored = read_metadata(checkpoints, step).get("targets") or {}  # checkpoints of before there were targets have none
    return Targets(restore_config(folder, step).data.targets, {name: tuple(entry["classes"]) for name, entry in stored.items()})
