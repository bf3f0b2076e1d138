"""How a fresh run begins with what others have trained: the config's section `pretrained`."""

import dataclasses
import os
import re

import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.sharding.exchange import decided_by_first
from vlp_jax.sharding.layout import Layout
from vlp_jax.training.assembly import Run, make_module
from vlp_jax.training.checkpoint import checkpoint_folder, describe, flat, read_metadata, unflat
from vlp_jax.training.optimizer import match_rules
from vlp_jax.training.reading import read_together
from vlp_jax.training.state import TrainState
from vlp_jax.training.trained import find_step, trained_config, trained_variables


@dataclasses.dataclass(frozen=True)
class Origin:
    """From which checkpoint of which run an entry of `config.pretrained` takes what: paths of parameters, and of what is kept
    beside them (`batch_stats/...`). left: those that its patterns find here and that are not there."""

    name: str
    folder: str
    step: int
    average: bool | None
    parameters: tuple[str, ...]
    collections: tuple[str, ...]
    left: tuple[str, ...]


def find_origins(run: Run, workdir: str) -> list[Origin]:
    """What a fresh run in `workdir` begins with, found out from names and shapes alone.

    Raises: ConfigError for an entry that finds no run, takes nothing, meets a parameter of another shape, or brings embeddings of
    another tokenizer's words; CheckpointError, StorageError for a run that cannot be read.
    """
    return [find_origin(name, spec, run, workdir) for name, spec in run.config.pretrained.items()]


def find_origin(name: str, spec: schema.Pretrained, run: Run, workdir: str) -> Origin:
    """`find_origins` of one entry. Which step is the newest host 0 says: others may see one that is not there for all."""
    folder, key = folder_of(spec, workdir), f"pretrained.{name}"
    step = decided_by_first(key, lambda: step_of(key, folder, spec))
    return read_together(key, lambda: origin_at(name, folder, step, spec, run))


def step_of(key: str, folder: str, spec: schema.Pretrained) -> int:
    """The step that an entry names, or the newest. Raises: ConfigError."""
    try:
        return find_step(folder, spec.step)
    except CheckpointError as error:
        elsewhere = spec.stage is None
        advice = "give the folder of a run that has saved" if elsewhere else f"train the stage {spec.stage!r} before this one"
        raise ConfigError(f"{key}: {error.args[0]}; {advice}") from error


def origin_at(name: str, folder: str, step: int, spec: schema.Pretrained, run: Run) -> Origin:
    """What an entry takes of the checkpoint of this step. Raises: as `find_origins`."""
    key = f"pretrained.{name}"
    metadata = read_metadata(checkpoint_folder(folder), step)
    if spec.average and "average" not in metadata["fingerprints"]:
        raise ConfigError(f"{key}.average: {folder} keeps no average of its parameters; set it to None or False")
    here, there = describe(run.shapes.params), metadata["parameters"]
    for pattern in spec.parameters:
        match_rules(f"{key}.parameters", [(pattern, 1.0)], run.shapes.params, default=0.0)
        if not any(re.search(pattern, path) for path in here.keys() & there.keys()):
            raise ConfigError(f"{key}.parameters: {pattern!r} matches no parameter that this model and {folder} both have")
    wanted = [path for path in here if any(re.search(pattern, path) for pattern in spec.parameters)]
    taken = {path: here[path] for path in wanted if path in there}
    for path in taken:
        if here[path] != there[path]:
            raise ConfigError(f"{key}: {path} is {there[path]} in {folder} and {here[path]} in this config; make them alike, or "
                              f"leave it out of {key}.parameters")
    check_words(key, folder, taken, metadata["preprocessor"], run.preprocessor, run.config.model.text.vocab_size)
    kept, known = describe(run.shapes.collections), metadata.get("collections", {})
    beside = [path for path, shape in kept.items() if path.startswith("batch_stats/") and known.get(path) == shape
              and any(re.search(pattern, path.removeprefix("batch_stats/")) for pattern in spec.parameters)]
    left = tuple(path for path in wanted if path not in there)
    return Origin(name, folder, step, spec.average, tuple(taken), tuple(beside), left)


def folder_of(spec: schema.Pretrained, workdir: str) -> str:
    """The workdir that an entry names: that of a stage lies beside this one."""
    return spec.workdir if spec.stage is None else os.path.join(os.path.dirname(os.path.abspath(workdir)), spec.stage)


def check_words(key: str, folder: str, taken: dict[str, list[int]], stored: dict, preprocessor: Preprocessor,
                vocab_size: int) -> None:
    """Raises: ConfigError where parameters are taken that have a place for each word of another tokenizer."""
    of_words = [path for path, shape in taken.items() if vocab_size in shape]
    if of_words and stored["tokenizer"] != preprocessor.tokenizer.definition:
        raise ConfigError(f"{key}: {of_words[0]} in {folder} stands for the words of another tokenizer than data.text.tokenizer="
                          f"{preprocessor.tokenizer.spec.tokenizer!r}; use that run's, or leave it out of {key}.parameters")


def begin_with(state: TrainState, origins: list[Origin], layout: Layout) -> TrainState:
    """`state` with what the origins hold, a later one's where several hold the same; the average begins there too."""
    params, collections = flat(state.params), flat(state.collections)
    for origin in origins:
        config = trained_config(origin.folder, origin.step, together=True)
        found = trained_variables(origin.folder, origin.step, origin.average, make_module(config), config, layout)
        arrays, beside = flat(found.pop("params")), flat(found)
        params |= {path: jax.device_put(arrays[path], params[path].sharding) for path in origin.parameters}
        collections |= {path: jax.device_put(beside[path], collections[path].sharding) for path in origin.collections}
        new = f"; new ones that it lacks: {len(origin.left)}, such as {origin.left[0]}" if origin.left else ""
        print(f"pretrained.{origin.name}: {len(origin.parameters)} of {len(params)} parameters from {origin.folder}, step "
              f"{origin.step}{new}", flush=True)
    params = unflat(params, state.params)
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, average=average, collections=unflat(collections, state.collections))
