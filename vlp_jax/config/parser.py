"""The walk over a mapping that reads it as a section of a config."""

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal

from vlp_jax.config.fields import with_kind
from vlp_jax.config.frozen import FrozenDict
from vlp_jax.config.overrides import Raw, first_raw, from_text, is_changed, is_none, shared_fields
from vlp_jax.config.problems import Problems
from vlp_jax.config.registry import Kinds, fields_named, outside_class, root_section
from vlp_jax.config.suggestions import KINDS, sections_in, suggestion
from vlp_jax.config.tree import flatten, hints_of, to_tree
from vlp_jax.errors import ConfigError

LARGEST = 2**53  # integers up to this are exact in JSON and as floats
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _at(place: str) -> str:
    return f" [{place}]" if place else ""


class Parser:
    """One walk over a mapping. Problems are added to `problems`, with `place` in every message.

    Unknown keys are compared with those of `root`, the dataclass of the mapping, by default of a
    whole config. `allowed` is as in `registry.outside_class`.
    """

    def __init__(
        self,
        place: str,
        tree: Any = None,
        problems: Problems | None = None,
        root: type | None = None,
        allowed: Collection[str] | None = None,
    ):
        self.place, self.tree, self._root, self.allowed = place, tree, root, allowed
        self.problems = Problems() if problems is None else problems

    @property
    def root(self) -> type:
        """The dataclass of the mapping."""
        return root_section() if self._root is None else self._root

    def fail(self, path: str, text: str, value: Any = None) -> typing.NoReturn:
        """Raises a ConfigError for the key at `path`."""
        place = ", ".join(
            part for part in (value.flag if isinstance(value, Raw) else "", self.place) if part
        )
        raise ConfigError(f"{path}: {text}{_at(place)}")

    def dataclass(self, kind: type, tree: Any, path: str) -> Any:
        """A section as its dataclass."""
        if dataclasses.is_dataclass(tree) and isinstance(tree, kind):
            return tree
        tree = self.section(tree, path)
        if not isinstance(tree, Mapping):
            self.fail(
                path,
                "expected a section with keys "
                f"{', '.join(f.name for f in dataclasses.fields(kind))}, "
                f"got {tree!r}",
                tree,
            )
        hints = hints_of(kind)
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
                self.fail(
                    where,
                    f"unknown key {suggestion(path, siblings, self.root, self.tree, rest)}",
                    single,
                )

    def check_range(self, field: dataclasses.Field, parsed: Any, path: str, given: Any) -> None:
        """Checks a value against the range of its field."""
        if parsed is None or "range" not in field.metadata:
            return
        low, high = field.metadata["range"]
        numbers = parsed if isinstance(parsed, tuple) else (parsed,)
        if field.metadata.get("excluded") in numbers:
            self.fail(path, f"must be above {field.metadata['excluded']:g}, got {parsed}", given)
        if any(
            (low is not None and number < low) or (high is not None and number > high)
            for number in numbers
        ):
            allowed = (
                f"between {low} and {high}"
                if None not in (low, high)
                else f"at least {low}"
                if low is not None
                else f"at most {high}"
            )
            self.fail(path, f"must be {allowed}, got {parsed}", given)

    def value(self, hint: Any, value: Any, path: str) -> Any:
        """A value of the annotated type."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.union(arguments, value, path)
        if hasattr(hint, "kinds"):
            return self.component(hint, value, path)
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
        """An optional value, or values by name or a sequence of them."""
        if type(None) in arguments:
            if is_none(value):
                return None
            arguments = tuple(a for a in arguments if a is not type(None))
        if len(arguments) == 1:
            return self.value(arguments[0], value, path)
        by_name = isinstance(self.section(value, path), Mapping)
        return self.value(
            next(a for a in arguments if (typing.get_origin(a) is dict) == by_name), value, path
        )

    def component(self, base: type, tree: Any, path: str) -> Any:
        """A section of one of several kinds.

        A key of another kind is an error, unless it has that kind's default: a recipe names every
        key. Where the kind is changed on the command line, the keys of the kind before are dropped,
        except those typed there and those that both inherit from one base.
        """
        if isinstance(tree, base):
            return tree
        tree, kinds = self.section(tree, path), base.kinds
        if not isinstance(tree, Mapping) or "kind" not in tree:
            self.fail(path, f"expected a section with a key 'kind', {kinds.choices}", tree)
        kind = self.kind(base, tree["kind"], f"{path}.kind")
        own, changed = (
            {field.name for field in dataclasses.fields(kind)},
            is_changed(tree["kind"], kinds),
        )
        common, keys = shared_fields(kind, tree["kind"], kinds) if changed else set(), {}
        for key, value in tree.items():
            if key == "kind" or (changed and key not in common and not isinstance(value, Raw)):
                continue
            others = {} if key in own else fields_named(key, kinds)
            if not others:
                keys[key] = value
            elif isinstance(value, Raw) or not any(
                to_tree(value) == to_tree(default) for default in others.values()
            ):
                with self.problems.noted():
                    self.fail(
                        f"{path}.{key}",
                        f"is for kind={' or '.join(map(repr, others))}, "
                        f"not for {str(tree['kind'])!r}",
                        first_raw(value),
                    )
        return self.dataclass(kind, keys, path)

    def kind(self, base: type, name: Any, path: str) -> type:
        """The class of a kind, of the table or from outside as "module:Class"."""
        if isinstance(name, str) and ":" in name:
            try:
                return outside_class(str(name), base, self.allowed)
            except ConfigError as error:
                self.fail(path, error.args[0], name)
        if not base.kinds:
            self.fail(path, f"must be {base.kinds.choices}, got {str(name)!r}", name)
        return base.kinds[self.choice(tuple(base.kinds), name, path)]

    def section(self, value: Any, path: str) -> Any:
        """`value`, or the mapping of a section typed on the command line."""
        written = self.literal(value, path) if isinstance(value, Raw) else value
        return written if isinstance(written, Mapping) else value

    def choice(self, choices: tuple, value: Any, path: str) -> Any:
        """One of several literals."""
        if isinstance(value, Raw):  # on the command line, numbers and bools are text
            value = next(
                (
                    choice
                    for choice in choices
                    if str(choice) == value
                    or (isinstance(choice, bool) and str(choice) == value.capitalize())
                ),
                value,
            )
        if value not in choices:
            meant = KINDS.get(str(value).lower())
            if meant not in choices:
                (meant,) = difflib.get_close_matches(
                    str(value), [str(c) for c in choices], n=1, cutoff=0.0
                )
            self.fail(
                path,
                f"must be one of {', '.join(map(repr, choices))}, got {str(value)!r} "
                f"(did you mean {meant!r}?)",
                value,
            )
        return choices[choices.index(value)]

    def mapping(self, item: Any, value: Any, path: str) -> dict:
        """A section of named entries.

        Where entries are of several kinds, one without a kind is of the kind that its name is, and
        a sequence of kinds is the entries of these names with their defaults.
        """
        if isinstance(value, Raw):
            value = self.literal(value, path)
        if hasattr(item, "kinds"):
            value = self.with_kinds(item, value, path)
        if not isinstance(value, Mapping):
            self.fail(path, f"expected a section of named entries, got {value!r}", value)
        for key in value:
            if not isinstance(key, str) or not key:
                self.fail(path, f"names must be text, got {key!r}")
        entries = {}
        for key, entry in value.items():
            if is_none(entry) and any(sections_in(item)):
                continue  # None removes an entry
            with self.problems.noted():
                entries[key] = self.value(item, entry, f"{path}.{key}")
        return FrozenDict(entries)

    def with_kinds(self, item: type, value: Any, path: str) -> Any:
        """Named entries, or a sequence of kinds, as a mapping of entries with kinds."""
        if isinstance(value, (tuple, list)) or (
            isinstance(value, str) and value and not is_none(Raw("", value))
        ):
            names = (value,) if isinstance(value, str) else value
            value = {name: {"kind": name} for name in names if self.kind(item, name, path)}
        if not isinstance(value, Mapping):
            return value
        entries = {name: self.section(entry, f"{path}.{name}") for name, entry in value.items()}
        return {
            name: self.named_kind(name, entry, item.kinds)
            if isinstance(entry, Mapping) and name in item.kinds
            else entry
            for name, entry in entries.items()
        }

    def named_kind(self, name: str, entry: Mapping, kinds: Kinds) -> dict:
        """An entry whose kind is its name where it gives none, or gave none in the config file."""
        if isinstance(kind := entry.get("kind"), Raw) and kind.before is None:
            kind.before = name
        return {"kind": name, **entry}

    def sequence(self, arguments: tuple, value: Any, path: str) -> tuple:
        """A tuple; a single value is a tuple of one."""
        given = value
        if isinstance(value, Raw):
            # a prompt, not an empty section
            value = str(value) if value == "{}" else self.literal(value, path)
        if isinstance(value, (str, bytes)) or not isinstance(value, (tuple, list)):
            value = (value,)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(
                self.value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)
            )
        if len(arguments) != len(value):
            self.fail(path, f"expected {len(arguments)} values, got {len(value)}: {value!r}", given)
        return tuple(
            self.value(kind, item, f"{path}[{i}]")
            for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
        )

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
            self.fail(
                path, f"is a single value and has no key {next(iter(value))!r}", first_raw(value)
            )
        parsed = from_text(hint, value) if isinstance(value, Raw) else value
        if hint is float and isinstance(parsed, int) and not isinstance(parsed, bool):
            parsed = float(parsed) if abs(parsed) <= LARGEST else math.inf
        if not isinstance(parsed, hint) or (hint is int and isinstance(parsed, bool)):
            self.fail(path, f"expected {NAMES[hint]}, got {str(value)!r}", value)
        if hint is float and not math.isfinite(parsed):
            self.fail(path, f"expected a finite number, got {parsed}", value)
        if hint is int and abs(parsed) > LARGEST:
            self.fail(path, f"must be at most {LARGEST}, got {parsed}", value)
        return parsed
