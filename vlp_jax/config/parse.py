"""Parses untyped configuration (nested mappings, override strings) into the frozen dataclasses of `schema.py`.

An error names every invalid key, one per line, with its place and the valid alternatives.
"""

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlp_jax.config import schema
from vlp_jax.config.durations import DURATIONS
from vlp_jax.config.graphs import with_box_count
from vlp_jax.config.overrides import Raw
from vlp_jax.config.problems import Problems
from vlp_jax.config.suggestions import KINDS, sections_in, suggestion
from vlp_jax.config.targets import with_outputs
from vlp_jax.config.unused import check_unused
from vlp_jax.errors import ConfigError

LARGEST = 2**53  # integers up to this are exact in JSON and as floats


def to_config(tree: Mapping, place: str = "", problems: Sequence[str] = ()) -> schema.Config:
    """The checked `Config` of a nested mapping.

    Args:
      tree: the return value of a config file, with overrides applied.
      place: the file's name, for messages.
      problems: other problems found before.
    Raises: ConfigError naming the key, the place, and the closest valid key or the allowed values;
      ConfigErrors for several keys. How keys fit together is checked once all of them are valid.
    """
    found = Problems(problems)
    parser = _Parser(place, tree, found)
    config = parser.dataclass(schema.Config, tree, "")
    with found.noted():
        check_duration(config, found, place)
    found.report()
    with found.noted():
        if not config.objectives:
            raise ConfigError(f"objectives: at least one is needed, such as contrastive.kind='clip'{_at(place)}")
    with found.noted():
        if config.ema == 1.0:
            raise ConfigError(f"ema: an EMA with decay 1 never changes; it must be below 1, such as 0.9999{_at(place)}")
    for name, origin in config.pretrained.items():
        if (origin.workdir is None) == (origin.stage is None):
            found.append(f"pretrained.{name}: set either workdir, the folder of a run, or stage, an earlier stage{_at(place)}")
    with found.noted():
        check_unused(config, place)
    with found.noted():
        config = with_outputs(config, place)
    with found.noted():
        config = with_box_count(config, place)
    found.report()
    return config


def check_duration(config: schema.Config, problems: Sequence[str], place: str) -> None:
    """Checks that exactly one of the three durations is set.

    Raises: ConfigError where it is not; a duration with an invalid value is in `problems` already.
    """
    durations = [name for name in DURATIONS if getattr(config, name) is not None]
    if len(durations) != 1 and not any(problem.startswith(f"{name}:") for problem in problems for name in DURATIONS):
        found = " and ".join(durations) or "none of them"
        raise ConfigError(f"steps, examples, epochs: set exactly one (found {found}){_at(place)}")


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
    raw, parser = Raw(name, text), _Parser("")
    raw.flag = ""
    value = parser.value(typing.get_type_hints(kind)[name], raw, flag)
    parser.problems.report()
    parser.check_range(field, value, flag, raw)
    return value


def read_section(kind: type, tree: Mapping[str, Any], path: str) -> Any:
    """One section of a config as a dataclass of the schema, from its keys as Python values.

    Args:
      kind: dataclass of the section.
      tree: its keys; others have their defaults.
      path: the section in messages, such as "model.image".
    Raises: ConfigError for an unknown key or an invalid value, ConfigErrors for several.
    """
    parser = _Parser("", tree, root=kind)
    section = parser.dataclass(kind, tree, path)
    parser.problems.report()
    return section


