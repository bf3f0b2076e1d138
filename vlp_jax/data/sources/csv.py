"""`csv:PATTERN`: tables with a header, in which one column names image files and one has their
captions.

    image,caption,source
    images/0.jpg,a cat,mine
    images/1.jpg,"a dog, on
    the grass",mine

The dialect is that of Python's csv module (RFC 4180): quoted fields may hold commas, quotes ("")
and line ends. If the quotes of a file separated by tabs or bars are not of this kind (`"Hello" says
a dog`), the file has no quoted fields, and a line reports it; `?quotes=csv` or `none` decides it.
If the names in a header are surrounded by blanks, blanks around all fields are dropped. Paths are
relative to the folder of the file, or to `root`.

Options: `image`, `caption`, `prompt`, `root`, `quotes`, and `delimiter`, one character, by default
a comma, in .tsv files a tab. The other columns are metadata, all of them texts.
"""

import codecs
import csv
import dataclasses
import functools
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from vlp_jax.data.notifications import notice
from vlp_jax.data.samples import Reason, SampleError, fingerprint_of
from vlp_jax.data.sources.columns import FILE_OPTIONS, Columns, ImageFolders
from vlp_jax.data.sources.file_patterns import find_files, without_query
from vlp_jax.data.sources.filesystem import open_file
from vlp_jax.data.sources.index import Arrays
from vlp_jax.data.sources.spec import single, split_options
from vlp_jax.data.sources.text_rows import RecordStarts, TextRows, index_records
from vlp_jax.errors import DataError

QUOTES = ("auto", "csv", "none")
DELIMITERS = {"tab": "\t", "\\t": "\t"}  # other ways to write a tab
SELDOM_QUOTED = "\t|"  # delimiters of files that often have no quoted fields
# characters; an open quote would make one field of the rest of the file
csv.field_size_limit(1 << 24)


