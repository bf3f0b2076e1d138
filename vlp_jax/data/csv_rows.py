"""`csv:PATTERN`: tables with a header, one column naming image files and one their captions.

    image,caption,source
    images/0.jpg,a cat,mine
    images/1.jpg,"a dog, on
    the grass",mine

The dialect is that of Python's csv module (RFC 4180): quoted fields may hold commas, quotes ("") and line ends. Paths
are relative to the folder of the file. Options: `image`, `caption`, `prompt`, and `delimiter`, one character, by default
a comma, in .tsv files a tab. The other columns are metadata, all of them texts.
"""

import codecs
import csv
import functools
import io

from vlp_jax.data.index import Arrays
from vlp_jax.data.options import single, split_options
from vlp_jax.data.patterns import find_files
from vlp_jax.data.rows import OPTIONS, Columns
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.text_rows import TextRows, index_records
from vlp_jax.errors import DataError


def index_rows(path: str, delimiter: str) -> Arrays:
    """Where the rows of a file start that are not blank, its header first.

    Raises: DataError for a field that never ends, and for what the csv module refuses.
    """
    def find(file, starts):
        # Latin-1 reads every byte, and quotes, delimiters and line ends are the same bytes in UTF-8
        text = (line.removeprefix(codecs.BOM_UTF8).decode("latin-1") for line in starts.lines(file))
        reader, start = csv.reader(text, delimiter=delimiter, strict=True), 0
        try:
            for row in reader:
                if row:
                    starts.places.append(start)
                start = starts.read
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}, in the row at byte {start}: {error}; is a quote left open, or the "
                            'file cut off? A field with a quote is quoted itself, its quotes doubled: "5"" nails"') from error

    arrays = index_records(path, find)
    if len(arrays["starts"]) < 2:
        raise DataError(f"{path}: is empty; its first row must name the columns")
    return arrays


def _rows(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter))


class CsvSource(TextRows):
    """The rows of some files, each with a header of its own; see `TextRows`.

    Raises: DataError if a header lacks the image or caption column, or has a name twice.
    """

    def __init__(self, paths: list[str], spec: str, columns: Columns, delimiter: str):
        build = functools.partial(index_rows, delimiter=delimiter)
        super().__init__(paths, spec, f"csv-{ord(delimiter)}", columns, build, header=1)
        self.delimiter = delimiter
        self.headers = [self._header(shard) for shard in range(len(self.paths))]

    def fields(self, shard: int, key: str, text: str) -> dict[str, str]:
        """A row by the names of the header. Raises: SampleError if it has more or fewer fields."""
        try:
            row = _rows(text, self.delimiter)[0]
        except csv.Error as error:
            raise SampleError(Reason.DAMAGED_TEXT, key, f"is no row: {error}") from error
        header = self.headers[shard]
        if len(row) != len(header):
            raise SampleError(Reason.DAMAGED_TEXT, key, f"has {len(row)} fields, the header {len(header)}")
        return dict(zip(header, row, strict=True))

    def _header(self, shard: int) -> list[str]:
        path = self.paths[shard]
        header = _rows(self.text(shard, 0, path), self.delimiter)[0]
        for name in header:
            if header.count(name) > 1:
                raise DataError(f"{self.spec}: {self.names[shard]}: two columns are called {name!r}")
        self.columns.check(header, f"{self.spec}: {self.names[shard]}")
        return header


def open_csv(rest: str) -> CsvSource:
    """The rows of PATTERN?OPTIONS. Raises: DataError; see `find_files` and `CsvSource`."""
    spec = f"csv:{rest}"
    pattern, options = split_options(rest, "csv", (*OPTIONS, "delimiter"))
    delimiter = single(options, "delimiter", "\t" if pattern.endswith(".tsv") else ",", spec)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise DataError(f"{spec}: delimiter {delimiter!r} is not one ASCII character (a tab is %09)")
    return CsvSource(find_files(pattern, "csv", remote=True), spec, Columns.of(options, spec), delimiter)
