"""The methods that a command line chooses, with their settings."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlp_jax.config.parse import read_value
from vlp_jax.errors import ConfigError
from vlp_jax.explain.method import MethodConfig
from vlp_jax.explain.score import ScoreConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def chosen_methods(names: str | None, settings: Sequence[str] = ()) -> list[MethodConfig]:
    """The methods of a comma-separated list; None: all.

    Args:
      names: their kinds.
      settings: METHOD.KEY=VALUE each.
    Raises:
      ConfigError: a method or a setting does not exist, or a value is invalid.
    """
    kinds = [*MethodConfig.kinds] if names is None else [name for name in names.split(",") if name]
    for kind in kinds:
        if kind not in MethodConfig.kinds:
            raise ConfigError(f"--methods: must be {MethodConfig.kinds.choices}, got {kind!r}")
    values: dict[str, dict] = {kind: {} for kind in kinds}
    for setting in settings:
        place, _, text = setting.partition("=")
        kind, _, key = place.partition(".")
        check_setting(setting, kind, key, kinds)
        declaration = MethodConfig.kinds[kind]
        values[kind][key] = read_value(declaration, key, text, f"--set={place}")
    return [MethodConfig.of(kind, **values[kind]) for kind in kinds]


def check_setting(setting: str, kind: str, key: str, kinds: Sequence[str]) -> None:
    """Checks that a chosen method has a setting.

    Raises:
      ConfigError: it has not.
    """
    if kind not in kinds:
        raise ConfigError(
            f"--set={setting}: write METHOD.KEY=VALUE, with one of {', '.join(kinds)}"
        )
    keys = [field.name for field in dataclasses.fields(MethodConfig.kinds[kind])]
    if key not in keys:
        raise ConfigError(
            f"--set={setting}: {kind} has the settings {', '.join(keys) or 'none'}, not {key!r}"
        )


def possible_methods(
    methods: Sequence[MethodConfig], experiment: "Experiment", score: ScoreConfig
) -> tuple[list[MethodConfig], list[str]]:
    """The methods that a model has for a score, and a message for each of the others."""
    lacking = {method: method.lacks(experiment, score) for method in methods}
    messages = [
        f"{method.kind} needs {need}" for method, need in lacking.items() if need is not None
    ]
    return [method for method, need in lacking.items() if need is None], messages
