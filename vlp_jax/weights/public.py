"""A public checkpoint as one of our models: config, variables and preprocessor."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vlp_jax.config import read_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import replicated
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.checkpoints.format import describe, flat, nest
from vlp_jax.training.cost.memory import check_parameters_fit
from vlp_jax.training.state import (
    abstract_collections,
    abstract_parameters,
    fresh_variables,
    place_parameters,
)
from vlp_jax.weights.family import Family
from vlp_jax.weights.formats.format import Format, format_named
from vlp_jax.weights.matching import matching
from vlp_jax.weights.rules import Rule, Rules, Shape
from vlp_jax.weights.settings import nested
from vlp_jax.weights.tensors import Tensors

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

STATISTICS = "batch_stats"
SHOWN = 5  # most names that a message gives


def is_public(place: str | os.PathLike) -> bool:
    """Whether a place is FORMAT:DIR rather than a workdir."""
    return format_named(place) is not None


def read_public(place: str, tokenizer: str | None = None) -> "PublicModel":
    """A public checkpoint.

    Args:
      place: FORMAT:DIR, as "huggingface:DIR" or "huggingface:OWNER/NAME".
      tokenizer: as `data.text.tokenizer`, in place of the checkpoint's own.
    Raises:
      CheckpointError: it cannot be read, is of an architecture or has settings that we do not have,
        or its tensors are not those of its config.
      ConfigError: there is no such format.
    """
    kind = format_named(place)
    if kind is None:
        raise ConfigError(f"{place!r}: expected FORMAT:DIR, such as huggingface:DIR")
    opened = kind.open(place.partition(":")[2])
    names = opened.family.names(opened.tensors.shapes)
    renamed = {name: opened.tensors.shapes[file] for name, file in names.items()}
    settings = opened.settings(renamed)
    if tokenizer is not None:
        settings["data.text.tokenizer"] = tokenizer
    config = as_experiment(settings, opened.place)
    return PublicModel(place, opened, opened.family, config, opened.tensors, names)


def as_experiment(settings: Mapping[str, Any], place: str) -> "Experiment":
    """The config of these settings, {dotted key: value}; it trains for one step on the embedded
    data.

    Raises:
      CheckpointError: a value is impossible, or the parts do not fit together.
    """
    try:
        return read_config(nested({"steps": 1, **settings}))
    except ConfigError as error:
        raise CheckpointError(f"{place}: {error.args[0]}") from error


@dataclasses.dataclass(frozen=True)
class PublicModel:
    """A public checkpoint that was opened; its tensors are read when they are needed.

    Attributes:
      place: FORMAT:DIR.
      format: the opened files.
      family: its architecture.
      config: our config of it, with unrolled layers.
      tensors: its tensors.
      names: {name as in the rules: name in the file}.
    """

    place: str
    format: Format
    family: Family
    config: "Experiment"
    tensors: Tensors
    names: dict[str, str]

    @functools.cached_property
    def module(self) -> PretrainingModule:
        """The module of the config, in float32."""
        return build_module(self.config, "float32")

    @functools.cached_property
    def preprocessor(self) -> Preprocessor:
        """The checkpoint's preprocessing.

        Raises:
          ConfigError: the checkpoint has no tokenizer.
        """
        return Preprocessor.from_config(self.config)

    @functools.cached_property
    def collections(self) -> Any:
        """The shapes of the variables that are no parameters."""
        return abstract_collections(self.module, example_batch(self.config))

    @functools.cached_property
    def parameters(self) -> dict[str, list[int]]:
        """{path: shape} of the parameters that the checkpoint has."""
        shapes = describe(abstract_parameters(self.module, example_batch(self.config)))
        return {path: shape for path, shape in shapes.items() if path.startswith(self.family.parts)}

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """{path: shape} of the variables that the checkpoint has: parameters by their path, running
        statistics behind "batch_stats/"."""
        kept = {
            path: shape
            for path, shape in describe(self.collections).items()
            if path.startswith(tuple(f"{STATISTICS}/{part}" for part in self.family.parts))
        }
        return {path: tuple(shape) for path, shape in {**self.parameters, **kept}.items()}

    @functools.cached_property
    def rules(self) -> Rules:
        """The rules that make all variables from all tensors.

        Raises:
          CheckpointError: a variable lacks its tensor, or a tensor is left over.
        """
        theirs = {name: self.tensors.shapes[file] for name, file in self.names.items()}
        rules, left, missing = matching(self.family.rules, self.shapes, theirs)
        missing = [path for path in missing if not path.startswith(self.family.optional)]
        if missing:
            expected, _, _ = matching(self.family.rules, self.shapes)
            lacking = [
                name
                for rule in expected
                if set(rule.ours) & set(missing)
                for name in rule.theirs
                if name not in theirs
            ] or missing
            near = difflib.get_close_matches(lacking[0], left, 1)
            raise CheckpointError(
                f"{self.format.place}: lacks {some(lacking)}, which its config asks for "
                f"({self.family.title})" + (f"; it has {near[0]}" if near else "")
            )
        if left:
            raise CheckpointError(
                f"{self.tensors.file_of(self.names[left[0]])}: has {some(left)}, for which this "
                f"{self.family.title} has no place"
            )
        return rules

    def variables(self, layout: Layout | None = None) -> dict[str, Any]:
        """The variables, {"params": ...} and other collections where there are any.

        Each tensor is read, placed and freed before the next.

        Args:
          layout: over which they are sharded. None: the first device.
        Raises:
          CheckpointError: a tensor cannot be read, or has another shape than its config says.
        """
        if layout is None:
            check_parameters_fit(self.parameters, self.place)
        places = self.places(layout)
        found: dict[str, jax.Array] = {}
        for rule in self.rules:
            for path, array in zip(rule.ours, self.taken(rule), strict=True):
                found[path] = jax.device_put(array, places[path])
        found |= self.fresh(found, layout)
        prefixes = tuple(f"{name}/" for name in self.collections)
        params = {path: leaf for path, leaf in found.items() if not path.startswith(prefixes)}
        others = {path: leaf for path, leaf in found.items() if path.startswith(prefixes)}
        return {"params": nest(params), **nest(others)}

    def places(self, layout: Layout | None) -> dict[str, jax.sharding.Sharding]:
        """The sharding of each variable."""
        if layout is None:
            first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            return dict.fromkeys(self.shapes, first)
        everywhere = replicated(layout.mesh)
        found = flat(place_parameters(self.module, example_batch(self.config), layout))
        return {path: found.get(path, everywhere) for path in self.shapes}

    def taken(self, rule: Rule) -> list[np.ndarray]:
        """Our arrays of a rule.

        Raises: as `variables`.
        """
        files = [self.names[name] for name in rule.theirs]
        arrays = [self.tensors.read(name) for name in files]
        wanted = [self.shapes[path] for path in rule.ours]
        try:
            found = [np.asarray(array) for array in rule.take(arrays, wanted)]
        except ValueError:
            found = []
        if [array.shape for array in found] != wanted:
            shapes = ", ".join(
                f"{name} {list(array.shape)}" for name, array in zip(files, arrays, strict=True)
            )
            raise CheckpointError(
                f"{self.tensors.file_of(files[0])}: {shapes} does not fit its config, by which "
                f"{rule.ours[0]} has the shape {list(wanted[0])}"
            )
        return found

    def fresh(self, found: Mapping[str, Any], layout: Layout | None) -> dict[str, Any]:
        """{path: array} of the variables that the checkpoint does not have, such as those of
        another tower, freshly initialised by the seed of the config.
        """
        batch = example_batch(self.config)
        wanted = jax.eval_shape(lambda: all_variables(self.module, batch, 0))
        lacking = [path for path in wanted if path not in found]
        if not lacking:
            return {}

        def make() -> dict[str, jax.Array]:
            made = all_variables(self.module, batch, self.config.seed)
            return {path: made[path] for path in lacking}

        place = None if layout is None else replicated(layout.mesh)
        return jax.jit(make, out_shardings=place)()


def all_variables(module: PretrainingModule, batch: dict, seed: int) -> dict[str, jax.Array]:
    """{path: array} of fresh parameters, and of other variables behind their collections."""
    variables = dict(fresh_variables(module, batch, seed, None))
    return flat(variables.pop("params")) | flat(variables)


def some(names: list[str]) -> str:
    """The first of some names, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
