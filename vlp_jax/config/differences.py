"""The differences of an experiment from the defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlp_jax.config.tree import to_tree


def differences(section: Any, default: Any = None) -> dict[str, Any]:
    """The tree of `to_tree`, reduced to the fields whose value is not the default.

    Args:
      section: a dataclass of the schema.
      default: the same section at its default; None, or a section of another class:
        `type(section)()`.
    Returns: nested dictionaries, lists and scalars without the unchanged fields. An entry of a
      mapping is kept even if it has no differences, and a section with a `kind` keeps it, since
      `to_config` needs it to choose the class.
    """
    chosen = type(default) is not type(section)
    default = type(section)() if chosen else default
    tree = {}
    for field in dataclasses.fields(section):
        value, usual = getattr(section, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            inner = differences(value, usual)
            if inner or usual is None:
                tree[field.name] = inner
        elif isinstance(value, Mapping):
            if value != usual:
                tree[field.name] = {key: _entry(entry) for key, entry in value.items()}
        elif value != usual:
            tree[field.name] = to_tree(value)
    if hasattr(section, "kind") and (chosen or tree):
        tree["kind"] = section.kind
    return tree


def _entry(entry: Any) -> Any:
    return differences(entry) if dataclasses.is_dataclass(entry) else to_tree(entry)
