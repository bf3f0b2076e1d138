"""`clip_benchmark:DIR?split=test`: a folder of tars as CLIP_benchmark and DataComp publish them.

DIR has SPLIT/nshards.txt, SPLIT/0.tar, SPLIT/1.tar, ..., and either `classnames.txt` and
`zeroshot_classification_templates.txt`, for images with a .cls, or a `dataset_type.txt` that says
`retrieval`, for images with a .txt that has a caption a line. Classes and templates are those of
`webdataset:`. DIR may be a URL.

Options: `split` (default test), `prompt`.
"""

import re

from vlp_jax.data.layouts.records import Options, single, split_options
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.file_patterns import find_files
from vlp_jax.data.sources.filesystem import MissingFileError, join, read_file
from vlp_jax.data.sources.webdataset import WebDatasetSource
from vlp_jax.errors import DataError

SHARDS, TYPE = "nshards.txt", "dataset_type.txt"
CLASSIFICATION, RETRIEVAL = "classification", "retrieval"


class CaptionLines(WebDatasetSource):
    """Tars whose .txt has a caption a line."""

    def _captions_and_metadata(self, key, fields, text, label):
        lines = None if text is None else "\n".join(text.splitlines()).split("\n")
        return super()._captions_and_metadata(key, {**fields, "captions": lines}, None, label)


def read_line(folder: str, name: str) -> str | None:
    """The first line of a text file in a folder; None where there is no such file."""
    path = join(folder, name)
    try:
        return (lines_of(read_file(path), path) or [""])[0].strip()
    except MissingFileError:
        return None


def shards_of(folder: str, split: str, spec: str) -> list[str]:
    """The tars of a split.

    Raises:
      DataError: if nshards.txt is missing or no number, or a tar is missing.
    """
    number = read_line(join(folder, split), SHARDS)
    if number is None:
        raise DataError(
            f"{spec}: {join(join(folder, split), SHARDS)} is missing; expected the folder of one "
            "data set with SPLIT/nshards.txt and SPLIT/0.tar; ?split=SPLIT names another split"
        )
    if not re.fullmatch("[0-9]{1,6}", number) or int(number) < 1:
        raise DataError(f"{spec}: {split}/{SHARDS} holds {number[:40]!r}, not a number of tars")
    pattern = f"{{0..{int(number) - 1}}}.tar" if int(number) > 1 else "0.tar"
    return find_files(join(join(folder, split), pattern), "clip_benchmark", remote=True)


def open_clip_benchmark(rest: str) -> WebDatasetSource:
    """The samples of a split of DIR.

    Raises:
      DataError: for a wrong option, a missing file, or a set of another type.
    """
    spec = f"clip_benchmark:{rest}"
    folder, options = split_options(rest, "clip_benchmark", ("split", "prompt"))
    paths = shards_of(folder, single(options, "split", "test", spec), spec)
    kind = (read_line(folder, TYPE) or CLASSIFICATION).lower()
    kept: Options = {name: options[name] for name in options if name != "split"}
    # in the order of their numbers
    paths.sort(key=lambda path: int(re.findall(r"(\d+)\.tar", path)[-1]))
    if kind == RETRIEVAL:
        return CaptionLines(paths, spec, kept)
    if kind == CLASSIFICATION:
        return WebDatasetSource(paths, spec, kept)
    raise DataError(
        f"{spec}: {TYPE} says {kind[:40]!r}; sets of the types {CLASSIFICATION} and {RETRIEVAL} "
        "are read, and not the .npy labels of a multilabel set"
    )
