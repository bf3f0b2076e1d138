"""Turns loose configuration (nested mappings, override strings) into the frozen dataclasses of `schema.py`, or says
in one line which key is wrong, where, and what would be right."""

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlp_jax.config import schema
from vlp_jax.config.graphs import with_box_count
from vlp_jax.config.targets import with_outputs
from vlp_jax.config.unused import check_unused
from vlp_jax.errors import ConfigError

LARGEST = 2**53  # up to which whole numbers are exact in JSON and as floats


class Raw(str):
    """A value as typed on the command line; its meaning depends on the type of the field it is for.

    flag: the whole override, for messages.
    """

    flag: str

    def __new__(cls, path: str, text: str):
        raw = super().__new__(cls, text)
        raw.flag = f"--config.{path}={text}"
        return raw


def to_config(tree: Mapping, place: str = "") -> schema.Config:
    """The checked `Config` of a nested mapping.

    Args:
      tree: what a config file returned, overrides applied.
      place: the file's name, for messages.
    Raises: ConfigError naming the key, the place, and the closest valid key or the allowed values.
    """
    config = _Parser(place).dataclass(schema.Config, tree, "")
    durations = [name for name in ("steps", "examples", "epochs") if getattr(config, name) is not None]
    if len(durations) != 1:
        found = " and ".join(durations) or "none of them"
        raise ConfigError(f"steps, examples, epochs: set exactly one (found {found}){_at(place)}")
    if config.ema == 1.0:
        raise ConfigError(f"ema: an average of decay 1 never changes; it must be below 1, such as 0.9999{_at(place)}")
    if not config.objectives:
        raise ConfigError(f"objectives: at least one is needed, such as contrastive.kind='softmax'{_at(place)}")
    for name, origin in config.pretrained.items():
        if (origin.workdir is None) == (origin.stage is None):
            raise ConfigError(f"pretrained.{name}: set either workdir, the folder of a run, or stage, an earlier stage{_at(place)}")
    check_unused(config, place)
    return with_box_count(with_outputs(config, place), place)


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
    """{"a": {"b": 1}} -> {"a.b": 1}; sequences stay whole."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def apply_overrides(tree: dict, overrides: Sequence[tuple[str, str]]) -> dict:
    """`tree` with dotted overrides from the command line; setting one duration unsets the others."""
    for path, text in overrides:
        if path in ("steps", "examples", "epochs"):
            tree |= dict(steps=None, examples=None, epochs=None)
        *parents, last = path.split(".")
        node = tree
        for depth, parent in enumerate(parents):
            if node.get(parent) is None:  # also a section that is not there, which its first key makes
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise ConfigError(f"{'.'.join(parents[:depth + 1])}: is a single value and has no key "
                                  f"{'.'.join([*parents, last][depth + 1:])!r} (--config.{path})")
        node[last] = Raw(path, text)
    return tree


def _at(place: str) -> str:
    return f" [{place}]" if place else ""


class _Parser:
    """One walk over a mapping; `place` stands in every message."""

    def __init__(self, place: str):
        self.place = place

    def fail(self, path: str, text: str, value: Any = None) -> typing.NoReturn:
        place = ", ".join(part for part in (value.flag if isinstance(value, Raw) else "", self.place) if part)
        raise ConfigError(f"{path}: {text}{_at(place)}")

    def dataclass(self, kind: type, tree: Any, path: str) -> Any:
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
            where = f"{path}.{key}" if path else key
            if key not in fields:
                closest = difflib.get_close_matches(key, list(fields), n=1, cutoff=0.0)[0]
                self.fail(where, f"unknown key (did you mean {closest!r}?)", _first_raw(value))
            values[key] = self.value(hints[key], with_kind(fields[key], value), where)
            self.check_range(fields[key], values[key], where, value)
        return kind(**values)

    def check_range(self, field: dataclasses.Field, parsed: Any, path: str, given: Any) -> None:
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
        if type(None) in arguments:
            if value is None or (isinstance(value, Raw) and value.lower() == "none"):
                return None
            arguments = tuple(a for a in arguments if a is not type(None))
        if len(arguments) == 1:
            return self.value(arguments[0], value, path)
        value = self.section(value, path)
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
        """`value`, and of a section typed on the command line its keys."""
        written = self.literal(value, path) if isinstance(value, Raw) else value
        return written if isinstance(written, Mapping) else value

    def choice(self, choices: tuple, value: Any, path: str) -> Any:
        if isinstance(value, Raw):  # a number among the choices is text on the command line
            value = next((choice for choice in choices if str(choice) == value), value)
        if value not in choices:
            closest = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1, cutoff=0.0)
            self.fail(path, f"must be one of {', '.join(map(repr, choices))}, got {str(value)!r} "
                            f"(did you mean {closest[0]!r}?)", value)
        return choices[choices.index(value)]

    def mapping(self, item: Any, value: Any, path: str) -> dict:
        if isinstance(value, Raw):
            value = self.literal(value, path)
        if not isinstance(value, Mapping):
            self.fail(path, f"expected a section of named entries, got {value!r}", value)
        for key in value:
            if not isinstance(key, str) or not key:
                self.fail(path, f"names must be text, got {key!r}")
        return {key: self.value(item, entry, f"{path}.{key}") for key, entry in value.items()}

    def sequence(self, arguments: tuple, value: Any, path: str) -> tuple:
        given = value
        if isinstance(value, Raw):
            value = self.literal(value, path)
        if isinstance(value, (str, bytes)) or not isinstance(value, (tuple, list)):
            value = (value,)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(self.value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            self.fail(path, f"expected {len(arguments)} values, got {len(value)}: {value!r}", given)
        return tuple(self.value(kind, item, f"{path}[{i}]")
                     for i, (kind, item) in enumerate(zip(arguments, value, strict=True)))

    def literal(self, value: Raw, path: str) -> Any:
        """The Python literal behind a command-line value; bare words are text."""
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            if any(mark in value for mark in "()[]{}\"'"):
                self.fail(path, f"cannot be read as a Python literal: {value!s}", value)
            return tuple(value.split(",")) if "," in value else str(value)

    def scalar(self, hint: type, value: Any, path: str) -> Any:
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
    """`value`, and where it is a section without a kind, the field's usual one."""
    if "kind" not in field.metadata or not isinstance(value, Mapping):
        return value
    return {"kind": field.metadata["kind"], **value}


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
    """A command-line value inside `value`, so that a message can quote the override and not the file."""
    while isinstance(value, Mapping) and value:
        value = next(iter(value.values()))
    return value
