"""Sections of a config as nested dictionaries, and the types of their fields."""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any


def to_tree(config: Any) -> Any:
    """The nested dictionaries, lists and scalars that `to_config` takes, ready for JSON."""
    if dataclasses.is_dataclass(config):
        kind = {"kind": config.kind} if hasattr(config, "kinds") else {}
        return kind | {
            field.name: to_tree(getattr(config, field.name)) for field in dataclasses.fields(config)
        }
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


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)
