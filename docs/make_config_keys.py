"""Writes docs/config_keys.md, every key of a config from the dataclasses that declare them: `python docs/make_config_keys.py`

A key's meaning is the comment behind its field or above it, a section's the docstring of its dataclass. To accept a change of a
dataclass, run the script again.
"""

import ast
import dataclasses
import functools
import inspect
import io
import math
import pathlib
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from vlp_jax.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]


NAME = "NAME"  # in a key: the name of an entry, which a config chooses
NAMES = {int: "int", float: "float", bool: "bool", str: "str"}
HEAD = """# Config keys

Written by `python docs/make_config_keys.py` from the dataclasses of the sections; do not edit.

Every key can be set in a config file (`config.optimizer.learning_rate = 1e-3`) and on the command line
(`--config.optimizer.learning_rate=1e-3`). `NAME` is a name that the config chooses, such as `contrastive` in
`objectives.contrastive.kind`. Where a section has a `kind`, each kind has a table of its own. The range includes both ends.
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A table of the page.

    Attributes:
      path: the dotted key of the section, "" for the config itself.
      declaration: the dataclass.
      kind: the value of its key `kind`, where the section may have several.
      shown_as: the earlier path whose table has the same keys, None: this one's are shown here.
    """

    path: str
    declaration: type
    kind: str | None = None
    shown_as: str | None = None

    @property
    def title(self) -> str:
        name = self.path or "The config itself"
        return name if self.kind is None else f"{name}, kind {self.kind}"

    @property
    def anchor(self) -> str:
        """The fragment that MkDocs and GitHub give to the heading."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")


def sections(declaration: type = Experiment, path: str = "", kind: str | None = None,
             shown: dict[type, str] | None = None) -> Iterator[Section]:
    """All sections, each before those inside it."""
    shown = {} if shown is None else shown
    yield Section(path, declaration, kind, shown.get(declaration))
    if declaration in shown:
        return
    shown[declaration] = path
    for field in dataclasses.fields(declaration):
        key, kinds = inner(type_of(declaration, field.name), joined(path, field.name))
        for each in kinds:
            yield from sections(each, key, kind_of(each), shown)


def inner(hint: Any, key: str) -> tuple[str, list[type]]:
    """The key and the dataclasses of the section that a field of this type holds, none for a value."""
    if hasattr(hint, "kinds"):
        return key, [*hint.kinds.values()]
    if dataclasses.is_dataclass(hint):
        return key, [hint]
    if typing.get_origin(hint) is dict:
        return inner(typing.get_args(hint)[1], joined(key, NAME))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for found in (inner(argument, key) for argument in typing.get_args(hint)) if found[1]), (key, []))
    return key, []


def has_key(dotted: str, declaration: type = Experiment) -> bool:
    """Whether a config may have this key; `*` and names in capitals are any key of a section."""
    first, _, rest = dotted.partition(".")
    if declaration is Experiment and first == "stages":
        return has_key(rest.partition(".")[2])
    names = [field.name for field in dataclasses.fields(declaration) if first in ("*", field.name)]
    return any(_leads_to(type_of(declaration, name), rest) for name in names)


def _leads_to(hint: Any, rest: str) -> bool:
    """Whether a value of this type has the key `rest`; "" is the value itself."""
    if not rest:
        return True
    if hasattr(hint, "kinds"):
        return rest == "kind" or any(has_key(rest, kind) for kind in hint.kinds.values())
    if dataclasses.is_dataclass(hint):
        return has_key(rest, hint)
    if typing.get_origin(hint) is dict:
        return _leads_to(typing.get_args(hint)[1], rest.partition(".")[2])
    return any(_leads_to(each, rest) for each in typing.get_args(hint) if isinstance(each, type) or typing.get_origin(each))


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@functools.cache
def hints_of(declaration: type) -> dict[str, Any]:
    return typing.get_type_hints(declaration)


def type_of(declaration: type, name: str) -> Any:
    return hints_of(declaration)[name]


def kind_of(declaration: type) -> str | None:
    """The value of its key `kind`, where its section has several kinds."""
    return declaration.kinds.name_of(declaration) if hasattr(declaration, "kinds") else None


def text() -> str:
    """docs/config_keys.md."""
    every = list(sections())
    first = {section.path: section.anchor for section in reversed(every)}
    index = ", ".join(f"[{path or 'the config itself'}](#{first[path]})" for path in dict.fromkeys(each.path for each in every))
    index = textwrap.fill(f"Sections: {index}.", 132, break_long_words=False, break_on_hyphens=False)
    return "\n".join([HEAD, f"{index}\n", *(page_of(section, every) for section in every)])


def page_of(section: Section, every: list[Section]) -> str:
    """Heading, docstring and table of one section."""
    lines = [f"## {section.title}", ""]
    if section.shown_as is not None:
        return "\n".join([*lines, f"The keys of {link(section.shown_as, every)}.", ""])
    lines += [escaped(line) for line in inspect.getdoc(section.declaration).splitlines()]
    lines += ["", "| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    fields = dataclasses.fields(section.declaration)
    if section.kind is not None and "kind" not in {field.name for field in fields}:
        lines.append(f"| {code(joined(section.path, 'kind'))} | one of {code(section.kind)} | {code(section.kind)} |  |  |")
    lines += [row_of(section, field, every) for field in fields]
    return "\n".join([*lines, ""])


def link(path: str, every: list[Section]) -> str:
    """To the first table of a path."""
    found = next(section for section in every if section.path == path)
    return f"[{path}](#{found.anchor})"


def row_of(section: Section, field: dataclasses.Field, every: list[Section]) -> str:
    """One key's line of a table."""
    key, hint = joined(section.path, field.name), type_of(section.declaration, field.name)
    below, kinds = inner(hint, key)
    meaning = comments(section.declaration).get(field.name, "")
    if kinds:
        kind = f"section {link(below, every)}" + (" or None" if type(None) in typing.get_args(hint) else "")
    else:
        kind = type_text(hint)
    return f"| {code(key)} | {kind} | {default_text(field, bool(kinds))} | {range_text(field)} | {escaped(meaning)} |"


