"""Where pretrained parameters come from: a checkpoint of another run, or a public one."""

import functools
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from vlp_jax.config import to_tree
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.layout import Layout
from vlp_jax.training.build import build_module
from vlp_jax.training.checkpoints.format import checkpoint_folder, describe, read_metadata
from vlp_jax.training.restore import restore_config, restore_variables
from vlp_jax.weights.public import read_public


class WeightSource(Protocol):
    """What another model holds.

    Attributes:
      title: its place, in words.
      folder: its place, for messages.
      config: its config as a tree.
      position_filter: how its positions are resampled, "bicubic" or "linear".
    """

    title: str
    folder: str
    config: dict[str, Any]
    position_filter: str

    @property
    def parameters(self) -> Mapping[str, list[int]]:
        """{path: shape} of its parameters."""
        ...

    @property
    def collections(self) -> Mapping[str, list[int]]:
        """{path: shape} of its other variables."""
        ...

    @property
    def tokenizer(self) -> str | None:
        """The definition of its tokenizer; None where it has none."""
        ...

    def variables(self, layout: Layout) -> dict[str, Any]:
        """Its variables, {"params": ...} and other collections, sharded over a layout."""
        ...


class RunSource:
    """A checkpoint of another run.

    Args:
      key: the entry of the config, for messages.
      folder: workdir of the run.
      step: step of its checkpoint.
      ema: whether to take its EMA parameters; None: where it has them.
      components: modules that may be imported for classes of its config.
    Raises:
      ConfigError: the run keeps no EMA, or its config selects a class of another module.
      CheckpointError: it cannot be read.
    """

    position_filter = "bicubic"

    def __init__(
        self, key: str, folder: str, step: int, ema: bool | None, components: Collection[str]
    ):
        metadata = read_metadata(checkpoint_folder(folder), step)
        if ema and "ema" not in metadata["fingerprints"]:
            raise ConfigError(
                f"{key}.ema: {folder} keeps no EMA of its parameters; set it to None or False"
            )
        restore_config(folder, step, allowed=components)  # before any file is written
        self.folder, self.step, self.ema, self.components = folder, step, ema, components
        self.title = f"{folder}, step {step}"
        self.parameters = metadata["parameters"]
        self.collections = metadata.get("collections", {})
        self.config = metadata["config"]
        self.definition = metadata["preprocessor"]["tokenizer"]

    @property
    def tokenizer(self) -> str:
        """The definition of its tokenizer."""
        return self.definition

    def variables(self, layout: Layout) -> dict[str, Any]:
        """Its variables, on all processes together.

        Raises:
          CheckpointError: it cannot be read.
        """
        config = restore_config(self.folder, self.step, together=True, allowed=self.components)
        return restore_variables(
            self.folder, self.step, self.ema, build_module(config), config, layout
        )


class PublicSource:
    """A public checkpoint, FORMAT:DIR.

    Args:
      place: the checkpoint.
    Raises: as `read_public`, and CheckpointError for tensors that are not those of its config.
    """

    def __init__(self, place: str):
        self.public = read_public(place)
        self.title = self.folder = place
        self.parameters = self.public.parameters
        self.collections = describe(self.public.collections)
        self.config = to_tree(self.public.config)
        self.position_filter = self.public.family.position_filter
        self.public.rules  # noqa: B018 - looked up now, before any file is written

    @functools.cached_property
    def tokenizer(self) -> str | None:
        """The definition of its tokenizer; None where there is none here."""
        try:
            return self.public.preprocessor.tokenizer.definition
        except ConfigError:
            return None

    def variables(self, layout: Layout) -> dict[str, Any]:
        """Its variables.

        Raises:
          CheckpointError: a tensor cannot be read, or does not fit.
        """
        return self.public.variables(layout)
