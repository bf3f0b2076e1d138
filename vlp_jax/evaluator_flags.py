"""Flags of `evaluate` for the settings of an evaluator.

`--class-field=label` is `evaluators.NAME.class_field`.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from vlp_jax.config import schema
from vlp_jax.config.parse import read_value
from vlp_jax.config.unused import TASKS_OF_SETTINGS
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.prompts import names_in, templates_of
from vlp_jax.evaluators.requirements import check_heads

NO_FLAGS = ("source", "tasks", "every_steps")  # --source and --evaluators exist; every_steps has no meaning outside of training
SETTINGS = {field.name: field for field in dataclasses.fields(schema.Evaluator) if field.name not in NO_FLAGS}
REPEATABLE = tuple(f"--{name.replace('_', '-')}" for name in SETTINGS
                   if typing.get_origin(typing.get_type_hints(schema.Evaluator)[name]) is tuple)
BATCH_SIZE = 256


def add_evaluator_flags(flags: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting.

    Its value is written as for `--config.evaluators.NAME.SETTING`; tuples may be repeated.
    """
    for name in SETTINGS:
        tasks, flag = TASKS_OF_SETTINGS.get(name, ()), f"--{name.replace('_', '-')}"
        of = f", for {', '.join(tasks)}" if tasks else ""
        default = str(BATCH_SIZE) if name == "batch_size" else "the config's choice"
        switch = {"nargs": "?", "const": "true"} if SETTINGS[name].type is bool else {}
        flags.add_argument(flag, action="append" if flag in REPEATABLE else "store", **switch,
                           help=f"as evaluators.NAME.{name} of a config{of}; by default {default}")


def evaluator_of(given: argparse.Namespace, tasks: tuple[str, ...], config: schema.Config) -> schema.Evaluator:
    """The evaluator that the flags describe.

    Settings without a flag are those of the first evaluator of the config with a task that uses
    them.

    Raises:
      ConfigError: a value is invalid, an objective has no head for the tasks, or no task reads a
        given setting.
    """
    chosen = {name: value for name in SETTINGS if (value := getattr(given, name)) is not None}
    values: dict[str, Any] = {"batch_size": BATCH_SIZE}
    for name in SETTINGS:
        uses = {*TASKS_OF_SETTINGS.get(name, tasks)} & {*tasks}
        flag = f"--{name.replace('_', '-')}"
        if name in chosen and not uses:
            raise ConfigError(f"{flag}: is for the evaluators {' and '.join(TASKS_OF_SETTINGS[name])}, and --evaluators are "
                              f"{', '.join(tasks)}")
        if name in chosen:
            values[name] = read_flag(name, flag, chosen[name])
        elif name not in values:
            values[name] = next((getattr(spec, name) for spec in config.evaluators.values() if uses & {*spec.tasks}),
                                getattr(schema.Evaluator(), name))
    spec = schema.Evaluator(source=given.source, tasks=tasks, **values)
    if spec.num_beams == 1 and {"length_penalty", "early_stopping"} & {*chosen}:
        raise ConfigError("--length-penalty, --early-stopping: are for beam search; set --num-beams to 2 or more")
    check_heads("--objective", spec, config)
    if "zero_shot" in tasks:
        where = {name: f"--{name.replace('_', '-')}" if name in chosen else f"evaluators.{name} of the checkpoint's config"
                 for name in ("templates", "class_names")}
        templates_of(where["templates"], spec.templates)
        names_in(where["class_names"], spec.class_names)
    return spec


def read_flag(name: str, flag: str, text: str | Sequence[str]) -> Any:
    """The value of a setting; for a repeated flag, the values of all.

    Raises:
      ConfigError: a value is invalid.
    """
    if isinstance(text, str):
        return read_value(schema.Evaluator, name, text, flag)
    return tuple(value for one in text for value in read_value(schema.Evaluator, name, one, flag))
