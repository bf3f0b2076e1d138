"""The expected number of samples of a tar, where a file next to it has it.

`sizes.json`, which open_clip reads too, maps the names of tars to their number of samples:
{"00000.tar": 9412, ...}. img2dataset writes `00000_stats.json` for `00000.tar`, in which
`successes` is the number of samples.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vlp_jax.data.sources.file_patterns import short_names
from vlp_jax.data.sources.filesystem import folder_of, join, names_in, read_file
from vlp_jax.errors import DataError

SIZES, STATS = "sizes.json", "_stats.json"
AT_ONCE = 16


def check_counts(paths: list[str], lengths: list[int], spec: str) -> None:
    """Compares the number of samples of each tar with the file next to it.

    Args:
      paths: the tars.
      lengths: number of samples found in each.
      spec: name of the source in messages.

    Raises:
      DataError: for the first tar with fewer samples than expected, and for a file of counts that
        cannot be read.
    """
    for name, (said, by), found in zip(
        short_names(paths), _said(paths, spec), lengths, strict=True
    ):
        if said is not None and found < said:
            raise DataError(
                f"{spec}: {name} holds {found} samples; {by} next to it gives {said}; "
                "was it cut off, or is it still being written?"
            )


def _said(paths: list[str], spec: str) -> Iterator[tuple[int | None, str]]:
    """For every tar the expected number of samples and the file that has it; None where there is no
    such file."""
    names = {folder: set(names_in(folder)) for folder in dict.fromkeys(map(folder_of, paths))}
    sizes = {
        folder: _read(join(folder, SIZES), spec)
        for folder, found in names.items()
        if SIZES in found
    }

    def said(path):
        folder, name = folder_of(path), os.path.basename(path)
        stats = name.removesuffix(".tar") + STATS
        if folder in sizes and name in sizes[folder]:
            return _count(sizes[folder][name]), SIZES
        if stats in names[folder]:
            return _count(_read(join(folder, stats), spec).get("successes")), stats
        return None, ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(said, paths)


def _count(value: Any) -> int | None:
    value = int(value) if isinstance(value, str) and value.isdecimal() else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read(path: str, spec: str) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path))
    except ValueError as error:
        raise DataError(f"{spec}: {path} cannot be read: {error}; fix it or remove it") from error
    return found if isinstance(found, dict) else {}
