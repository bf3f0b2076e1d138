"""Dataclass fields of the schema."""

import dataclasses
from typing import Any


def between(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with an allowed range, of each number where it has several; both ends belong to it, None leaves an end
    open."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def positive(default: Any) -> Any:
    """A dataclass field of a number above 0."""
    return dataclasses.field(default=default, metadata={"range": (0.0, None), "excluded": 0.0})


def of_kind(kind: str) -> Any:
    """A dataclass field holding a section of one of several kinds, of `kind` where it names none; there is none by default."""
    return dataclasses.field(default=None, metadata={"kind": kind})


def section(default: Any) -> Any:
    """A dataclass field holding a nested section or a mapping; `default` is called to make it."""
    return dataclasses.field(default_factory=default)
