"""A model to use in Python: `vlp_jax.load(DIR)` for a trained one, `vlp_jax.create_model(NAME)` for
a fresh one."""

import functools
import os
from collections.abc import Collection
from typing import Any

import jax

from vlp_jax.config import AnyConfig, flatten, read_config, to_tree
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import Targets, named_targets
from vlp_jax.errors import ConfigError
from vlp_jax.experiment import Experiment
from vlp_jax.inference import Model
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.sharding.layout import Layout
from vlp_jax.training.build import build_module, example_batch, vector_arrays, word_vectors
from vlp_jax.training.checkpoints.format import (
    checkpoint_folder,
    describe,
    finished_steps,
    read_metadata,
)
from vlp_jax.training.checkpoints.workdir import TRAINING_ONLY, changed_keys
from vlp_jax.training.cost.memory import check_parameters_fit
from vlp_jax.training.restore import find_step, restore_config, restore_variables
from vlp_jax.training.state import abstract_parameters, fresh_variables
from vlp_jax.weights.family import resolved
from vlp_jax.weights.public import PublicModel, is_public, read_public

SHOWN = 4  # most differing keys that a message names


def load(
    folder: str,
    step: int | None = None,
    ema: bool | None = None,
    compute: str = "float32",
    layout: Layout | None = None,
    components: Collection[str] = (),
) -> tuple[Model, dict[str, Any], Preprocessor]:
    """The model of a workdir, its variables and its preprocessor.

    Args:
      folder: the workdir of the run or of a converted model; or a public checkpoint, FORMAT:DIR,
        such as "huggingface:DIR", "openclip:DIR" or "big_vision:FILE.npz".
      step: step of the checkpoint. Default: the newest.
      ema: True for the EMA parameters, False for those of the last update. Default: the EMA
        parameters where the config keeps them.
      compute: "float32" or "bfloat16".
      layout: the layout over which the variables are sharded. Default: the first device.
      components: names of your own modules that may be imported, where the config selects classes
        of them as "module:Class". Modules that are imported already need not be named.
    Returns: the model; its variables, {"params": ...} and other collections that it has, such as
      `batch_stats`; and its preprocessor.
    Raises:
      CheckpointError: the checkpoint does not exist, has no EMA parameters, or is damaged.
      ConfigError: its config selects a class of a module that is neither imported nor named.
    """
    if is_public(folder):
        if step is not None or ema is not None:
            raise ConfigError(f"{folder}: is a public checkpoint, which has no step and no EMA")
        return load_public(folder, compute, layout)
    step = find_step(folder, step)
    metadata, config = (
        read_metadata(checkpoint_folder(folder), step),
        restore_config(folder, step, allowed=components),
    )
    preprocessor, module = (
        Preprocessor.from_json(metadata["preprocessor"]),
        build_module(config, compute),
    )
    variables = restore_variables(folder, step, ema, module, config, layout)
    targets = stored_targets(metadata, config)
    return Model(module, config, preprocessor, targets, layout), variables, preprocessor


def load_public(
    place: str, compute: str, layout: Layout | None
) -> tuple[Model, dict[str, Any], Preprocessor]:
    """`load` of a public checkpoint.

    Raises: as `weights.public.read_public`.
    """
    public = read_public(place)
    module, variables = build_module(public.config, compute), public.variables(layout)
    targets = named_targets(public.config.data.targets)
    model = Model(module, public.config, public.preprocessor, targets, layout)
    return model, variables, public.preprocessor


