"""Overrides from the command line, `--config.section.key=value`, applied to a nested mapping."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.config.durations import DURATIONS
from vlp_jax.config.problems import Problems
from vlp_jax.config.registry import Kinds, root_section
from vlp_jax.config.suggestions import ENTRY, sections_of_entries
from vlp_jax.errors import ConfigError


class Raw(str):
    """A value as typed on the command line; its meaning depends on the type of its field.

    Attributes:
      flag: the whole override, for messages.
      before: of a section's kind, the kind in the config file, if any.
    """

    flag: str
    before: str | None = None

    def __new__(cls, path: str, text: str) -> "Raw":
        """The text typed for the key `path`."""
        raw = super().__new__(cls, text)
        raw.flag = f"--config.{path}={text}"
        return raw


def apply_overrides(
    tree: dict, overrides: Sequence[tuple[str, str]], problems: Problems | None = None
) -> dict:
    """`tree` with dotted overrides from the command line.

    A duration replaces another one in the tree. `none` removes an entry of a section of named
    entries, such as `evaluators`; a key of an absent entry adds the entry.

    Args:
      tree: a nested mapping; it is changed.
      overrides: (dotted key, text) pairs, applied in order.
      problems: collects invalid overrides; None: they are raised.
    Raises: ConfigError for invalid overrides, without `problems`.
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
    """Sets one key.

    Raises: ConfigError for a key below a single value, and for the removal of an absent entry.
    """
    *parents, last = path.split(".")
    node = tree
    for depth, parent in enumerate(parents):
        node[parent] = node = section_at(
            node.get(parent),
            f"--config.{path}",
            ".".join(parents[: depth + 1]),
            ".".join([*parents, last][depth + 1 :]),
        )
    if text.lower() == "none" and last not in node and is_section_of_entries(".".join(parents)):
        raise ConfigError(
            f"{path}: there is no {last!r} to take out (there are: "
            f"{', '.join(node) or 'none'}) [--config.{path}={text}]"
        )
    raw = Raw(path, text)
    if last == "kind":
        raw.before = getattr(node.get(last), "before", node.get(last))
    node[last] = raw


def is_section_of_entries(path: str) -> bool:
    """Whether the section at a dotted path has entries with names of their own."""
    parts = path.split(".")
    return any(
        len(parts) == len(pattern)
        and all(wanted in (part, ENTRY) for part, wanted in zip(parts, pattern, strict=True))
        for pattern in (known.split(".") for known in sections_of_entries(root_section()))
    )


def section_at(value: Any, flag: str, path: str, rest: str) -> dict:
    """A section as a mutable dictionary.

    An absent or removed section is created empty, one typed as a whole is parsed, and a sequence of
    kinds becomes entries with these names.

    Raises: ConfigError for a single value.
    """
    if isinstance(value, Raw) and value.lower() != "none":
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = str(value)
    if value is None or isinstance(value, Raw):
        return {}
    # kinds, each an entry with its defaults
    if isinstance(value, str | tuple | list) and is_section_of_entries(path):
        return {name: {} for name in (value.split(",") if isinstance(value, str) else value)}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: is a single value and has no key {rest!r} ({flag})")
    return value if isinstance(value, dict) else dict(value)


def is_none(value: Any) -> bool:
    """Whether a value is None, or the word for it as typed on the command line."""
    return value is None or (isinstance(value, Raw) and value.lower() == "none")


def is_changed(kind: Any, kinds: Kinds) -> bool:
    """Whether a section's kind was changed on the command line."""
    return isinstance(kind, Raw) and (kind.before or kinds.default) not in (None, str(kind))


def shared_fields(kind: type, name: Any, kinds: Kinds) -> set[str]:
    """The keys that a class inherits from the same bases as the class of the kind before.

    Args:
      kind: the class.
      name: its kind, as typed on the command line.
      kinds: the table of its section.
    """
    earlier = name.before or kinds.default
    before = kind.__mro__[-2] if earlier is None or earlier not in kinds else kinds[earlier]
    bases = [
        base for base in kind.__mro__ if base in before.__mro__ and dataclasses.is_dataclass(base)
    ]
    return {field.name for base in bases for field in dataclasses.fields(base)}


def from_text(hint: type, text: str) -> Any:
    """An int, float, bool or text as typed; the text itself where it is none of that type."""
    if hint is str:
        return str(text)
    if hint is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    try:
        return hint(text)
    except ValueError:
        return text


def first_raw(value: Any) -> Any:
    """A command-line value inside `value`, so that a message quotes the override and not the
    file."""
    while isinstance(value, Mapping) and value:
        value = next(iter(value.values()))
    return value