class NotQuotedError(Exception):
    """The quotes of a file are not those of CSV, as its line number `line` shows."""

    def __init__(self, line: int):
        super().__init__(line)
        self.line = line


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a file separates fields.

    Attributes:
      delimiter: one character.
      quoted: whether fields may be quoted.
      blanks: whether blanks around fields are dropped.
    """

    delimiter: str
    quoted: bool
    blanks: bool

    def fields(self, text: str) -> list[str]:
        """The fields of one record.

        Raises:
          csv.Error: if the record cannot be parsed.
        """
        if self.quoted:
            lines = io.StringIO(text, newline="\n")
            found = next(
                iter(csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.blanks)), []
            )
        else:
            found = text.rstrip("\r\n").split(self.delimiter)
        return [field.strip() for field in found] if self.blanks else found


def index_rows(path: str, delimiter: str, quotes: str = "auto") -> Arrays:
    """Where the rows of a file start, without blank rows and with the header first.

    Args:
      path: the file.
      delimiter: one character.
      quotes: one of QUOTES.

    Returns: the arrays of `index_records`, and `dialect`, int64 [3]: whether fields are quoted,
      whether blanks around them are dropped, and the number of the line whose quotes are not those
      of CSV, otherwise 0.

    Raises:
      DataError: if a field never ends, if the csv module rejects the file, or if it is empty.
    """
    dialect, line = Dialect(delimiter, quotes != "none", _blanks_in_header(path, delimiter)), 0
    unsure = quotes == "auto" and delimiter in SELDOM_QUOTED
    find = functools.partial(_find_rows, path, dialect, unsure) if dialect.quoted else _find_lines
    try:
        arrays = index_records(path, find)
    except NotQuotedError as error:
        dialect, line = dataclasses.replace(dialect, quoted=False), error.line
        arrays = index_records(path, _find_lines)
    if len(arrays["starts"]) < 2:
        raise DataError(f"{path}: is empty; its first row must name the columns")
    return {**arrays, "dialect": np.array([dialect.quoted, dialect.blanks, line], np.int64)}


def _find_rows(
    path: str, dialect: Dialect, unsure: bool, file: BinaryIO, starts: RecordStarts
) -> None:
    """Adds the start of every row.

    Raises DataError, or NotQuotedError if `unsure` whether quotes are those of CSV.
    """
    # Latin-1 decodes every byte, and quotes, delimiters and line ends have the same bytes in UTF-8.
    text = (line.removeprefix(codecs.BOM_UTF8).decode("latin-1") for line in starts.lines(file))
    # not strict: blanks may follow a closing quote
    lenient, record, start = dialect.blanks and not unsure, [], 0
    reader = csv.reader(
        _kept(text, record) if lenient else text,
        delimiter=dialect.delimiter,
        skipinitialspace=dialect.blanks,
        strict=not lenient,
    )
    try:
        for row in reader:
            if row:
                starts.places.append(start)
            # a quote that swallowed other rows
            if unsure and any("\n" in field and dialect.delimiter in field for field in row):
                raise NotQuotedError(reader.line_num)
            if lenient:
                if len(record) > 1 and "".join(record).count('"') % 2:
                    raise csv.Error("a quote has no other")
                record.clear()
            start = starts.read
    except csv.Error as error:
        if unsure:
            raise NotQuotedError(reader.line_num) from error
        where = f"{path}: line {reader.line_num}, in the row at byte {start}: {error}"
        if "new-line character" in str(error):
            raise DataError(
                f"{where}; lines end in LF or CR LF, not in CR alone (tr '\\r' '\\n' makes them)"
            ) from error
        raise DataError(
            f"{where}; is a quote left open, or the file cut off? A field with a "
            "quote is quoted itself, its quotes "
            'doubled: "5"" nails"; where no field is quoted, give '
            "?quotes=none"
        ) from error


def _kept(lines: Iterator[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _find_lines(file: BinaryIO, starts: RecordStarts) -> None:
    for line in starts.lines(file):
        if line.removeprefix(codecs.BOM_UTF8).strip(b"\r\n"):
            starts.places.append(starts.read - len(line))


def _blanks_in_header(path: str, delimiter: str) -> bool:
    if delimiter == " ":
        return False
    with open_file(path) as file:
        header = (
            next((line for line in file if line.strip()), b"")
            .removeprefix(codecs.BOM_UTF8)
            .decode("latin-1")
        )
    names = header.rstrip("\r\n").split(delimiter)
    return any(name != name.strip(" ") for name in names)


class CsvSource(TextRows):
    """The rows of some files, each with its own header; see `TextRows`.

    Raises:
      DataError: if a header lacks the image or caption column, or has a name twice.
    """

    def __init__(
        self,
        paths: list[str],
        spec: str,
        columns: Columns,
        images: ImageFolders,
        delimiter: str,
        quotes: str = "auto",
    ):
        build = functools.partial(index_rows, delimiter=delimiter, quotes=quotes)
        super().__init__(
            paths, spec, f"csv-{ord(delimiter)}-{quotes}", columns, images, build, header=1
        )
        found = [index["dialect"].tolist() for index in self.indexes]
        self.dialects = [
            Dialect(delimiter, bool(quoted), bool(blanks)) for quoted, blanks, _ in found
        ]
        unquoted = [
            (path, line) for path, (*_, line) in zip(self.paths, found, strict=True) if line
        ]
        if unquoted:
            (path, line), more = (
                unquoted[0],
                f" (nor do {len(unquoted) - 1} more files)" if len(unquoted) > 1 else "",
            )
            notice(
                f"data note: {path} has no quoted fields, as its line {line} shows{more}: its "
                "quotes are read as they are; ?quotes=none or csv decides it"
            )
        self.headers = [self._header(shard) for shard in range(len(self.paths))]

    def fields(self, shard: int, key: str, text: str) -> dict[str, str]:
        """A row as a mapping from the names of the header.

        Raises:
          SampleError: if it has more or fewer fields than the header.
        """
        try:
            row = self.dialects[shard].fields(text)
        except csv.Error as error:
            raise SampleError(Reason.DAMAGED_TEXT, key, f"is no row: {error}") from error
        header = self.headers[shard]
        if len(row) != len(header):
            raise SampleError(
                Reason.DAMAGED_TEXT, key, f"has {len(row)} fields, the header {len(header)}"
            )
        return dict(zip(header, row, strict=True))

    def fingerprint(self) -> str:
        """The hash of `TextRows`; where files have no quoted fields, it includes which files these
        are."""
        unquoted = [not dialect.quoted for dialect in self.dialects]
        return (
            fingerprint_of(super().fingerprint(), unquoted)
            if any(unquoted)
            else super().fingerprint()
        )

    def _header(self, shard: int) -> list[str]:
        path = self.paths[shard]
        header = self.dialects[shard].fields(self.text(shard, 0, path))
        for name in header:
            if name and header.count(name) > 1:
                raise DataError(
                    f"{self.spec}: {self.names[shard]}: two columns are called {name!r}"
                )
        place = f"{self.spec}: {self.names[shard]}"
        others = [character for character in ";\t|," if len(header) == 1 and character in header[0]]
        if others:
            raise DataError(
                f"{place}: has one column, {header[0]!r}; is its delimiter another "
                f"one? ?delimiter={others[0] if others[0].isprintable() else 'tab'}"
            )
        self.columns.check(header, place)
        return header


def open_csv(rest: str) -> CsvSource:
    """The rows of PATTERN?OPTIONS.

    Raises:
      DataError: for a wrong option; see `find_files` and `CsvSource`.
    """
    spec = f"csv:{rest}"
    pattern, options = split_options(rest, "csv", (*FILE_OPTIONS, "delimiter", "quotes"))
    given = single(
        options, "delimiter", "\t" if without_query(pattern).endswith(".tsv") else ",", spec
    )
    delimiter, quotes = DELIMITERS.get(given, given), single(options, "quotes", "auto", spec)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise DataError(
            f"{spec}: delimiter {delimiter!r} is not one ASCII character (a tab is %09)"
        )
    if quotes not in QUOTES:
        raise DataError(f"{spec}: quotes {quotes!r} is not one of {', '.join(QUOTES)}")
    paths = find_files(pattern, "csv", remote=True)
    return CsvSource(
        paths,
        spec,
        Columns.of(options, spec),
        ImageFolders(paths, options, spec),
        delimiter,
        quotes,
    )
