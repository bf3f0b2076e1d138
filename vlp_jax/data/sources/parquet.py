"""`parquet:PATTERN`: Parquet files with the images in a column, as bytes or in the form of Hugging
Face `datasets`.

Image column: binary, a struct {bytes: binary, path: string}, or the paths of image files, relative
to the folder of the file or to `root`. Caption columns: string, a list of strings, or a field of a
struct or map. Options: `image`, `caption`, `prompt`, `root`. The other columns are metadata, except
binary ones, which are not read. Dates, times and decimals become text. Class labels become their
names where `datasets` has stored these in the schema.

A row group is the smallest part of a Parquet file that can be read, so a global shuffle decodes a
whole row group for nearly every sample. Groups of a few hundred rows are fine. Files with larger
ones should be rewritten by `python -m vlp_jax.prepare`.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Generator
from typing import Any

import numpy as np

from vlp_jax.data.samples import Reason, Sample, SampleError, check_index, fingerprint_of
from vlp_jax.data.sources.arrow_types import (
    by_path,
    class_names,
    has_fields,
    holds_bytes,
    is_image,
    is_path,
    is_text,
    plain,
    with_names,
)
from vlp_jax.data.sources.columns import FILE_OPTIONS, Columns, ImageFolders, locate, pick
from vlp_jax.data.sources.file_patterns import find_files, short_names, without_query
from vlp_jax.data.sources.filesystem import ChangedFileError, open_binary, size_and_version
from vlp_jax.data.sources.index import Arrays, load_indexes
from vlp_jax.data.sources.local_files import check_regular, local_path
from vlp_jax.data.sources.spec import split_options
from vlp_jax.errors import DataError

# limits of the decoded groups cached in a process; a single larger one is kept
CACHED_GROUPS, CACHED_BYTES = 8, 256 << 20


@contextlib.contextmanager
def _opened(path: str) -> Generator[Any, None, None]:
    """A `pyarrow.parquet.ParquetFile`. Arrow itself reads a local one, without holding the GIL."""
    from pyarrow import parquet

    with contextlib.ExitStack() as stack:
        here = local_path(path)
        remote = here is None
        if not remote:
            check_regular(here)
        file = stack.enter_context(open_binary(path)) if remote else here
        yield stack.enter_context(
            parquet.ParquetFile(file, pre_buffer=remote, page_checksum_verification=True)
        )


def index_groups(path: str) -> Arrays:
    """Contents of the footer of one file.

    Returns: `rows`, int64 [G], the number of rows of each row group; `schema`, uint8, the schema in
      Arrow's format.

    Raises:
      DataError: if it is not a Parquet file or is truncated.
    """
    import pyarrow

    try:
        with _opened(path) as file:
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            schema = file.schema_arrow.serialize().to_pybytes()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        # an error of the system, not a damaged footer
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataError(
            f"{path}: is not a Parquet file, or is cut off: {_first_line(error)}"
        ) from error
    return {"rows": np.array(rows, np.int64), "schema": np.frombuffer(schema, np.uint8)}


class ParquetSource:
    """The rows of some files, in the order of `paths`.

    The key of a sample is FILE:ROW, rows counted from 1.

    Args:
      paths: Parquet files.
      spec: name of the source in messages.
      columns: see `Columns`.
      images: folders of the image files.

    Raises:
      DataError: if a file is missing or damaged, lacks a column, or has a column of another type.
    """

    templates = ()
    _kept: OrderedDict[tuple, Any]  # the last row groups
    _lock: threading.Lock

    def __init__(self, paths: list[str], spec: str, columns: Columns, images: ImageFolders):
        self.spec, self.paths, self.columns, self.images = spec, list(paths), columns, images
        self.names = short_names([without_query(path) for path in self.paths])
        indexes = load_indexes(self.paths, "parquet", index_groups, spec)
        schemas, known = [_schema(index) for index in indexes], {}
        self.labels = [
            known.setdefault(key, known.get(key) or class_names(key))
            for key in map(_features, schemas)
        ]
        self.read_columns = list(map(self._check_schema, self.names, schemas, self.labels))
        self.class_names = {
            field: names
            for labels in reversed(self.labels)
            for field, names in by_path(labels).items()
        }
        self.first_groups = np.cumsum([0, *(len(index["rows"]) for index in indexes)])
        self.starts = np.cumsum(
            np.concatenate([[0], *(index["rows"] for index in indexes)]), dtype=np.int64
        )
        self.stamps = [index.file for index in indexes]
        self.sizes = [index.stamp["size"] for index in indexes]
        if len(self) == 0:
            raise DataError(f"{spec}: no row in {len(self.paths)} file(s)")
        self.__setstate__({})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        shard, key, fields = self._row(index, True)
        image, name = pick(fields, self.columns.image), ""
        if isinstance(image, dict):
            image, name = image.get("bytes"), image.get("path") or ""
            image = name or None if image is None else image
        if isinstance(image, str):
            image, name = self.images.read(shard, image, key)
        return self.columns.sample(key, fields, image, name)

    def without_image(self, index: int) -> Sample:
        """Implements `SparesImages`: the image column is not read, unless it contains captions."""
        _, key, fields = self._row(index, False)
        return self.columns.described(key, fields)

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files, the rows of their groups, and the columns."""
        return fingerprint_of(
            "parquet", self.names, self.sizes, self.starts.tolist(), repr(self.columns)
        )

    def _row(self, index: int, with_image: bool) -> tuple[int, str, dict[str, Any]]:
        """The number of a row's file, its key and its columns, with the image as it is stored."""
        index = check_index(index, len(self))
        group, row = locate(self.starts, index)
        shard, group_of_shard = locate(self.first_groups, group)
        key = f"{self.names[shard]}:{index - int(self.starts[self.first_groups[shard]]) + 1}"
        columns = [
            name
            for name in self.read_columns[shard]
            if with_image or not self.columns.of_image_alone(name)
        ]
        table = self._group(
            shard, group_of_shard, int(self.starts[group + 1] - self.starts[group]), key, columns
        )
        used, labels = self.columns.used(), self.labels[shard]
        fields = {
            name: with_names(self._value(table, name, row, key), labels.get(name))
            for name in table.column_names
        }
        return (
            shard,
            key,
            {name: value if name in used else plain(value) for name, value in fields.items()},
        )

    def _value(self, table: Any, name: str, row: int, key: str) -> Any:
        """A value as a Python object; as text where Python has no such type, for example for a time
        in nanoseconds."""
        value = table.column(name)[row]
        try:
            return value.as_py(maps_as_pydicts="strict")
        except KeyError as error:
            if name in self.columns.used():
                raise SampleError(
                    Reason.DAMAGED_TEXT, key, f"its {name} is a map that has a key twice"
                ) from error
            return value.as_py()
        except UnicodeDecodeError as error:
            raise SampleError(
                Reason.DAMAGED_TEXT, key, f"its {name} is not UTF-8: {error}"
            ) from error
        except (ValueError, OverflowError):
            return str(value.cast("string"))

    def _check_schema(self, name: str, schema: Any, labels: dict[str, Any]) -> list[str]:
        """The columns of a file that are read."""
        place = f"{self.spec}: {name}"
        twice = [column for column in schema.names if schema.names.count(column) > 1]
        if twice:
            raise DataError(f"{place}: two columns are called {twice[0]!r}")
        self.columns.check(schema.names, place)
        image = self.columns.image
        if (
            image in schema.names
            and not is_image(schema.field(image).type)
            and not is_path(schema.field(image).type)
        ):
            raise DataError(
                f"{place}: column {image!r} is {schema.field(image).type}; expected "
                "binary or {bytes, path}, or the path of an image file"
            )
        for caption in self.columns.captions:
            if (
                caption in schema.names
                and caption not in labels
                and not is_text(schema.field(caption).type)
            ):
                kind = schema.field(caption).type
                inside = (
                    f"; a dot reaches into it: ?caption={caption}.NAME" if has_fields(kind) else ""
                )
                raise DataError(
                    f"{place}: column {caption!r} is {kind}; expected text or lists of it{inside}"
                )
        used = self.columns.used()
        return [field.name for field in schema if field.name in used or not holds_bytes(field.type)]

    def _group(self, shard: int, group: int, rows: int, key: str, columns: list[str]) -> Any:
        """Some columns of a row group, cached or decoded now.

        Two threads may decode the same group; neither waits.
        """
        import pyarrow

        place = (shard, group, *columns)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        try:
            with _opened(self.paths[shard]) as file:
                table = file.read_row_group(group, columns=columns)
            if (
                local_path(self.paths[shard]) is not None
                and size_and_version(self.paths[shard]) != self.stamps[shard]
            ):
                raise SampleError(
                    Reason.DAMAGED_RECORD, key, ChangedFileError(self.paths[shard]).args[0]
                )
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            # an error of the system, not a damaged page
            if isinstance(error, OSError) and error.errno:
                raise DataError(
                    f"{self.paths[shard]}: cannot be read: {os.strerror(error.errno)}"
                ) from error
            message = f"its row group in {self.paths[shard]} cannot be read: {_first_line(error)}"
            raise SampleError(Reason.DAMAGED_RECORD, key, message) from error
        if table.num_rows != rows:
            raise SampleError(
                Reason.DAMAGED_RECORD, key, f"{self.paths[shard]} has changed since it was indexed"
            )
        with self._lock:
            self._kept[place] = table
            while len(self._kept) > 1 and (
                len(self._kept) > CACHED_GROUPS
                or sum(kept.nbytes for kept in self._kept.values()) > CACHED_BYTES
            ):
                self._kept.popitem(last=False)
        return table

    def __getstate__(self):
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")
        }

    def __setstate__(self, state):
        self.__dict__.update(state, _kept=OrderedDict(), _lock=threading.Lock())


def _schema(index: Arrays) -> Any:
    """The `pyarrow.Schema` of a file."""
    import pyarrow

    return pyarrow.ipc.read_schema(pyarrow.py_buffer(bytes(index["schema"])))


def _features(schema: Any) -> bytes:
    """The metadata that Hugging Face `datasets` has stored in a schema."""
    return (schema.metadata or {}).get(b"huggingface", b"")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def open_parquet(rest: str) -> ParquetSource:
    """The rows of PATTERN?OPTIONS.

    Raises:
      DataError: for a wrong option; see `find_files` and `ParquetSource`.
    """
    spec = f"parquet:{rest}"
    pattern, options = split_options(rest, "parquet", FILE_OPTIONS)
    paths = find_files(pattern, "parquet", remote=True)
    return ParquetSource(paths, spec, Columns.of(options, spec), ImageFolders(paths, options, spec))
