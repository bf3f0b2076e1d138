"""Overrides from the command line, `--config.section.key=value`, in a nested mapping."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.config import schema
from vlp_jax.config.durations import DURATIONS
from vlp_jax.config.problems import Problems
from vlp_jax.config.suggestions import sections_of_entries
from vlp_jax.errors import ConfigError

ENTRIES = sections_of_entries(schema.Config)


class Raw(str):
    """A value as typed on the command line; its meaning depends on the type of the field it is for.

    flag: the whole override, for messages.
    """

    flag: str

    def __new__(cls, path: str, text: str):
        raw = super().__new__(cls, text)
        raw.flag = f"--config.{path}={text}"
        return raw


def apply_overrides(tree: dict, overrides: Sequence[tuple[str, str]], problems: Problems | None = None) -> dict:
    """`tree` with dotted overrides from the command line.

    A duration takes the place of another one that the tree has. `none` takes an entry out of a section of named ones, such as
    `evaluators`; a key of an entry that is not there adds it.
    Args:
      problems: to which overrides that cannot be applied are added; None: they are raised.
    Raises: ConfigError.
    """
    found = Problems() if problems is None else problems
    durations = {path for path, text in overrides if path in DURATIONS and text.lower() != "none"}
    if durations:
        tree |= dict.fromkeys(set(DURATIONS) - durations)
    for path, text in overrides:
        with found.noted():
            apply_override(tree, path, text)
    if problems is None:
        found.report()
    return tree


def apply_override(tree: dict, path: str, text: str) -> None:
    """Sets one key. Raises: ConfigError for a key below a single value, and for an entry to be taken out that is not there."""
    *parents, last = path.split(".")
    node = tree
    for depth, parent in enumerate(parents):
        node[parent] = node = section_at(node.get(parent), f"--config.{path}", ".".join(parents[:depth + 1]),
                                         ".".join([*parents, last][depth + 1:]))
    if text.lower() == "none" and ".".join(parents) in ENTRIES and last not in node:
        raise ConfigError(f"{path}: there is no {last!r} to take out (there are: {', '.join(node) or 'none'}) "
                          f"[--config.{path}={text}]")
    node[last] = Raw(path, text)


def section_at(value: Any, flag: str, path: str, rest: str) -> dict:
    """A section, as a dictionary to be changed: one that is not there, or was taken out, is made by its first key, and one that
    was typed as a whole is read."""
    if isinstance(value, Raw) and value.lower() != "none":
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = str(value)
    if value is None or isinstance(value, Raw):
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: is a single value and has no key {rest!r} ({flag})")
    return value if isinstance(value, dict) else dict(value)