def type_text(hint: Any) -> str:
    """A type in words: "int or None", "one of `a`, `b`"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if origin is Literal:
        return "one of " + ", ".join(code(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in arguments)
    if origin is dict:
        return f"mapping of names to {type_text(arguments[1])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"tuple of {type_text(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(type_text(argument) for argument in arguments)})"
    return NAMES[hint]


def default_text(field: dataclasses.Field, is_section: bool) -> str:
    """The default as it is written in a config, nothing for a section that is there by default."""
    if field.default is dataclasses.MISSING:
        return "" if is_section else code({} if field.default_factory is dict else field.default_factory())
    return code(number_text(field.default))


def number_text(value: Any) -> Any:
    """Floats of at most six digits where they have more than eight."""
    if isinstance(value, float):
        return Written(f"{value:.6g}" if len(repr(value)) > 10 else repr(value))
    if isinstance(value, tuple) and value and all(isinstance(each, float) for each in value):
        return Written(f"({', '.join(str(number_text(each)) for each in value)})")
    return value


class Written(str):
    """Text that is shown without quotation marks."""


def range_text(field: dataclasses.Field) -> str:
    """The range of a number: "0 to 1", "at least 1", "above 0"."""
    if "excluded" in field.metadata:
        return f"above {field.metadata['excluded']:g}"
    low, high = (None if end is None else limit_text(end) for end in field.metadata.get("range", (None, None)))
    if low is None:
        return "" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def limit_text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}" if math.isfinite(value) else str(value)


def code(value: Any) -> str:
    """A value in a code span; one with a bar in a table needs the element."""
    written = str(value) if isinstance(value, Written | str) and value else repr(value)
    if "|" in written:
        return "<code>" + written.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;") + "</code>"
    return f"`{written}`"


def escaped(prose: str) -> str:
    """Prose in Markdown: what looks like an element, a bar and a star are shown as they are, but in code spans."""
    parts = prose.split("`")
    for i in range(0, len(parts), 2):
        for mark in "*_":
            parts[i] = parts[i].replace(mark, f"\\{mark}")
        parts[i] = parts[i].replace("<", "&lt;").replace("|", "\\|")
    return "`".join(parts)


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
            is_alone = not token.line[:token.start[1]].strip()
            (alone if is_alone else behind)[token.start[0]] = token.string.lstrip("#").strip()
    return {node.name: {field.target.id: comment_of(field, behind, alone)
                        for field in node.body if isinstance(field, ast.AnnAssign)}
            for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def comment_of(field: ast.AnnAssign, behind: dict[int, str], alone: dict[int, str]) -> str:
    """The comment lines right above a field and those behind its lines, as one text."""
    above, line = [], field.lineno - 1
    while line in alone:
        above.insert(0, alone[line])
        line -= 1
    own = [behind[line] for line in range(field.lineno, field.end_lineno + 1) if line in behind]
    return " ".join([" ".join(above), *own]).strip()


if __name__ == "__main__":
    (ROOT / "docs/config_keys.md").write_text(text())
