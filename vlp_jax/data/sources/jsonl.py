"""`jsonl:PATTERN`: one JSON object a line, which names an image file and holds its captions.

    {"image": "images/0.jpg", "caption": "a cat", "source": "mine"}
    {"image": "images/1.jpg", "caption": ["a dog", "a dog on the grass"]}

Paths are relative to the folder of the file, or to `root`. Options: `image`, `caption`, `prompt`,
`root`. The other fields are metadata.
"""

import codecs
import contextlib
import json
from typing import Any, BinaryIO

from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.caption_files import HEAD, guess_format, how_to_convert, name_format
from vlp_jax.data.sources.columns import FILE_OPTIONS, Columns, ImageFolders
from vlp_jax.data.sources.file_patterns import find_files
from vlp_jax.data.sources.index import Arrays
from vlp_jax.data.sources.spec import split_options
from vlp_jax.data.sources.text_rows import TextRows, index_records
from vlp_jax.errors import DataError


def index_lines(path: str) -> Arrays:
    """Where the lines of a file start, without blank ones; the arrays of `index_records`.

    Raises:
      DataError: if the file is one JSON array or object.
    """

    def find(file, starts):
        for line in starts.lines(file):
            if line.strip():
                if not starts.places:
                    check_first_line(path, line, file)
                starts.places.append(starts.read - len(line))

    return index_records(path, find)


def check_first_line(path: str, line: bytes, file: BinaryIO) -> None:
    """Checks that the first line is a complete object, which it is not in a file that is one array
    or object.

    Args:
      path: name of the file in messages.
      line: its first line.
      file: the open file, positioned after that line; its position is kept.

    Raises:
      DataError: if it is not. The message names the format where it is known.
    """
    first = line.removeprefix(codecs.BOM_UTF8).strip()
    if first.startswith(b"["):
        raise DataError(f"{path}: is one JSON array; write an object a line (jq -c '.[]' does)")
    known = None
    if b'"images"' in first and first.endswith(b"}"):
        with contextlib.suppress(ValueError, RecursionError):
            known = name_format(json.loads(first))
    elif first.startswith(b"{") and not first.endswith(b"}"):
        place = file.tell()
        known = guess_format(line + file.read(HEAD))
        file.seek(place)
    if known:
        raise DataError(how_to_convert(path, known))
    if first == b"{":
        raise DataError(
            f"{path}: is JSON objects over several lines; write an object a line (jq -c . does)"
        )


class JsonlSource(TextRows):
    """The lines of some files; see `TextRows`."""

    def __init__(self, paths: list[str], spec: str, columns: Columns, images: ImageFolders):
        super().__init__(paths, spec, "jsonl", columns, images, index_lines)

    def fields(self, shard: int, key: str, text: str) -> dict[str, Any]:
        """The object in a line.

        Raises:
          SampleError: with DAMAGED_TEXT or WRONG_TYPE.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SampleError(Reason.DAMAGED_TEXT, key, f"is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise SampleError(Reason.WRONG_TYPE, key, f"is {type(fields).__name__}, not an object")
        return fields


def open_jsonl(rest: str) -> JsonlSource:
    """The lines of PATTERN?OPTIONS.

    Raises:
      DataError: for a wrong option; see `find_files` and `TextRows`.
    """
    spec = f"jsonl:{rest}"
    pattern, options = split_options(rest, "jsonl", FILE_OPTIONS)
    paths = find_files(pattern, "jsonl", remote=True)
    return JsonlSource(paths, spec, Columns.of(options, spec), ImageFolders(paths, options, spec))
