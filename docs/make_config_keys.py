"""Writes docs/config_keys.md, every key of a config from the dataclasses that declare them: `python
docs/make_config_keys.py`

To accept a change of a dataclass, run the script again.
"""

import dataclasses
import inspect
import pathlib
import re
import sys
import textwrap
import typing
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from vlp_jax.config.describe import DescribedSection, Key, sections  # noqa: E402
from vlp_jax.config.parse import hints_of  # noqa: E402
from vlp_jax.experiment import Experiment  # noqa: E402

HEAD = """# Config keys

Written by `python docs/make_config_keys.py` from the dataclasses of the sections; do not edit.

Every key can be set in a config file (`config.optimizer.learning_rate = 1e-3`) and on the command
line (`--config.optimizer.learning_rate=1e-3`). `NAME` is a name that the config chooses, such as
`contrastive` in `objectives.contrastive.kind`. Where a section has a `kind`, each kind has a table
of its own. The range includes both ends. `python -m vlp_jax.inspect --keys [PATTERN]` prints the
same tables.
"""


def title(section: DescribedSection) -> str:
    """The heading of a section's table."""
    name = section.path or "The config itself"
    return name if section.kind is None else f"{name}, kind {section.kind}"


def anchor(section: DescribedSection) -> str:
    """The fragment that MkDocs and GitHub give to the heading."""
    return re.sub(r"[^\w\- ]", "", title(section).lower()).replace(" ", "-")


def has_key(dotted: str, declaration: type = Experiment) -> bool:
    """Whether a config may have this key; `*` and names in capitals are any key of a section."""
    first, _, rest = dotted.partition(".")
    if declaration is Experiment and first == "stages":
        return has_key(rest.partition(".")[2])
    names = [field.name for field in dataclasses.fields(declaration) if first in ("*", field.name)]
    return any(_leads_to(hints_of(declaration)[name], rest) for name in names)


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
    return any(
        _leads_to(each, rest)
        for each in typing.get_args(hint)
        if isinstance(each, type) or typing.get_origin(each)
    )


def text() -> str:
    """docs/config_keys.md."""
    every = list(sections(Experiment))
    first = {section.path: anchor(section) for section in reversed(every)}
    index = ", ".join(
        f"[{path or 'the config itself'}](#{first[path]})"
        for path in dict.fromkeys(each.path for each in every)
    )
    index = textwrap.fill(
        f"Sections: {index}.", 132, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([HEAD, f"{index}\n", *(page_of(section, every) for section in every)])


def page_of(section: DescribedSection, every: list[DescribedSection]) -> str:
    """Heading, docstring and table of one section."""
    lines = [f"## {title(section)}", ""]
    if section.same_as is not None:
        return "\n".join([*lines, f"The keys of {link(section.same_as, every)}.", ""])
    lines += [escaped(line) for line in inspect.getdoc(section.declaration).splitlines()]
    lines += ["", "| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    lines += [row_of(key, every) for key in section.keys]
    return "\n".join([*lines, ""])


def link(path: str, every: list[DescribedSection]) -> str:
    """To the first table of a path."""
    found = next((section for section in every if section.path == path), None)
    return path if found is None else f"[{path}](#{anchor(found)})"


def row_of(key: Key, every: list[DescribedSection]) -> str:
    """One key's line of a table."""
    kind = (
        key.type
        if key.section is None
        else key.type.replace("section", f"section {link(key.section, every)}", 1)
    )
    kind = re.sub(r"'([^']*)'", r"`\1`", kind) if key.section is None else kind
    return (
        f"| {code(key.path)} | {kind} | {code(key.default)} | {key.range} | "
        f"{escaped(key.meaning)} |"
    )


def code(written: str) -> str:
    """A value in a code span; one with a bar in a table needs the element."""
    if "|" in written:
        return (
            "<code>"
            + written.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
            + "</code>"
        )
    return f"`{written}`" if written else ""


def escaped(prose: str) -> str:
    """Prose in Markdown: what looks like an element, a bar and a star are shown as they are, but in
    code spans."""
    parts = prose.split("`")
    for i in range(0, len(parts), 2):
        for mark in "*_":
            parts[i] = parts[i].replace(mark, f"\\{mark}")
        parts[i] = parts[i].replace("<", "&lt;").replace("|", "\\|")
    return "`".join(parts)


if __name__ == "__main__":
    (ROOT / "docs/config_keys.md").write_text(text())
