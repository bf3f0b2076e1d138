"""The options of a source, `KIND:PATTERN?name=value&name=value`, in one notation for every kind
that has options.

The options begin at the first `?` that is followed by a name and `=`, so a glob may contain `?`
(`part-??.csv?caption=title`). After a URL with its own query they begin at a `#`, which is also
needed, at the end, where there are no options: `https://host/a.tar?key=1#caption=txt`,
`https://host/a.tar?key=1#`.

An option with several values lists them with `|` or is given several times: `?caption=title|alt`
and `?caption=title&caption=alt` are the same. Write `%26`, `%7C`, `%25`, `%09` for `&`, `|`, `%`
and a tab in a value. Blanks are allowed, and a value that is `|` alone is this character. Quote the
whole spec in a shell.
"""

import difflib
import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import unquote

from vlp_jax.errors import DataError

Default = TypeVar("Default")  # of an option

Options = dict[str, tuple[str, ...]]
_START = re.compile(r"\?(?=[A-Za-z_]+=)")
_AFTER_URL = re.compile(r"#(?=[A-Za-z_]+=[^#/]*$|$)")


def split_options(rest: str, kind: str, names: Sequence[str]) -> tuple[str, Options]:
    """The pattern before the options, and the values of each given option.

    Args:
      rest: the spec without `KIND:`.
      kind: the kind, for messages.
      names: the options of the kind.

    Raises:
      DataError: if an option is not one of `names` or has an empty value, or if there is no
        pattern.
    """
    pattern, given = _parts(rest, names)
    spec, options = f"{kind}:{rest}", {}
    for item in given.split("&") if given else ():
        name, _, values = item.partition("=")
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
            query = (
                f"; if it belongs to the URL, begin the options with #: {pattern}?...#"
                if "://" in pattern
                else ""
            )
            raise DataError(
                f"{spec}: unknown option {name!r} (did you mean {nearest!r}?); "
                f"options: {', '.join(names)}{query}"
            )
        found = ("|",) if values == "|" else tuple(map(unquote, values.split("|")))
        if "" in found:
            raise DataError(f"{spec}: option {name!r} has an empty value")
        options[name] = options.get(name, ()) + found
    if not pattern:
        raise DataError(f"{spec}: nothing precedes its options")
    return pattern, options


def _parts(rest: str, names: Sequence[str]) -> tuple[str, str]:
    """The pattern before the options, and the text of the options."""
    marks = [
        mark
        for mark in _AFTER_URL.finditer(rest)
        if mark.end() == len(rest) or rest[mark.end() :].partition("=")[0] in names
    ]
    if marks:
        return rest[: marks[0].start()], rest[marks[0].end() :]
    pattern, *given = _START.split(rest, maxsplit=1)
    return pattern, given[0] if given else ""


def single(options: Options, name: str, default: Default, spec: str) -> str | Default:
    """The value of an option that may have only one.

    Raises:
      DataError: if it has several.
    """
    values = options.get(name, (default,))
    if len(values) > 1:
        raise DataError(f"{spec}: option {name!r} takes one value, not {len(values)}")
    return values[0]


def whole_number(options: Options, name: str, default: int, spec: str) -> int:
    """The value of an option that is a whole number, 1 or more.

    Raises:
      DataError: if it is not.
    """
    value = single(options, name, str(default), spec)
    if not re.fullmatch(r"[0-9]{1,12}", value) or int(value) < 1:
        raise DataError(f"{spec}: option {name!r} is {value!r}; expected a whole number from 1 on")
    return int(value)
