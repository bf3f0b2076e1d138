"""`clip_benchmark:DIR?split=test`: a folder of tars as CLIP_benchmark and DataComp publish them.

DIR has SPLIT/nshards.txt, SPLIT/0.tar, SPLIT/1.tar, ..., and either `classnames.txt` and
`zeroshot_classification_templates.txt`, for images with a .cls, or a `dataset_type.txt` that says
`retrieval`, for images with a .txt that has a caption a line, or `multilabel`, for images with a
.npy: a vector with 1 for each class of the image and 0 for all others, of which the metadata `cls`
and `class` are lists. Classes and templates are those of `webdataset:`. DIR may be a URL.

Options: `split` (default test), `prompt`.
"""

import io
import re
from typing import Any

import numpy as np

from vlp_jax.data.layouts.records import Options, single, split_options
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.file_patterns import find_files
from vlp_jax.data.sources.filesystem import MissingFileError, join, read_file
from vlp_jax.data.sources.webdataset import CLS, NAME, WebDatasetSource
from vlp_jax.errors import DataError

SHARDS, TYPE = "nshards.txt", "dataset_type.txt"
CLASSIFICATION, RETRIEVAL, MULTI_LABEL = "classification", "retrieval", "multilabel"


class CaptionLines(WebDatasetSource):
    """Tars whose .txt has a caption a line."""

    def _captions_and_metadata(self, key, fields, text, label):
        lines = None if text is None else "\n".join(text.splitlines()).split("\n")
        return super()._captions_and_metadata(key, {**fields, "captions": lines}, None, label)


class LabelVectors(WebDatasetSource):
    """Tars whose .npy is a vector over all classes."""

    label_ending = "npy"

    def _class(self, key: str, data: bytes | None) -> dict[str, Any]:
        """The numbers of the classes of an image, and their names where there are any."""
        names = self.class_names.get(NAME, ())
        if data is None:
            return {}
        held = np.flatnonzero(label_vector(key, data, len(names))).tolist()
        return {CLS: held, **({NAME: [names[number] for number in held]} if names else {})}


def label_vector(key: str, data: bytes, classes: int) -> np.ndarray:
    """The vector in a .npy, with 1 for each class of an image and 0 for all others, bool [C].

    Args:
      key: key of the sample.
      data: the content of the file; pickled objects are refused.
      classes: the number of classes C; 0 where it is unknown.

    Raises:
      SampleError: with DAMAGED_TEXT or WRONG_TYPE.
    """
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        message = f"its .npy cannot be read: {str(error)[:100]}"
        raise SampleError(Reason.DAMAGED_TEXT, key, message) from error
    there = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else "an .npz"
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "biuf":
        wanted = "a vector of a 0 or 1 for each class"
        raise SampleError(Reason.WRONG_TYPE, key, f"its .npy is {there}, not {wanted}")
    if classes and len(values) != classes:
        message = f"its .npy has {len(values)} numbers, and classnames.txt names {classes} classes"
        raise SampleError(Reason.WRONG_TYPE, key, message)
    if not np.isin(values, (0, 1)).all():
        wrong = values[~np.isin(values, (0, 1))][0]
        raise SampleError(Reason.WRONG_TYPE, key, f"its .npy holds {wrong}, not only 0 and 1")
    return values.astype(bool)


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
    if kind == MULTI_LABEL:
        return LabelVectors(paths, spec, kept)
    raise DataError(
        f"{spec}: {TYPE} says {kind[:40]!r}; sets of the types {CLASSIFICATION}, {RETRIEVAL} and "
        f"{MULTI_LABEL} are read"
    )
