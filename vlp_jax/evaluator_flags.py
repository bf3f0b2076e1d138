"""The settings of an evaluator that `evaluate` takes as flags, and `run_evaluation` as keywords.

`--class-field=label` is `evaluators.NAME.tasks.zero_shot.class_field`, and `--batch-size` is
`evaluators.NAME.batch_size`. A setting goes to each of the chosen tasks that has it.
"""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.config.parse import read_section, read_value
from vlp_jax.config.problems import Problems
from vlp_jax.config.section import Section
from vlp_jax.config.suggestions import suggestion
from vlp_jax.config.tree import hints_of
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.experiment import Experiment

BATCH_SIZE = 256


def tasks_of_settings() -> dict[str, list[str]]:
    """{setting: the kinds of tasks that have it}, also of the batch size, which is for all of
    them."""
    found: dict[str, list[str]] = {"batch_size": []}
    for kind, task in TaskConfig.kinds.items():
        for field in dataclasses.fields(task):
            found.setdefault(field.name, []).append(kind)
    return found


SETTINGS = tasks_of_settings()
KEYWORDS = {name: name for name in (*SETTINGS, "tasks")}  # names in messages, for calls from Python
# for the command line
FLAGS = {name: f"--{name.replace('_', '-')}" for name in SETTINGS} | {"tasks": "--evaluators"}


def section_of(setting: str) -> type[Section]:
    """The dataclass of a setting; of several tasks, the first."""
    return TaskConfig.kinds[SETTINGS[setting][0]] if SETTINGS[setting] else EvaluatorConfig


def type_of(setting: str) -> Any:
    """The type of a setting."""
    return hints_of(section_of(setting))[setting]


REPEATABLE = tuple(FLAGS[name] for name in SETTINGS if typing.get_origin(type_of(name)) is tuple)


def add_evaluator_flags(flags: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting.

    Its value is written as for `--config.evaluators.NAME.tasks.TASK.SETTING`; tuples may be
    repeated.
    """
    for name, tasks in SETTINGS.items():
        flag = FLAGS[name]
        key, of = (f"tasks.TASK.{name}", f", for {', '.join(tasks)}") if tasks else (name, "")
        default = "the config's choice" if tasks else str(BATCH_SIZE)
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if type_of(name) is bool else {}
        flags.add_argument(
            flag,
            action="append" if flag in REPEATABLE else "store",
            **switch,
            help=f"as evaluators.NAME.{key} of a config{of}; by default {default}",
        )


def given_settings(given: argparse.Namespace) -> dict[str, Any]:
    """{name: value} of the settings that have a flag on the command line.

    Raises:
      ConfigError: a value is invalid.
    """
    return {
        name: read_flag(name, FLAGS[name], text)
        for name in SETTINGS
        if (text := getattr(given, name)) is not None
    }


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given as Python values, checked and converted as in a config.

    Raises:
      ConfigError: a setting does not exist, or its value is invalid; ConfigErrors for several.
    """
    problems, checked = Problems(), {}
    for name, value in settings.items():
        if name == "every_steps":
            problems.append("every_steps: has no effect outside of training")
        elif name not in SETTINGS:
            problems.append(
                f"{name}: unknown key {suggestion(name, list(SETTINGS), EvaluatorConfig, {})}"
            )
        else:
            with problems.noted():
                checked[name] = getattr(read_section(section_of(name), {name: value}, ""), name)
    problems.report()
    return checked


def build_evaluator(
    source: str,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    config: Experiment,
    names: Mapping[str, str],
) -> EvaluatorConfig:
    """The evaluator of a source, tasks and settings.

    Settings that are not given are those of the first task of the same kind in the config.

    Args:
      source: the evaluation set.
      tasks: the kinds of tasks.
      settings: valid values by the names in SETTINGS.
      config: that of the checkpoint.
      names: how the settings and `tasks` are named in messages: FLAGS or KEYWORDS.
    Raises:
      ConfigError: the checkpoint's objectives train no head for a task, settings do not fit
        together, or no task reads a given setting; ConfigErrors for several.
    """
    problems = Problems()
    for name in settings:
        if SETTINGS[name] and not {*SETTINGS[name]} & {*tasks}:
            *most, last = SETTINGS[name]
            kinds = f"evaluators {', '.join(most)} and {last}" if most else f"evaluator {last}"
            problems.append(
                f"{names[name]}: is for the {kinds}, and {names['tasks']} are {', '.join(tasks)}"
            )
    chosen = {kind: with_settings(config, kind, settings) for kind in tasks}
    for task in chosen.values():
        problems += problems_of(task, settings, config, names)
    problems.report()
    return EvaluatorConfig(
        source=source, tasks=chosen, batch_size=settings.get("batch_size", BATCH_SIZE)
    )


def with_settings(config: Experiment, kind: str, settings: Mapping[str, Any]) -> TaskConfig:
    """The first task of a kind in the config, or one with the defaults, with those of the settings
    that it has."""
    tasks = (task for spec in config.evaluators.values() for task in spec.tasks.values())
    task = next((task for task in tasks if task.kind == kind), TaskConfig.of(kind))
    return dataclasses.replace(
        task, **{name: value for name, value in settings.items() if kind in SETTINGS[name]}
    )


def problems_of(
    task: TaskConfig, settings: Mapping[str, Any], config: Experiment, names: Mapping[str, str]
) -> list[str]:
    """The problems of a task with given settings; arguments as in `build_evaluator`."""

    def name(key: str) -> str:
        return (
            names[key]
            if key in settings
            else f"{key} of the task {task.kind!r} in the checkpoint's config"
        )

    problems = Problems(task.untrained(names["tasks"], config))
    problems += task.problems(name, config)
    problems += [
        f"{names[key]}: has no effect {reason}"
        for key, reason in task.ignored(config).items()
        if key in settings
    ]
    with problems.noted():
        task.check_files(name)
    return problems


def read_flag(name: str, flag: str, text: str | Sequence[str]) -> Any:
    """The value of a setting; for a repeated flag, the values of all.

    Raises:
      ConfigError: a value is invalid.
    """
    if isinstance(text, str):
        return read_value(section_of(name), name, text, flag)
    return tuple(value for one in text for value in read_value(section_of(name), name, one, flag))
