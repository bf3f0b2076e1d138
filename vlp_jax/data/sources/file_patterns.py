"""File patterns of sources, expanded to sorted paths: `{000000..000331}`, `{a,b}`, `*`, `?`,
`[...]`.

An existing file whose name equals the pattern is used as it is. `%7B` and `%7D` are braces that
belong to a name.
"""

import glob
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vlp_jax.data.sources.filesystem import is_folder, refuse_remote, remote_matches, scheme_of
from vlp_jax.errors import DataError

WEB = ("http", "https")
MOST_NAMES = 1_000_000  # that braces may expand to
DIGITS = 15  # of a number in a brace; a longer one is too large in any case
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_INNERMOST = re.compile(r"\{([^{}]*)\}")


def expand_braces(pattern: str) -> list[str]:
    """Every string of a brace pattern, each once, in order.

    `{0..3}` is a range and `{a,b}` a list; a pattern may have several of both.

    Raises:
      DataError: if a brace is left open, or is neither an ascending range nor a list.
    """
    match = _INNERMOST.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(
                f"{pattern}: a brace is left open; write %7B and %7D for braces that "
                "belong to a name"
            )
        return [pattern]
    check_number(pattern)
    expanded = []
    for choice in _choices(match.group(1), pattern):
        expanded += expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])
    return list(dict.fromkeys(expanded))


def check_number(pattern: str) -> None:
    """Counts the names of a brace pattern before any is created.

    Raises:
      DataError: if there are more than MOST_NAMES.
    """
    rest, names = pattern, 1
    while match := _INNERMOST.search(rest):
        counted = _RANGE.fullmatch(match.group(1))
        if counted is None:
            names *= match.group(1).count(",") + 1
        else:
            first, last = (int(number.lstrip("0")[:DIGITS] or "0") for number in counted.groups())
            names *= max(1, last - first + 1)
        if names > MOST_NAMES:
            shown = pattern if len(pattern) <= 200 else f"{pattern[:200]}..."
            raise DataError(
                f"{shown}: its braces expand to at least {names:,} names, and at "
                f"most {MOST_NAMES:,} are expanded; name fewer, or use a glob (*)"
            )
        rest = rest[: match.start()] + rest[match.end() :]


def _choices(inside: str, pattern: str) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        if "," not in inside:
            raise DataError(
                f"{pattern}: {{{inside}}} is neither a range like {{000..331}} nor a "
                "list like {a,b}; write %7B and %7D for braces that belong to a name"
            )
        return inside.split(",")
    first, last = counted.groups()
    if int(first) > int(last):
        raise DataError(f"{pattern}: the range {{{inside}}} runs backwards")
    padded = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [str(number).zfill(padded) for number in range(int(first), int(last) + 1)]


def find_files(pattern: str, kind: str, remote: bool = False) -> list[str]:
    """The sorted files of a pattern.

    Every file that a brace names must exist; a glob must match something.

    Args:
      pattern: path or URL with braces and globs.
      kind: kind of the source.
      remote: whether the kind reads URLs, by fsspec.

    Raises:
      DataError: naming the pattern, the first missing file and how many were found.
    """
    spec = f"{kind}:{pattern}"
    if not remote:
        refuse_remote(pattern, spec)
    given = os.path.expanduser(pattern)
    literal = scheme_of(given) is None and os.path.isfile(given)
    path = without_query(given)  # the query of a URL may contain braces too
    expanded = (
        [given]
        if literal
        else [_with_braces(name) + given[len(path) :] for name in expand_braces(path)]
    )
    try:
        matches = dict(zip(expanded, _matches(expanded), strict=True))
    except DataError as error:
        raise DataError(f"{spec}: {error.args[0]}") from error
    missing = [name for name in expanded if not matches[name]]
    if missing and len(expanded) == 1:
        raise DataError(
            f"{spec}: {'no file matches' if glob.has_magic(pattern) else 'no such file'}"
        )
    if missing:
        shards = len(expanded)
        name = os.path.basename(missing[0])
        raise DataError(
            f"{spec}: {name} is missing; {shards - len(missing)} of {shards} shards found"
        )
    found = sorted({path for paths in matches.values() for path in paths})
    for path in found:
        if is_folder(path):
            files = f"{path}/*.{'tar' if kind == 'webdataset' else kind}"
            raise DataError(
                f"{spec}: {path} is a folder, not a file; name the files in it, such as '{files}'"
            )
    return found


def _matches(names: list[str]) -> list[list[str]]:
    """The files of each name. Requests to a remote storage are slow, so many run at once."""
    if scheme_of(names[0]):
        with ThreadPoolExecutor(32) as pool:
            return list(pool.map(remote_matches, names))
    return [
        [name] if os.path.exists(name) else _glob(name) if glob.has_magic(name) else []
        for name in names
    ]


def _glob(pattern: str) -> list[str]:
    """The files of a pattern on this machine.

    `**` matches any folders that are not hidden. A path may be reached in several ways, but none
    enters a folder twice, because links may lead in a circle.
    """
    pattern = f"{pattern}/*" if f"/{pattern}".endswith("/**") else pattern
    before, mark, behind = f"/{pattern}".partition("/**/")
    if not mark:
        return glob.glob(pattern, recursive=True)
    starts = glob.glob(f"{before}/"[1:]) if before else ["/" if pattern.startswith("/") else ""]
    folders = [folder for start in starts for folder in _folders_below(start)]
    return list(
        dict.fromkeys(
            path for folder in folders for path in _glob(f"{glob.escape(folder)}{behind}")
        )
    )


def _folders_below(start: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """A folder and all below it, each with a slash at its end."""
    try:
        status = os.stat(start or ".")
        identity = status.st_dev, status.st_ino
        if identity in above:
            return
        with os.scandir(start or ".") as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and _is_folder(entry)
            )
    except OSError:
        return
    yield start
    for name in names:
        yield from _folders_below(f"{start}{name}/", above | {identity})


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _with_braces(name: str) -> str:
    """A name with its escaped braces restored, unless a web server expects them escaped or such a
    file exists."""
    if scheme_of(name) in WEB or not scheme_of(name) and os.path.exists(name):
        return name
    return name.replace("%7B", "{").replace("%7D", "}")


def without_query(path: str) -> str:
    """A path, or a URL without its query (for example a signature)."""
    return path.partition("?")[0].partition("#")[0] if scheme_of(path) in WEB else path


def short_names(paths: list[str]) -> list[str]:
    """The paths without the folders that all of them share."""
    parts = [path.split("/") for path in paths]
    shared = len(os.path.commonprefix([folders for *folders, _ in parts]))
    return ["/".join(path[shared:]) for path in parts]
