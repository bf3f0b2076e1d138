"""Initialisation of a fresh run from checkpoints of other runs: the config's section
`pretrained`."""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from vlp_jax.config import to_tree
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer_models import same_vocabulary
from vlp_jax.distributed.exchange import broadcast_from_primary, wait_on_cpu
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.reporting import report
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.linear_maps import WORDS
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.storage.paths import parent
from vlp_jax.training.build import Run, example_batch
from vlp_jax.training.checkpoints.format import describe, flat, unflat
from vlp_jax.training.checkpoints.read_errors import read_together
from vlp_jax.training.compared_configs import named, objectives_that_continue, other_settings
from vlp_jax.training.optimizer import match_rules
from vlp_jax.training.pretrained import Pairs, PretrainedConfig
from vlp_jax.training.renamed_parameters import (
    check_pairs,
    named_there,
    renamed,
    shapes_there,
    statistics_from,
    unrolled_names,
)
from vlp_jax.training.resize_parameters import Shapes, as_here, change_of, depths
from vlp_jax.training.restore import find_step
from vlp_jax.training.state import TrainState, parameter_axes, running_statistics
from vlp_jax.training.weight_source import PublicSource, RunSource, WeightSource
from vlp_jax.weights.public import is_public

if TYPE_CHECKING:
    pass

MODEL = "^model/"
GROUPS = 8  # most groups of parameters that a line names


@dataclasses.dataclass(frozen=True)
class Origin:
    """What an entry of `config.pretrained` takes from which checkpoint of which run.

    Attributes:
      name: name of the entry.
      source: the other model.
      parameters: paths of the parameters that are taken.
      collections: {path: path there} of the other variables that are taken (`batch_stats/...`).
      changes: a line for each parameter of another shape there: its path, both shapes, and how it
        is changed.
      left: paths that the patterns find here and that are absent there.
      unused: paths of the other run that are not taken, layers unrolled.
      renamed: pairs of paths here and there, as in the config.
      settings: a line for each setting by which the parameters compute something else there.
      axes: {path: logical axes} of the parameters here.
    """

    name: str
    source: WeightSource
    parameters: tuple[str, ...]
    collections: Mapping[str, str]
    changes: tuple[str, ...]
    left: tuple[str, ...]
    unused: tuple[str, ...]
    renamed: Pairs
    settings: tuple[str, ...]
    axes: Mapping[str, Axes]


def find_origins(run: Run, workdir: str) -> list[Origin]:
    """What a fresh run in `workdir` is initialised from, found from names and shapes alone.

    Raises:
      ConfigError: an entry finds no run, takes nothing, meets a stack of another depth or a
        parameter of a shape that does not fit, or takes embeddings of another tokenizer's
        vocabulary.
      CheckpointError, StorageError: a run cannot be read.
    """
    return [find_origin(name, spec, run, workdir) for name, spec in run.config.pretrained.items()]


def find_origin(name: str, spec: PretrainedConfig, run: Run, workdir: str) -> Origin:
    """`find_origins` of one entry.

    The primary process decides which step is the newest: another process may find one that is not
    visible to all.
    """
    folder, key = folder_of(spec, workdir), f"pretrained.{name}"
    if is_public(folder):
        check_keys_of_runs(key, folder, spec)
        return read_together(key, lambda: origin_at(name, PublicSource(folder), spec, run))
    step = broadcast_from_primary(key, lambda: step_of(key, folder, spec))
    return read_together(
        key,
        lambda: origin_at(name, RunSource(key, folder, step, spec.ema, spec.components), spec, run),
    )


def check_keys_of_runs(key: str, place: str, spec: PretrainedConfig) -> None:
    """Checks that no key is set that a public checkpoint does not have.

    Raises:
      ConfigError: one is.
    """
    for name, default in (("step", None), ("ema", None), ("components", ())):
        if getattr(spec, name) != default:
            raise ConfigError(f"{key}.{name}: is for runs, and {place} is a public checkpoint")


