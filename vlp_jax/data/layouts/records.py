"""Samples from the annotation files of a public data set: the common part of its readers.

The files are read once. A row a sample is kept in an index, JSON in one array of bytes, which is
stored and mapped as that of a table (`sources/index.py`).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.data.notifications import listed, notice
from vlp_jax.data.samples import Sample, check_index, fingerprint_of
from vlp_jax.data.sources.columns import Columns, ImageFolders
from vlp_jax.data.sources.file_patterns import find_files
from vlp_jax.data.sources.filesystem import folder_of, join, size_and_version, size_or_none
from vlp_jax.data.sources.index import Arrays, load_indexes
from vlp_jax.data.sources.local_files import scheme_of
from vlp_jax.data.sources.spec import Options, single, split_options
from vlp_jax.errors import DataError

SHARED_OPTIONS = ("root", "caption", "prompt")
ID_PATTERN = re.compile(r"[^{}]*\{(:0?[0-9]{0,2}d?)?\}[^{}]*")
VERSION = 1  # of the rows; a change makes stored indexes invalid
Rows = Iterator[tuple[str, dict[str, Any]]]


class Notes:
    """What a reader reports next to its rows.

    Attributes:
      left_out: counts of records that make no sample, by what they are.
      class_names: the names of all classes of a field, in order.
    """

    def __init__(self):
        self.left_out: dict[str, int] = {}
        self.class_names: dict[str, Sequence[str]] = {}

    def leave_out(self, what: str) -> None:
        """Counts one record that makes no sample."""
        self.left_out[what] = self.left_out.get(what, 0) + 1


class Texts:
    """A list of JSON values in one array of bytes.

    Args:
      data: uint8, the values one after the other.
      starts: int64 [N + 1], the first byte of each, and the size.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray):
        self.data, self.starts = data, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Any:
        return json.loads(bytes(self.data[self.starts[index] : self.starts[index + 1]]))


def packed(values: Iterator[Any], name: str = "rows") -> Arrays:
    """JSON values as the arrays `NAME` and `NAME_starts` that `Texts` takes."""
    data, starts = bytearray(), [0]
    for value in values:
        data += json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        starts.append(len(data))
    return {name: np.frombuffer(bytes(data), np.uint8), f"{name}_starts": np.array(starts)}


def distinct(rows: Rows, spec: str) -> Rows:
    """The rows.

    Raises:
      DataError: if two have one key.
    """
    seen = set()
    for key, row in rows:
        if key in seen:
            raise DataError(f"{spec}: two samples have the key {key!r}; is a record there twice?")
        seen.add(key)
        yield key, row