def to_tree(config: Any) -> Any:
    """The nested dictionaries, lists and scalars that `to_config` takes, ready for JSON."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_tree(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_tree(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_tree(value) for value in config]
    return config


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; sequences are not flattened."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _at(place: str) -> str:
    return f" [{place}]" if place else ""


class _Parser:
    """One walk over a mapping. Problems are added to `problems`, with `place` in every message.

    Unknown keys are compared with those of `root`, the dataclass of the mapping.
    """

    def __init__(self, place: str, tree: Any = None, problems: Problems | None = None, root: type = schema.Config):
        self.place, self.tree, self.root = place, tree, root
        self.problems = Problems() if problems is None else problems

    def fail(self, path: str, text: str, value: Any = None) -> typing.NoReturn:
        """Raises a ConfigError for the key at `path`."""
        place = ", ".join(part for part in (value.flag if isinstance(value, Raw) else "", self.place) if part)
        raise ConfigError(f"{path}: {text}{_at(place)}")

    def dataclass(self, kind: type, tree: Any, path: str) -> Any:
        """A section as a dataclass of the schema."""
        if dataclasses.is_dataclass(tree) and isinstance(tree, kind):
            return tree
        tree = self.section(tree, path)
        if not isinstance(tree, Mapping):
            self.fail(path, f"expected a section with keys {', '.join(f.name for f in dataclasses.fields(kind))}, "
                            f"got {tree!r}", tree)
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        values = {}
        for key, value in tree.items():
            where = f"{path}.{key}" if path else str(key)
            with self.problems.noted():
                if key not in fields:
                    self.unknown(where, list(fields), value)
                    continue
                read = self.value(hints[key], with_kind(fields[key], value), where)
                self.check_range(fields[key], read, where, value)
                values[key] = read
        return kind(**values)

    def unknown(self, path: str, siblings: list[str], value: Any) -> None:
        """Reports an unknown key; of an unknown section, each key inside it."""
        inside = flatten(value) if isinstance(value, Mapping) and value else {"": value}
        for rest, single in inside.items():
            with self.problems.noted():
                where = f"{path}.{rest}" if rest else path
                self.fail(where, f"unknown key {suggestion(path, siblings, self.root, self.tree, rest)}", single)

    def check_range(self, field: dataclasses.Field, parsed: Any, path: str, given: Any) -> None:
        """Checks a value against the range of its field."""
        if parsed is None or "range" not in field.metadata:
            return
        low, high = field.metadata["range"]
        numbers = parsed if isinstance(parsed, tuple) else (parsed,)
        if field.metadata.get("excluded") in numbers:
            self.fail(path, f"must be above {field.metadata['excluded']:g}, got {parsed}", given)
        if any((low is not None and number < low) or (high is not None and number > high) for number in numbers):
            allowed = (f"between {low} and {high}" if None not in (low, high)
                       else f"at least {low}" if low is not None else f"at most {high}")
            self.fail(path, f"must be {allowed}, got {parsed}", given)

    def value(self, hint: Any, value: Any, path: str) -> Any:
        """A value of the annotated type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.union(arguments, value, path)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(hint, value, path)
        if origin is Literal:
            return self.choice(arguments, value, path)
        if origin is dict:
            return self.mapping(arguments[1], value, path)
        if origin is tuple:
            return self.sequence(arguments, value, path)
        return self.scalar(hint, value, path)

    def union(self, arguments: tuple, value: Any, path: str) -> Any:
        """An optional value, a section of one of several kinds, or a mapping or sequence."""
        if type(None) in arguments:
            if _is_none(value):
                return None
            arguments = tuple(a for a in arguments if a is not type(None))
        if len(arguments) == 1:
            return self.value(arguments[0], value, path)
        value = self.section(value, path)
        if not any(map(dataclasses.is_dataclass, arguments)):  # values by name, or a sequence of them
            by_name = isinstance(value, Mapping)
            return self.value(next(a for a in arguments if (typing.get_origin(a) is dict) == by_name), value, path)
        kinds = {kind: a for a in arguments for kind in typing.get_args(typing.get_type_hints(a)["kind"])}
        if not isinstance(value, Mapping) or "kind" not in value:
            self.fail(path, f"expected a section with a key 'kind', one of {', '.join(kinds)}", value)
        kind = str(self.choice(tuple(kinds), value["kind"], f"{path}.kind"))
        for key in value:
            others = [other for other in kinds if _has_field(kinds[other], key)]
            if others and kind not in others:
                self.fail(f"{path}.{key}", f"is for kind={' or '.join(map(repr, others))}, not for {kind!r}",
                          _first_raw(value[key]))
        return self.dataclass(kinds[kind], value, path)

    def section(self, value: Any, path: str) -> Any:
        """`value`, or the mapping of a section typed on the command line."""
        written = self.literal(value, path) if isinstance(value, Raw) else value
        return written if isinstance(written, Mapping) else value

    def choice(self, choices: tuple, value: Any, path: str) -> Any:
        """One of several literals."""
        if isinstance(value, Raw):  # on the command line, numbers and bools are text
            value = next((choice for choice in choices if str(choice) == value
                          or (isinstance(choice, bool) and str(choice) == value.capitalize())), value)
        if value not in choices:
            meant = KINDS.get(str(value).lower())
            if meant not in choices:
                meant, = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.0)
            self.fail(path, f"must be one of {', '.join(map(repr, choices))}, got {str(value)!r} (did you mean {meant!r}?)", value)
        return choices[choices.index(value)]

    def mapping(self, item: Any, value: Any, path: str) -> dict:
        """A section of named entries."""
        if isinstance(value, Raw):
            value = self.literal(value, path)
        if not isinstance(value, Mapping):
            self.fail(path, f"expected a section of named entries, got {value!r}", value)
        for key in value:
            if not isinstance(key, str) or not key:
                self.fail(path, f"names must be text, got {key!r}")
        entries = {}
        for key, entry in value.items():
            if _is_none(entry) and any(sections_in(item)):
                continue  # None removes an entry
            with self.problems.noted():
                entries[key] = self.value(item, entry, f"{path}.{key}")
        return entries

    def sequence(self, arguments: tuple, value: Any, path: str) -> tuple:
        """A tuple; a single value is a tuple of one."""
        given = value
        if isinstance(value, Raw):
            value = str(value) if value == "{}" else self.literal(value, path)  # a prompt, not an empty section
        if isinstance(value, (str, bytes)) or not isinstance(value, (tuple, list)):
            value = (value,)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(self.value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            self.fail(path, f"expected {len(arguments)} values, got {len(value)}: {value!r}", given)
        return tuple(self.value(kind, item, f"{path}[{i}]")
                     for i, (kind, item) in enumerate(zip(arguments, value, strict=True)))

    def literal(self, value: Raw, path: str) -> Any:
        """The Python literal of a command-line value; bare words are text."""
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            if "{}" in value and value[:1] not in "([{\"'":  # a prompt
                return str(value)
            if any(mark in value for mark in "()[]{}\"'"):
                self.fail(path, f"cannot be read as a Python literal: {value!s}", value)
            return tuple(value.split(",")) if "," in value else str(value)

    def scalar(self, hint: type, value: Any, path: str) -> Any:
        """An int, float, bool or text."""
        if isinstance(value, Mapping) and value:
            self.fail(path, f"is a single value and has no key {next(iter(value))!r}", _first_raw(value))
        parsed = _from_text(hint, value) if isinstance(value, Raw) else value
        if hint is float and isinstance(parsed, int) and not isinstance(parsed, bool):
            parsed = float(parsed) if abs(parsed) <= LARGEST else math.inf
        if not isinstance(parsed, hint) or (hint is int and isinstance(parsed, bool)):
            self.fail(path, f"expected {_NAMES[hint]}, got {str(value)!r}", value)
        if hint is float and not math.isfinite(parsed):
            self.fail(path, f"expected a finite number, got {parsed}", value)
        if hint is int and abs(parsed) > LARGEST:
            self.fail(path, f"must be at most {LARGEST}, got {parsed}", value)
        return parsed


def with_kind(field: dataclasses.Field, value: Any) -> Any:
    """`value`; a section without a kind gets the field's default kind."""
    if "kind" not in field.metadata or not isinstance(value, Mapping):
        return value
    return {"kind": field.metadata["kind"], **value}


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, Raw) and value.lower() == "none")


def _has_field(kind: type, name: str) -> bool:
    return any(field.name == name for field in dataclasses.fields(kind))


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _from_text(hint: type, text: str) -> Any:
    if hint is str:
        return str(text)
    if hint is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    try:
        return hint(text)
    except ValueError:
        return text


def _first_raw(value: Any) -> Any:
    """A command-line value inside `value`, so that a message quotes the override and not the file."""
    while isinstance(value, Mapping) and value:
        value = next(iter(value.values()))
    return value