def step_of(key: str, folder: str, spec: PretrainedConfig) -> int:
    """The step that an entry names, or the newest.

    Raises:
      ConfigError: there is no such checkpoint.
    """
    try:
        return find_step(folder, spec.step)
    except CheckpointError as error:
        elsewhere = spec.stage is None
        advice = (
            "give the folder of a run that has saved"
            if elsewhere
            else f"train the stage {spec.stage!r} before this one"
        )
        raise ConfigError(f"{key}: {error.args[0]}; {advice}") from error


def origin_at(name: str, source: WeightSource, spec: PretrainedConfig, run: Run) -> Origin:
    """What an entry takes from another model.

    Raises: as `find_origins`.
    """
    key, folder = f"pretrained.{name}", source.folder
    here = describe(run.shapes.params)
    check_pairs(f"{key}.renamed", folder, spec.renamed, here, dict(source.parameters))
    there = shapes_there(source.parameters, spec.renamed, here)
    patterns = spec.parameters or (
        MODEL,
        *objectives_that_continue(here, there, source.config, run.config),
    )
    for pattern in patterns:
        match_rules(f"{key}.parameters", [(pattern, 1.0)], run.shapes.params, default=0.0)
        if not any(re.search(pattern, path) for path in here.keys() & there.keys()):
            raise ConfigError(
                f"{key}.parameters: {pattern!r} matches no parameter that this "
                f"model and {folder} both have"
            )
    wanted, offered = named(here, patterns), named(there, patterns)
    taken = {path: shape for path, shape in wanted.items() if path in there}
    check_depths(key, folder, wanted, offered)
    axes = parameter_axes(run.module, example_batch(run.config))
    changes = tuple(
        changed(key, folder, path, there[path], shape, axes.get(path, ()))
        for path, shape in taken.items()
        if there[path] != shape
    )
    # Tables of patches' codes have an axis of this name too, of another length.
    of_words = [
        path
        for path, shape in taken.items()
        if WORDS in axes.get(path, ()) and run.config.model.text.vocab_size in shape
    ]
    check_words(key, of_words, source, run.preprocessor)
    beside = statistics_from(
        source.collections, patterns, spec.renamed, describe(run.shapes.collections)
    )
    left = tuple(path for path in wanted if path not in there)
    used = {path: named_there(path, spec.renamed) or path for path in unrolled_names(taken)}
    theirs = {*used.values()}
    return Origin(
        name,
        source,
        parameters=tuple(taken),
        collections=beside,
        changes=changes,
        left=left,
        unused=tuple(path for path in unrolled_names(source.parameters) if path not in theirs),
        renamed=spec.renamed,
        settings=tuple(other_settings(used, source.config, to_tree(run.config))),
        axes=axes,
    )


def folder_of(spec: PretrainedConfig, workdir: str) -> str:
    """The workdir that an entry names; that of a stage is next to this one."""
    return spec.workdir or "" if spec.stage is None else os.path.join(parent(workdir), spec.stage)