class RecordSource:
    """The rows that a reader yields. `row["image"]` names the image, all else is as in JSON lines.

    Where a row's image is a list of names, it is the first that exists.

    Args:
      path: the annotation file that gives the folder of the images.
      others: further annotation files.
      spec: name of the source in messages.
      options: its options.
      read: yields a key and a row for each sample, in order, and notes what it leaves out.
      caption: default caption field.
      also: all else that the rows depend on, anything that JSON can hold.

    Raises:
      DataError: what `read` raises; if there is no row.
    """

    def __init__(
        self,
        path: str,
        others: Sequence[str],
        spec: str,
        options: Options,
        read: Callable[[Notes], Rows],
        caption: str = "caption",
        also: Any = None,
    ):
        self.spec, self.path = spec, path
        columns = {name: options[name] for name in ("caption", "prompt") if name in options}
        self.columns = Columns.of(columns, spec, (caption,))
        self.images = ImageFolders([path], options, spec)
        asked = {name: options[name] for name in options if name not in SHARED_OPTIONS}
        stamps = [size_and_version(other) for other in others]
        kind = f"{spec.partition(':')[0]}-{fingerprint_of(VERSION, asked, stamps, also)[:8]}"
        self.index = load_indexes([path], kind, lambda _: self.build(read), spec)[0]
        self.rows = Texts(self.index["rows"], self.index["rows_starts"])
        notes = json.loads(bytes(self.index["notes"]))
        self.left_out, self.class_names = notes["left_out"], notes["class_names"]
        self.templates: Sequence[str] = ()
        if not len(self.rows):
            left_out = f" ({listed(self.left_out)} left out)" if self.left_out else ""
            raise DataError(f"{spec}: no sample in {path}{left_out}")
        if self.left_out:
            notice(f"data note: {spec}: left out: {listed(self.left_out)}")

    def build(self, read: Callable[[Notes], Rows]) -> Arrays:
        """The arrays of the index."""
        notes = Notes()
        arrays = packed(map(list, distinct(read(notes), self.spec)))
        digest = hashlib.sha256(arrays["rows"].tobytes()).digest()
        return {
            **arrays,
            "digest": np.frombuffer(digest, np.uint8),
            "notes": np.frombuffer(json.dumps(vars(notes)).encode(), np.uint8),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        key, row = self.row(index)
        return self.columns.sample(key, row, *self.read_image(key, row))

    def without_image(self, index: int) -> Sample:
        """Implements `SparesImages`: no image is read."""
        key, row = self.row(index)
        return self.columns.described(key, row, image_file=self.image_file(row))

    def row(self, index: int) -> tuple[str, dict[str, Any]]:
        """The key and the fields of a sample."""
        key, row = self.rows[check_index(index, len(self))]
        return key, self.described(key, row)

    def described(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """A row with what is read on access."""
        if isinstance(row["image"], list):
            row["image"] = next(filter(self.is_there, row["image"]), row["image"][0])
        return row

    def is_there(self, name: str) -> bool:
        """Whether the folder of images has this file."""
        return size_or_none(join(self.images.folders[0], name)) is not None

    def read_image(self, key: str, row: Mapping[str, Any]) -> tuple[bytes, str]:
        """The bytes of the image and its name; errors as of `ImageFolders.read`."""
        return self.images.read(0, row["image"], key)

    def image_file(self, row: Mapping[str, Any]) -> str:
        """The name that `read_image` returns."""
        return self.images.name(0, row["image"])

    def fingerprint(self) -> str:
        """Hash of the rows and of the columns, but not of the images they name."""
        digest = bytes(self.index["digest"]).hex()
        return fingerprint_of(type(self).__name__, digest, repr(self.columns))


def split_layout(rest: str, kind: str, names: Sequence[str] = ()) -> tuple[str, str, Options]:
    """The spec of a source, its one annotation file, and its options.

    Args:
      rest: the spec without `KIND:`.
      kind: the kind.
      names: the options of the kind next to `SHARED_OPTIONS`.

    Raises:
      DataError: for a wrong option, and unless the pattern names one file.
    """
    pattern, options = split_options(rest, kind, (*SHARED_OPTIONS, *names))
    paths = find_files(pattern, kind, remote=True)
    if len(paths) > 1:
        raise DataError(f"{kind}:{rest}: names {len(paths)} files; a source is of one")
    return f"{kind}:{rest}", paths[0], options


def file_beside(path: str, name: str) -> str:
    """A file that an option names: absolute, a URL, or relative to the folder of `path`."""
    return name if scheme_of(name) else join(folder_of(path), name)


def optional_file(path: str, options: Options, name: str, spec: str) -> str | None:
    """The file that an option names; None where it is not given.

    Raises:
      DataError: if it does not exist.
    """
    given = single(options, name, None, spec)
    if given is None:
        return None
    found = file_beside(path, given)
    if size_or_none(found) is None:
        raise DataError(f"{spec}: {name}: no such file: {found}")
    return found


class ImageNames:
    """Names of image files by the id of the image, `COCO_val2014_{:012}.jpg`.

    Args:
      options: those of the source; `image` names one or several patterns.
      default: the patterns without it.
      spec: name of the source in messages.

    Raises:
      DataError: if a pattern has not exactly one `{}` or `{:012}`.
    """

    def __init__(self, options: Options, default: Sequence[str], spec: str):
        self.patterns = options.get("image", tuple(default))
        for pattern in self.patterns:
            if not ID_PATTERN.fullmatch(pattern):
                raise DataError(
                    f"{spec}: image {pattern!r} must have one {{}}, where the id of an image goes, "
                    "or {:012} for 12 digits"
                )

    def __call__(self, number: int | str) -> str | list[str]:
        """The name of an image, or the names that it may have."""
        names = [self._named(pattern, number) for pattern in self.patterns]
        return names[0] if len(names) == 1 else names

    def _named(self, pattern: str, number: int | str) -> str:
        before, _, rest = pattern.partition("{")
        form, _, after = rest.partition("}")
        digits = form.strip(":d0") or "0"
        return f"{before}{str(number).zfill(int(digits))}{after}"
