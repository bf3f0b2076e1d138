"""Dataclass fields of the schema."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def between(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with an allowed range, both ends included; None leaves an end open.

    The range is of each number where the field has several.
    """
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def positive(default: Any) -> Any:
    """A dataclass field of a number above 0."""
    return dataclasses.field(default=default, metadata={"range": (0.0, None), "excluded": 0.0})


def section(default: Any) -> Any:
    """A dataclass field with a nested section or a mapping; `default` is called to create it."""
    return dataclasses.field(default_factory=default)


def with_kind(field: dataclasses.Field, value: Any) -> Any:
    """`value`; a section without a kind gets the field's default kind."""
    if "kind" not in field.metadata or not isinstance(value, Mapping):
        return value
    return {"kind": field.metadata["kind"], **value}
