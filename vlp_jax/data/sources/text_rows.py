"""Tables in text files, one record a row, that name image files: the common part of `jsonl` and
`csv`.

Only the first byte of every row is kept in memory; a row is read from the file on access.
"""

import array
import codecs
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from vlp_jax.data.samples import Reason, Sample, SampleError, check_index, fingerprint_of
from vlp_jax.data.sources.columns import Columns, ImageFolders, locate, pick
from vlp_jax.data.sources.file_patterns import short_names, without_query
from vlp_jax.data.sources.filesystem import COMPRESSED, ChangedFileError, open_file, read_range
from vlp_jax.data.sources.index import Arrays, load_indexes
from vlp_jax.errors import DataError


class TextRows:
    """The rows of some text files, in the order of `paths`.

    The key of a sample is FILE:ROW, rows counted from 1.

    Args:
      paths: the files.
      spec: name of the source in messages.
      kind: part of the name of the index.
      columns: see `Columns`.
      images: folders of the images.
      build: builds the index of one file.
      header: number of rows at the start of every file that are not samples.

    Raises:
      DataError: if a file is missing or damaged, or if the files have no row.
    """

    def __init__(
        self,
        paths: list[str],
        spec: str,
        kind: str,
        columns: Columns,
        images: ImageFolders,
        build: Callable[[str], Arrays],
        header: int = 0,
    ):
        self.spec, self.paths, self.columns, self.images, self.header = (
            spec,
            list(paths),
            columns,
            images,
            header,
        )
        self.names = short_names([without_query(path) for path in self.paths])
        self.indexes = load_indexes(self.paths, kind, build, spec)
        self.starts = np.cumsum(
            [0, *(index.count("starts") - 1 - header for index in self.indexes)]
        )
        if len(self) <= 0:
            raise DataError(f"{spec}: no row in {len(self.paths)} file(s)")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        shard, key, fields = self._row(index)
        return self.columns.sample(
            key, fields, *self.images.read(shard, pick(fields, self.columns.image), key)
        )

    def without_image(self, index: int) -> Sample:
        """Implements `SparesImages`: only the row is read."""
        shard, key, fields = self._row(index)
        return self.columns.described(
            key, fields, image_file=self.images.name(shard, pick(fields, self.columns.image))
        )

    def fingerprint(self) -> str:
        """Hash of the names and contents of the files and of the columns, but not of the images
        they name."""
        digests = [bytes(index["digest"]).hex() for index in self.indexes]
        return fingerprint_of(type(self).__name__, self.names, digests, repr(self.columns))

    def text(self, shard: int, line: int, key: str) -> str:
        """One record of a file, including the header.

        Args:
          shard: number of the file.
          line: number of the record.
          key: key of the sample in errors.

        Raises:
          SampleError: if it is not UTF-8, or if the file has changed.
        """
        index, path = self.indexes[shard], self.paths[shard]
        start, end = map(int, index["starts"][line : line + 2])
        before, behind = map(int, index["checks"][line : line + 2])
        try:
            data = read_range(path, start, end - start, index.file)
        except ChangedFileError as error:
            raise SampleError(Reason.DAMAGED_RECORD, key, error.args[0]) from error
        if len(data) != end - start:
            raise SampleError(
                Reason.DAMAGED_RECORD, key, f"{path} became shorter since it was indexed"
            )
        if zlib.crc32(data, before) != behind:
            raise SampleError(
                Reason.DAMAGED_RECORD,
                key,
                f"{path} has another row in its place: it was changed since",
            )
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SampleError(Reason.DAMAGED_TEXT, key, f"is not UTF-8: {error}") from error

    def _row(self, index: int) -> tuple[int, str, Mapping[str, Any]]:
        """The number of a row's file, its key and its columns."""
        shard, row = locate(self.starts, check_index(index, len(self)))
        key = f"{self.names[shard]}:{row + 1}"
        return shard, key, self.fields(shard, key, self.text(shard, row + self.header, key))

    def fields(self, shard: int, key: str, text: str) -> Mapping[str, Any]:
        """The columns of the record `text`.

        Raises:
          SampleError: if it cannot be parsed.
        """
        raise NotImplementedError


def index_records(path: str, find: Callable[[BinaryIO, "RecordStarts"], None]) -> Arrays:
    """The index of one file with N records.

    Args:
      path: the file.
      find: `find(file, starts)` reads all lines through `starts.lines(file)` and adds the position
        of every record.

    Returns: arrays by name.
      starts: [N + 1], int64, the byte at which each record starts, and the size of the file.
      checks: [N + 1], uint32, the CRC-32 of all bytes before each of `starts`. The value at the
        start of a record, updated with its bytes, is the value at its end.
      digest: [32], uint8, SHA-256 of the file.

    Raises:
      DataError: if the file is compressed or UTF-16.
    """
    starts = RecordStarts()
    with open_file(path) as file:
        magic = file.read(6)
        if magic.startswith(COMPRESSED):
            raise DataError(f"{path}: is compressed; rows are read at random, so unpack it first")
        if magic.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{path}: is UTF-16; write it in UTF-8 (iconv -f UTF-16 -t UTF-8 does)")
        file.seek(0)
        find(file, starts)
    starts.places.append(starts.read)
    digest = np.frombuffer(starts.digest.digest(), np.uint8)
    return {
        "starts": np.array(starts.places, np.int64),
        "checks": starts.checks(),
        "digest": digest,
    }


class RecordStarts:
    """The positions of the records found so far, the number of bytes read and their digest.

    Each record starts at the start of a line.
    """

    def __init__(self):
        self.places, self.read, self.digest = array.array("q"), 0, hashlib.sha256()
        # of all lines: position and CRC-32 after each
        self._ends, self._checks = array.array("q", [0]), array.array("I", [0])

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Yields the lines of the file, each with its line end."""
        check, add_end, add_check = 0, self._ends.append, self._checks.append
        for line in file:
            self.read += len(line)
            self.digest.update(line)
            check = zlib.crc32(line, check)
            add_end(self.read)
            add_check(check)
            yield line

    def checks(self) -> np.ndarray:
        """The CRC-32 of all bytes before each of `places`, uint32."""
        lines = np.searchsorted(
            np.frombuffer(self._ends, np.int64), np.frombuffer(self.places, np.int64)
        )
        return np.frombuffer(self._checks, np.uint32)[lines]