def create_model(
    config: AnyConfig,
    *,
    pretrained: str | os.PathLike | None = None,
    seed: int | None = None,
    compute: str = "float32",
) -> tuple[Model, dict[str, Any], Preprocessor]:
    """The model of a config, its variables and its preprocessor; the same objects as `load`
    returns.

    Args:
      config: a name of `list_models`, also as NAME:VARIANT, or a file; or an
        ml_collections.ConfigDict, a nested dict or an `Experiment`.
      pretrained: a workdir, or a public checkpoint as FORMAT:DIR; the result is that of `load`,
        with the checkpoint's own config. None: parameters are initialized from the seed, equal to
        those before a run's first update, without what the config's own section `pretrained` would
        replace.
      seed: of the initial parameters. Default: the config's.
      compute: "float32" or "bfloat16".
    Returns: the model; its variables, {"params": ...} and other collections that it has; and its
      preprocessor.
    Raises:
      ConfigError: the config is invalid, or the workdir is of another architecture.
      CheckpointError: as `load`.
    """
    config = read_config(config)
    if pretrained is None:
        return initialized(
            config if seed is None else read_config({**to_tree(config), "seed": seed}), compute
        )
    if seed is not None:
        raise ConfigError("seed: has no effect with pretrained; leave one of them out")
    folder = os.fspath(pretrained)
    if is_public(folder):
        check_public_architecture(config, read_public(folder))
        return load(folder, compute=compute)
    step = find_step(folder, None)
    check_architecture(config, restore_config(folder, step), folder)
    return load(folder, step, compute=compute)


def initialized(config: Experiment, compute: str) -> tuple[Model, dict[str, Any], Preprocessor]:
    """The model of a config with the parameters before its first update.

    Raises:
      ConfigError: parts do not fit together, or the parameters do not fit the device.
    """
    preprocessor, module = Preprocessor.from_config(config), build_module(config, compute)
    batch = example_batch(config)
    shapes = abstract_parameters(module, batch)
    check_parameters_fit(describe(shapes), "model")
    words = vector_arrays(word_vectors(config.model.text, preprocessor, module, batch))
    return (
        Model(module, config, preprocessor),
        _initialized(module, batch, config.seed, words),
        preprocessor,
    )


@functools.partial(jax.jit, static_argnums=0)
def _initialized(module: PretrainingModule, batch: dict, seed: int, words):
    return fresh_variables(module, batch, seed, words)


def check_architecture(config: Experiment, stored: Experiment, folder: str) -> None:
    """Checks that two configs have the same model, other than in what matters to training only.

    Raises:
      ConfigError: naming the keys that differ.
    """
    there, here = (flatten(to_tree(each.model), "model") for each in (stored, config))
    check_equal(there, here, TRAINING_ONLY, folder)


def check_public_architecture(config: Experiment, public: PublicModel) -> None:
    """Checks that a public checkpoint has the model of a config, as `check_architecture`. Presets
    count as their sizes.

    Raises:
      ConfigError: naming the keys that differ.
    """
    there, here = (
        {
            key: value
            for key, value in resolved(each).items()
            if key.startswith("model.") and key not in public.family.free
        }
        for each in (public.config, config)
    )
    check_equal(there, here, (*TRAINING_ONLY, "model.*.preset"), public.place)


def check_equal(
    there: dict[str, Any], here: dict[str, Any], but: tuple[str, ...], folder: str
) -> None:
    """Checks that two architectures have the same keys.

    Raises:
      ConfigError: naming the keys that differ.
    """
    changes = changed_keys(there, here, but)
    if changes:
        more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise ConfigError(
            f"pretrained: {folder} holds another architecture than the config: "
            f"{'; '.join(changes[:SHOWN])}{more}; give the config that it was "
            "trained with, or take the checkpoint as it is by vlp_jax.load"
        )


def class_descriptions(folder: str, step: int | None = None) -> dict:
    """The training captions by class that a checkpoint stores for zero-shot evaluation."""
    checkpoints = checkpoint_folder(folder)
    return read_metadata(checkpoints, finished_steps(checkpoints)[-1] if step is None else step)[
        "class_descriptions"
    ]


def restore_targets(folder: str, step: int | None = None) -> Targets:
    """The targets that a checkpoint was trained to predict, with their classes."""
    step = find_step(folder, step)
    metadata = read_metadata(checkpoint_folder(folder), step)
    return stored_targets(metadata, restore_config(folder, step))


def stored_targets(metadata: dict[str, Any], config: Experiment) -> Targets:
    """The targets in a checkpoint's metadata."""
    stored = metadata.get("targets") or {}  # old checkpoints have no targets
    return Targets(
        config.data.targets, {name: tuple(entry["classes"]) for name, entry in stored.items()}
    )
