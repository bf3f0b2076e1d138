"""Loading of a trained model: `model, params, preprocess = vlp_jax.load(DIR)`."""

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
    """A Linen module with the config and preprocessor that it was trained with, without parameters.

    Attributes:
      module: a `PretrainingModule`, whose `model` is the `VisionLanguageModel`.
      config: the config of the run.
      preprocessor: its preprocessor.
    """

    module: PretrainingModule
    config: Config
    preprocessor: Preprocessor

    def embed(self, params: dict, image: jax.Array | np.ndarray | None = None, text: jax.Array | np.ndarray | None = None,
              text_mask: jax.Array | np.ndarray | None = None) -> tuple[jax.Array | None, jax.Array | None]:
        """Embeddings of images and texts, as unit vectors.

        Args:
          params: the variables as returned by `load`.
          image: float [B, H, W, 3], as from the preprocessor.
          text: int [B, L], as from the preprocessor.
          text_mask: bool [B, L]. Default: derived from the ids by the tokenizer's rule.
        Returns: (image_embeddings, text_embeddings), each float32 [B, E], None for what is not
          given.
        Raises:
          ValueError: images of another size.
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

    Args:
      folder: the workdir of the run.
      step: step of the checkpoint. Default: the newest.
      ema: True for the EMA parameters, False for those of the last update. Default: the EMA
        parameters where the config keeps them.
      compute: "float32" or "bfloat16".
      layout: the layout over which the variables are sharded. Default: the first device.
    Raises:
      CheckpointError: the checkpoint does not exist, has no EMA parameters, or is damaged.
    """
    step = find_step(folder, step)
    metadata, config = read_metadata(checkpoint_folder(folder), step), restore_config(folder, step)
    preprocessor, module = Preprocessor.from_json(metadata["preprocessor"]), build_module(config, compute)
    variables = restore_variables(folder, step, ema, module, config, layout)
    return Model(module, config, preprocessor), variables, preprocessor


def class_descriptions(folder: str, step: int | None = None) -> dict:
    """The training captions by class that a checkpoint stores for zero-shot evaluation."""
    checkpoints = checkpoint_folder(folder)
    return read_metadata(checkpoints, finished_steps(checkpoints)[-1] if step is None else step)["class_descriptions"]


def restore_targets(folder: str, step: int | None = None) -> Targets:
    """The targets that a checkpoint was trained to predict, with their classes."""
    checkpoints, step = checkpoint_folder(folder), find_step(folder, step)
    stored = read_metadata(checkpoints, step).get("targets") or {}  # old checkpoints have no targets
    return Targets(restore_config(folder, step).data.targets, {name: tuple(entry["classes"]) for name, entry in stored.items()})
