"""File patterns of sources: `{000000..000331}`, `{a,b}`, `*`, `?`, `[...]`, always to sorted paths."""

import glob
import os
import re

from vlp_jax.errors import DataError

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def expand_braces(pattern: str) -> list[str]:
    """Every string a brace pattern stands for, each once, in order; `{0..3}` counts, `{a,b}` lists, both may repeat.

    Raises: DataError for a brace left open or one that is neither a range upwards nor a list.
    """
    match = _INNERMOST.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(f"{pattern}: a brace is left open")
        return [pattern]
    expanded = []
    for choice in _choices(match.group(1), pattern):
        expanded += expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])
    return list(dict.fromkeys(expanded))


def _choices(inside: str, pattern: str) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        if "," not in inside:
            raise DataError(f"{pattern}: {{{inside}}} is neither a range like {{000..331}} nor a list like {{a,b}}")
        return inside.split(",")
    first, last = counted.groups()
    if int(first) > int(last):
        raise DataError(f"{pattern}: the range {{{inside}}} runs backwards")
    padded = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [str(number).zfill(padded) for number in range(int(first), int(last) + 1)]


def find_files(pattern: str, kind: str) -> list[str]:
    """The sorted files of a pattern. Every file a brace names must exist; a glob must match something.

    Raises: DataError naming the pattern, the first missing file and how many were found.
    """
    spec = f"{kind}:{pattern}"
    if _REMOTE.match(pattern):
        raise DataError(f"{spec}: only local paths are read; mount the bucket and give the mounted path")
    found, missing = set(), []
    expanded = expand_braces(os.path.expanduser(pattern))
    for name in expanded:
        matches = [name] if os.path.exists(name) else glob.glob(name) if glob.has_magic(name) else []
        found.update(matches)
        if not matches:
            missing.append(name)
    if missing and len(expanded) == 1:
        raise DataError(f"{spec}: {'no file matches' if glob.has_magic(pattern) else 'no such file'}")
    if missing:
        shards = len(expanded)
        name = os.path.basename(missing[0])
        raise DataError(f"{spec}: {name} is missing; {shards - len(missing)} of {shards} shards found")
    for path in sorted(found):
        if os.path.isdir(path):
            raise DataError(f"{spec}: {path} is a folder, not a file; name the files in it, such as '{path}/*.tar'")
    return sorted(found)