def grouped(paths: Sequence[str]) -> str:
    """Parameters in words, counted by the part of the model or the objective they belong to.

    A single one is given by its path.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(
            "/".join(path.split("/")[: 2 if path.startswith("model/") else 1]), []
        ).append(path)
    said = [
        f"{found[0]}" if len(found) == 1 else f"{group} ({len(found)})"
        for group, found in groups.items()
    ]
    return ", ".join(said[:GROUPS]) + (
        f" and {len(said) - GROUPS} more" if len(said) > GROUPS else ""
    )


def check_depths(key: str, folder: str, wanted: Shapes, offered: Shapes) -> None:
    """Checks that the stacks matched by the patterns have as many layers there as here.

    Raises:
      ConfigError: a stack has more or fewer layers there.
    """
    there = depths(offered)
    for stack, depth in depths(wanted).items():
        if there.get(stack, depth) != depth:
            raise ConfigError(
                f"{key}: {stack.rstrip('/_')} has {there[stack]} layers in {folder} "
                f"and {depth} in this config; make them alike, or leave it out of "
                f"{key}.parameters"
            )


def changed(key: str, folder: str, path: str, there: list[int], here: list[int], axes: Axes) -> str:
    """How a parameter of another shape there is changed, in words.

    Raises:
      ConfigError: the parameter cannot be resized.
    """
    change = change_of(there, here, axes=axes)
    if change is None:
        raise ConfigError(
            f"{key}: {path} is {there} in {folder} and {here} in this config; make "
            f"them alike, or leave it out of {key}.parameters"
        )
    return f"{path} {there} {change} to {here}"


def check_words(
    key: str, of_words: Sequence[str], source: WeightSource, preprocessor: Preprocessor
) -> None:
    """Checks that parameters with an axis of the vocabulary come from a model with the same
    vocabulary. One without a tokenizer is not checked.

    Raises:
      ConfigError: the other model has another vocabulary.
    """
    if not of_words or source.tokenizer is None:
        return
    if not same_vocabulary(source.tokenizer, preprocessor.tokenizer.definition):
        raise ConfigError(
            f"{key}: {of_words[0]} in {source.folder} belongs to the words of another "
            f"tokenizer than data.text.tokenizer={preprocessor.tokenizer.spec.tokenizer!r}; use "
            f"that one's, or leave it out of {key}.parameters"
        )


def taken_from(
    arrays: dict[str, jax.Array], fresh: dict[str, jax.Array], origin: Origin
) -> dict[str, jax.Array]:
    """The parameters of an origin as they are here; a function to trace.

    Args:
      arrays: {path there: array}.
      fresh: {path here: array} of those that are taken.
      origin: what is taken.
    """
    shapes = {path: list(array.shape) for path, array in fresh.items()}
    found = renamed(arrays, shapes, origin.renamed)
    return as_here(found, fresh, origin.axes, origin.source.position_filter)


def initialize_state(state: TrainState, origins: list[Origin], layout: Layout) -> TrainState:
    """`state` with the values that the origins hold.

    Where several hold the same parameter, the last one is used. The EMA starts equal to the
    parameters.
    """
    params, collections = flat(state.params), flat(state.collections)
    for origin in origins:
        found = origin.source.variables(layout)
        arrays, beside = flat(found.pop("params")), flat(found)
        fresh = {path: params[path] for path in origin.parameters}
        shardings = {path: array.sharding for path, array in fresh.items()}
        params |= wait_on_cpu(
            jax.jit(functools.partial(taken_from, origin=origin), out_shardings=shardings)(
                arrays, fresh
            )
        )
        collections |= {
            path: jax.device_put(beside[there], collections[path].sharding)
            for path, there in origin.collections.items()
        }
        new = (
            f"; new ones that it lacks: {len(origin.left)}, such as {origin.left[0]}"
            if origin.left
            else ""
        )
        new += f"; not taken from there: {grouped(origin.unused)}" if origin.unused else ""
        new += f"; other settings here: {', '.join(origin.settings)}" if origin.settings else ""
        report(
            f"pretrained.{origin.name}: {len(origin.parameters)} of {len(params)} parameters "
            f"from {origin.source.title}{new}{''.join(f'; {change}' for change in origin.changes)}"
        )
    initial = [path for path in params if not any(path in origin.parameters for origin in origins)]
    if origins and initial:
        report(f"not pretrained, as initialised by the seed: {grouped(initial)}")
    params = unflat(params, state.params)
    collections = unflat(collections, state.collections)
    ema = statistics = None
    if state.ema is not None:
        ema, statistics = jax.tree.map(jnp.copy, (params, running_statistics(collections)))
    return dataclasses.replace(
        state, params=params, ema=ema, collections=collections, ema_statistics=statistics
    )
