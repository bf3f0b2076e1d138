"""Class names and prompts in text files next to tars or one folder above, in the layout of
CLIP_benchmark.

`classnames.txt` has one class name a line, that of class 0 first.
`zeroshot_classification_templates.txt` has one prompt a line, in which `{c}` is the class.
"""

import os
import re
from collections.abc import Sequence

from vlp_jax.data.sources.file_patterns import without_query
from vlp_jax.data.sources.filesystem import MissingFileError, folder_of, join, read_file, scheme_of
from vlp_jax.errors import DataError

CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


def lines_of(data: bytes, path: str) -> list[str]:
    """The lines of a text file, with or without a byte order mark or CR LF.

    Blank lines at the end are left out.

    Args:
      data: the content of the file.
      path: its name in messages.

    Raises:
      DataError: if the bytes are not UTF-8.
    """
    try:
        lines = re.split(r"\r\n|\n|\r", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def class_files(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The class names and the templates stored with these files.

    Returns: (class names, templates with {} for the class), each empty where there is no such file.

    Raises:
      DataError: if a file is not UTF-8, or if a template does not have exactly one {c}.
    """
    folders = list(dict.fromkeys(folder_of(without_query(path)) for path in paths))
    folders = list(dict.fromkeys([*folders, *map(_above, folders)]))
    (_, names), (path, templates) = (_first(folders, name) for name in (CLASS_NAMES, TEMPLATES))
    return names, [_template(line, path) for line in templates if line]


def _first(folders: Sequence[str], name: str) -> tuple[str, list[str]]:
    """The first file of this name in the folders, and its lines."""
    for folder in folders:
        path = join(folder, name)
        try:
            return path, [line.strip() for line in lines_of(read_file(path), path)]
        except MissingFileError:
            continue
    return name, []


def _above(folder: str) -> str:
    return (
        folder_of(folder.rstrip("/"))
        if scheme_of(folder)
        else os.path.dirname(os.path.abspath(folder))
    )


def _template(line: str, path: str) -> str:
    """`a photo of a {c}.` as `a photo of a {}.`; other braces are doubled, as in all templates."""
    mark = "{c}" if "{c}" in line else "{}"
    if line.count(mark) != 1:
        raise DataError(f"{path}: {line!r} must have exactly one {{c}}, where the class goes")
    return "{}".join(part.replace("{", "{{").replace("}", "}}") for part in line.split(mark))
