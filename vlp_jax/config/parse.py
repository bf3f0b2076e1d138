"""Parses untyped configuration (nested mappings, override strings) into the frozen dataclasses of
its sections.

An error names every invalid key, one per line, with its place and the valid alternatives.
"""

import dataclasses
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vlp_jax.config.overrides import Raw
from vlp_jax.config.parser import Parser
from vlp_jax.config.problems import Problems
from vlp_jax.config.tree import hints_of


def to_config(
    tree: Mapping,
    place: str = "",
    problems: Sequence[str] = (),
    allowed: Collection[str] | None = None,
) -> Any:
    """The checked `Experiment` of a nested mapping.

    Args:
      tree: the return value of a config file, with overrides applied.
      place: the file's name, for messages.
      problems: other problems found before.
      allowed: modules outside of this package from which classes may be imported, as in
        `registry.outside_class`.
    Raises: ConfigError naming the key, the place, and the closest valid key or the allowed values;
      ConfigErrors for several keys. How keys fit together is checked once all of them are valid.
    """
    found = Problems(problems)
    parser = Parser(place, tree, found, allowed=allowed)
    config = parser.dataclass(parser.root, tree, "")
    with found.noted():
        config.check_duration(found, place)
    found.report()
    return config.completed(place)


def read_value(kind: type, name: str, text: str, flag: str) -> Any:
    """The value of one field of a section, from its text on the command line.

    Args:
      kind: dataclass of the section.
      name: of the field.
      text: its value as typed.
      flag: name of the option in messages.
    Raises: ConfigError for an invalid value.
    """
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    raw, parser = Raw(name, text), Parser("")
    raw.flag = ""
    value = parser.value(typing.get_type_hints(kind)[name], raw, flag)
    parser.problems.report()
    parser.check_range(field, value, flag, raw)
    return value


def read_section(kind: type, tree: Mapping[str, Any], path: str) -> Any:
    """One section of a config as its dataclass, from its keys as Python values.

    Args:
      kind: dataclass of the section.
      tree: its keys; others have their defaults.
      path: the section in messages, such as "model.image".
    Raises: ConfigError for an unknown key or an invalid value, ConfigErrors for several.
    """
    parser = Parser("", tree, root=kind)
    section = parser.dataclass(kind, tree, path)
    parser.problems.report()
    return section


def checked_fields(section: Any) -> dict[str, Any]:
    """The values of a section built in Python, as the parser would give them.

    Raises: ConfigError for an invalid value, ConfigErrors for several.
    """
    parser, hints, values = Parser(type(section).__name__), hints_of(type(section)), {}
    for field in dataclasses.fields(section):
        with parser.problems.noted():
            given = getattr(section, field.name)
            values[field.name] = parser.value(hints[field.name], given, field.name)
            parser.check_range(field, values[field.name], field.name, given)
    parser.problems.report()
    return values
