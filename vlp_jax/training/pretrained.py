"""How a fresh run begins with what others have trained: the config's section `pretrained`."""

import dataclasses
import os
import re

import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.printing import safe_print as print
from vlp_jax.sharding.exchange import decided_by_first, in_turn
from vlp_jax.sharding.layout import Layout
from vlp_jax.training.assembly import Run, make_module
from vlp_jax.training.checkpoint import checkpoint_folder, describe, flat, read_metadata, unflat
from vlp_jax.training.optimizer import match_rules
from vlp_jax.training.reading import read_together
from vlp_jax.training.reshaping import Shapes, as_here, change_of, depths, shapes_as_here
from vlp_jax.training.state import TrainState
from vlp_jax.training.trained import find_step, trained_config, trained_variables


@dataclasses.dataclass(frozen=True)
class Origin:
    """From which checkpoint of which run an entry of `config.pretrained` takes what: paths of parameters, and of what is kept
    beside them (`batch_stats/...`). changes: what becomes of those that have another shape there, each by its path with both
    shapes. left: those that its patterns find here and that are not there."""

    name: str
    folder: str
    step: int
    average: bool | None
    parameters: tuple[str, ...]
    collections: tuple[str, ...]
    changes: tuple[str, ...]
    left: tuple[str, ...]


def find_origins(run: Run, workdir: str) -> list[Origin]:
    """What a fresh run in `workdir` begins with, found out from names and shapes alone.

    Raises: ConfigError for an entry that finds no run, takes nothing, meets a stack of another depth or a parameter of a shape that
    does not fit, or brings embeddings of another tokenizer's words; CheckpointError, StorageError for a run that cannot be read.
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
    here = describe(run.shapes.params)
    there = shapes_as_here(metadata["parameters"], here)
    for pattern in spec.parameters:
        match_rules(f"{key}.parameters", [(pattern, 1.0)], run.shapes.params, default=0.0)
        if not any(re.search(pattern, path) for path in here.keys() & there.keys()):
            raise ConfigError(f"{key}.parameters: {pattern!r} matches no parameter that this model and {folder} both have")
    wanted, offered = named(here, spec.parameters), named(there, spec.parameters)
    taken = {path: shape for path, shape in wanted.items() if path in there}
    check_depths(key, folder, wanted, offered)
    changes = tuple(changed(key, folder, path, there[path], shape) for path, shape in taken.items() if there[path] != shape)
    check_words(key, folder, taken, metadata["preprocessor"], run.preprocessor, run.config.model.text.vocab_size)
    kept, known = describe(run.shapes.collections), metadata.get("collections", {})
    beside = [path for path, shape in kept.items() if path.startswith("batch_stats/") and known.get(path) == shape
              and any(re.search(pattern, path.removeprefix("batch_stats/")) for pattern in spec.parameters)]
    left = tuple(path for path in wanted if path not in there)
    return Origin(name, folder, step, spec.average, tuple(taken), tuple(beside), changes, left)


def folder_of(spec: schema.Pretrained, workdir: str) -> str:
    """The workdir that an entry names: that of a stage lies beside this one."""
    return spec.workdir if spec.stage is None else os.path.join(os.path.dirname(os.path.abspath(workdir)), spec.stage)


def named(shapes: Shapes, patterns: tuple[str, ...]) -> Shapes:
    """Those of the parameters that a pattern finds."""
    return {path: shape for path, shape in shapes.items() if any(re.search(pattern, path) for pattern in patterns)}


def check_depths(key: str, folder: str, wanted: Shapes, offered: Shapes) -> None:
    """Raises: ConfigError where the patterns name more layers of a stack there than here, or fewer."""
    there = depths(offered)
    for stack, depth in depths(wanted).items():
        if there.get(stack, depth) != depth:
            raise ConfigError(f"{key}: {stack.rstrip('/_')} has {there[stack]} layers in {folder} and {depth} in this config; make "
                              f"them alike, or leave it out of {key}.parameters")


def changed(key: str, folder: str, path: str, there: list[int], here: list[int]) -> str:
    """What becomes of a parameter that has another shape there, in words. Raises: ConfigError where nothing can."""
    change = change_of(path, there, here)
    if change is None:
        raise ConfigError(f"{key}: {path} is {there} in {folder} and {here} in this config; make them alike, or leave it out of "
                          f"{key}.parameters")
    return f"{path} {there} {change} to {here}"


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
        fresh = {path: params[path] for path in origin.parameters}
        shardings = {path: array.sharding for path, array in fresh.items()}
        params |= in_turn(jax.jit(as_here, out_shardings=shardings)(arrays, fresh))
        collections |= {path: jax.device_put(beside[path], collections[path].sharding) for path in origin.collections}
        new = f"; new ones that it lacks: {len(origin.left)}, such as {origin.left[0]}" if origin.left else ""
        print(f"pretrained.{origin.name}: {len(origin.parameters)} of {len(params)} parameters from {origin.folder}, step "
              f"{origin.step}{new}{''.join(f'; {change}' for change in origin.changes)}", flush=True)
    params = unflat(params, state.params)
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, average=average, collections=unflat(collections, state.collections))
