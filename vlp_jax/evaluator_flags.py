"""The settings of an evaluator that `evaluate` takes as flags, and `run_evaluation` as keywords.

`--class-field=label` is `evaluators.NAME.class_field`.
"""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.checks.unused import TASKS_OF_SETTINGS
from vlp_jax.config.parse import read_section, read_value
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.prompts import names_in, templates_of
from vlp_jax.evaluators.requirements import check_heads
from vlp_jax.experiment import Experiment

NO_FLAGS = ("source", "tasks", "every_steps")  # --source and --evaluators exist; every_steps has no meaning outside of training
SETTINGS = {field.name: field for field in dataclasses.fields(EvaluatorConfig) if field.name not in NO_FLAGS}
KEYWORDS = {name: name for name in (*SETTINGS, "tasks")}  # names in messages, for calls from Python
FLAGS = {name: f"--{name.replace('_', '-')}" for name in SETTINGS} | {"tasks": "--evaluators"}  # for the command line
REPEATABLE = tuple(FLAGS[name] for name in SETTINGS
                   if typing.get_origin(typing.get_type_hints(EvaluatorConfig)[name]) is tuple)
BATCH_SIZE = 256


def add_evaluator_flags(flags: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting.

    Its value is written as for `--config.evaluators.NAME.SETTING`; tuples may be repeated.
    """
    for name in SETTINGS:
        tasks, flag = TASKS_OF_SETTINGS.get(name, ()), FLAGS[name]
        of = f", for {', '.join(tasks)}" if tasks else ""
        default = str(BATCH_SIZE) if name == "batch_size" else "the config's choice"
        switch = {"nargs": "?", "const": "true"} if SETTINGS[name].type is bool else {}
        flags.add_argument(flag, action="append" if flag in REPEATABLE else "store", **switch,
                           help=f"as evaluators.NAME.{name} of a config{of}; by default {default}")


def given_settings(given: argparse.Namespace) -> dict[str, Any]:
    """{name: value} of the settings that have a flag on the command line.

    Raises:
      ConfigError: a value is invalid.
    """
    return {name: read_flag(name, FLAGS[name], text) for name in SETTINGS if (text := getattr(given, name)) is not None}


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given as Python values, checked and converted as in a config.

    Raises:
      ConfigError: a setting does not exist, or its value is invalid.
    """
    section = read_section(EvaluatorConfig, settings, "")
    if "every_steps" in settings:
        raise ConfigError("every_steps: has no effect outside of training")
    return {name: getattr(section, name) for name in settings}


def build_evaluator(source: str, tasks: tuple[str, ...], settings: Mapping[str, Any], config: Experiment,
                    names: Mapping[str, str]) -> EvaluatorConfig:
    """The evaluator of a source, tasks and settings.

    Settings that are not given are those of the first evaluator of the config with a task that uses
    them.

    Args:
      source: the evaluation set.
      tasks: what is measured.
      settings: valid values by the names in SETTINGS.
      config: that of the checkpoint.
      names: how the settings and `tasks` are named in messages: FLAGS or KEYWORDS.
    Raises:
      ConfigError: settings do not fit together, an objective has no head for the tasks, or no task
        reads a given setting.
    """
    values: dict[str, Any] = {"batch_size": BATCH_SIZE, **settings}
    for name in SETTINGS:
        uses = {*TASKS_OF_SETTINGS.get(name, tasks)} & {*tasks}
        if name in settings and not uses:
            raise ConfigError(f"{names[name]}: is for the evaluators {' and '.join(TASKS_OF_SETTINGS[name])}, and {names['tasks']} "
                              f"are {', '.join(tasks)}")
        if name not in values:
            values[name] = next((getattr(spec, name) for spec in config.evaluators.values() if uses & {*spec.tasks}),
                                getattr(EvaluatorConfig(), name))
    spec = EvaluatorConfig(source=source, tasks=tasks, **values)
    if spec.num_beams == 1 and {"length_penalty", "early_stopping"} & {*settings}:
        raise ConfigError(f"{names['length_penalty']}, {names['early_stopping']}: are for beam search; set {names['num_beams']} to "
                          "2 or more")
    check_heads(names["objective"], spec, config)
    if "zero_shot" in tasks:
        where = {name: names[name] if name in settings else f"evaluators.{name} of the checkpoint's config"
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
        return read_value(EvaluatorConfig, name, text, flag)
    return tuple(value for one in text for value in read_value(EvaluatorConfig, name, one, flag))
