"""Every key of a config with its type, default, range and meaning, read from the dataclasses that
declare them.

A key's meaning is the comment behind its field or above it, a section's the docstring of its
dataclass.
"""

import ast
import dataclasses
import functools
import io
import math
import pathlib
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from vlp_jax.config.tree import hints_of

NAME = "NAME"  # in a key: the name of an entry, which a config chooses
NAMES = {int: "int", float: "float", bool: "bool", str: "str"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
      path: dotted, with NAME for the names of entries.
      type: in words, "int or None".
      default: as it is written in a config; "" for a section and for a required key.
      range: in words, "at least 1"; "" where any value is allowed.
      meaning: the comment at its field.
      section: the path of the section that it holds; None for a value.
    """

    path: str
    type: str
    default: str
    range: str
    meaning: str
    section: str | None = None


@dataclasses.dataclass(frozen=True)
class DescribedSection:
    """A section and its keys.

    Attributes:
      path: the dotted key of the section, "" for the config itself.
      declaration: its dataclass.
      kind: the value of its key `kind`, where it has one.
      same_as: the earlier path with the same dataclass, None for the first one.
    """

    path: str
    declaration: type
    kind: str | None = None
    same_as: str | None = None

    @property
    def keys(self) -> list[Key]:
        """All keys of the section, `kind` first."""
        fields = [described(self, field) for field in dataclasses.fields(self.declaration)]
        if self.kind is None:
            return fields
        default = repr(self.kind) if self.declaration.kinds else ""
        return [
            Key(
                joined(self.path, "kind"),
                "str",
                default,
                "",
                "selects this kind; or module:Class of your own",
            ),
            *fields,
        ]


def sections(
    declaration: type, path: str = "", kind: str | None = None, shown: dict[type, str] | None = None
) -> Iterator[DescribedSection]:
    """All sections of a config, each before those inside it.

    Args:
      declaration: the dataclass of the whole config.
      path, kind, shown: of a section inside.
    """
    shown = {} if shown is None else shown
    yield DescribedSection(path, declaration, kind, shown.get(declaration))
    if declaration in shown:
        return
    shown[declaration] = path
    for name, hint in hints_of(declaration).items():
        key, kinds = inner(hint, joined(path, name))
        for each in kinds if name in fields_of(declaration) else ():
            yield from sections(each, key, kind_of(each), shown)


def inner(hint: Any, key: str) -> tuple[str, list[type]]:
    """The key and the dataclasses of the section that a field of this type holds, none for a
    value."""
    if hasattr(hint, "kinds"):
        return key, [*hint.kinds.values()] or [hint]
    if dataclasses.is_dataclass(hint):
        return key, [hint]
    if typing.get_origin(hint) is dict:
        return inner(typing.get_args(hint)[1], joined(key, NAME))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(
            (found for argument in typing.get_args(hint) if (found := inner(argument, key))[1]),
            (key, []),
        )
    return key, []


def fields_of(declaration: type) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass by name."""
    return {field.name: field for field in dataclasses.fields(declaration)}


def kind_of(declaration: type) -> str | None:
    """The value of its key `kind`, where its section has several kinds."""
    if not hasattr(declaration, "kinds"):
        return None
    return declaration.kinds.name_of(declaration) if declaration.kinds else "module:Class"


def joined(path: str, name: str) -> str:
    """A key of a section as a dotted path."""
    return f"{path}.{name}" if path else name


def described(section: DescribedSection, field: dataclasses.Field) -> Key:
    """One key of a section."""
    hint, key = hints_of(section.declaration)[field.name], joined(section.path, field.name)
    below, kinds = inner(hint, key)
    words = (
        "section" + (" or None" if type(None) in typing.get_args(hint) else "")
        if kinds
        else type_words(hint)
    )
    return Key(
        key,
        words,
        default_words(field, is_section=bool(kinds)),
        range_words(field),
        comments(section.declaration).get(field.name, ""),
        below if kinds else None,
    )


def type_words(hint: Any) -> str:
    """A type in words: "int or None", "one of 'a', 'b'"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_words, arguments))
    if origin is dict:
        return f"mapping of names to {type_words(arguments[1])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"tuple of {type_words(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(map(type_words, arguments))})"
    return NAMES[hint]


def default_words(field: dataclasses.Field, *, is_section: bool = False) -> str:
    """The default as it is written in a config, "" for a section that is there by default."""
    if field.default is not dataclasses.MISSING:
        return number_words(field.default)
    factory = field.default_factory
    if is_section or factory is dataclasses.MISSING:
        return ""
    return repr({} if factory is dict else factory())


def number_words(value: Any) -> str:
    """A value as it is written; floats with at most six digits where they have more than eight."""
    if isinstance(value, float):
        return f"{value:.6g}" if len(repr(value)) > 10 else repr(value)
    if isinstance(value, tuple) and value and all(isinstance(each, float) for each in value):
        return f"({', '.join(map(number_words, value))})"
    return repr(value)


def range_words(field: dataclasses.Field) -> str:
    """The range of a number: "0 to 1", "at least 1", "above 0"."""
    if "excluded" in field.metadata:
        return f"above {field.metadata['excluded']:g}"
    low, high = (
        None if end is None else limit_words(end)
        for end in field.metadata.get("range", (None, None))
    )
    if low is None:
        return "" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def limit_words(value: float) -> str:
    """An end of a range."""
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def comments(declaration: type) -> dict[str, str]:
    """The comment of each field of a dataclass and its bases: above it, then behind it."""
    found: dict[str, str] = {}
    for each in reversed(declaration.__mro__):
        if dataclasses.is_dataclass(each):
            found |= file_comments(sys.modules[each.__module__].__file__).get(each.__name__, {})
    return found


@functools.cache
def file_comments(file: str) -> dict[str, dict[str, str]]:
    """{class: {field: comment}} of a module."""
    source = pathlib.Path(file).read_text()
    behind, alone = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_alone = not token.line[: token.start[1]].strip()
            (alone if is_alone else behind)[token.start[0]] = token.string.lstrip("#").strip()
    return {
        node.name: {
            field.target.id: comment_of(field, behind, alone)
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def comment_of(field: ast.AnnAssign, behind: dict[int, str], alone: dict[int, str]) -> str:
    """The comment lines right above a field and those behind its lines, as one text."""
    above, line = [], field.lineno - 1
    while line in alone:
        above.insert(0, alone[line])
        line -= 1
    own = [
        behind[line]
        for line in range(field.lineno, (field.end_lineno or field.lineno) + 1)
        if line in behind
    ]
    return " ".join([" ".join(above), *own]).strip()
