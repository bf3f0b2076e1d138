"""Annotation files in JSON, whose objects name their place in errors."""

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from vlp_jax.data.sources.filesystem import COMPRESSED, read_file
from vlp_jax.errors import DataError

PICKLES = (b"\x80", b"(lp", b"(dp")  # first bytes of binary and of text pickles


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An object of a JSON file.

    Attributes:
      fields: its content.
      place: the file, or the object that contains this one.
      number: position in a list of `place`, or key in an object; None for a whole file.
      name: the field of `place` that holds it.
    """

    fields: dict[str, Any]
    place: "Entry | str"
    number: int | str | None = None
    name: str = ""

    def __str__(self) -> str:
        if isinstance(self.place, str):
            return self.place if self.number is None else f"{self.place}: [{self.number}]"
        mark = ": " if self.place.number is None and isinstance(self.place.place, str) else "."
        item = "" if self.number is None else f"[{self.number}]"
        return f"{self.place}{mark}{self.name}{item}"

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The field, whatever it holds."""
        return self.fields.get(name, default)

    def some(self, *names: str) -> dict[str, Any]:
        """Those of these fields that are there."""
        return {name: self.fields[name] for name in names if name in self}

    def text(self, name: str) -> str:
        """A field that is a text.

        Raises:
          DataError: if it is missing or not a text.
        """
        return self._typed(name, str, "a text")

    def whole(self, name: str) -> int:
        """A field that is a whole number, or a text of digits.

        Raises:
          DataError: if it is not.
        """
        value = self.fields.get(name)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return self._typed(name, int, "a whole number")

    def number_or_text(self, name: str) -> int | str:
        """A field that identifies something: a whole number or a text.

        Raises:
          DataError: if it is neither.
        """
        return self._typed(name, (int, str), "a whole number or a text")

    def items(self, name: str) -> list:
        """A field that is a list.

        Raises:
          DataError: if it is not.
        """
        return self._typed(name, list, "a list")

    def box(self, name: str) -> list[float]:
        """COCO's [left, top, width, height] as [left, top, right, bottom].

        Raises:
          DataError: if the field is not four numbers.
        """
        return corners(self, self.items(name))

    def entry(self, name: str) -> "Entry":
        """A field that is an object.

        Raises:
          DataError: if it is not.
        """
        return Entry(self._typed(name, dict, "an object"), self, None, name)

    def entries(self, name: str) -> Iterator["Entry"]:
        """The objects of a list.

        Raises:
          DataError: if the field is not a list of objects.
        """
        return objects(self.items(name), self, name)

    def _typed(self, name: str, kind: Any, words: str) -> Any:
        value = self.fields.get(name)
        if value is None:
            there = ", ".join(map(str, list(self.fields)[:12])) or "none"
            raise DataError(f"{self}: lacks the field {name!r} (fields: {there})")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{self}: its {name} is {type(value).__name__}, not {words}")
        return value


def corners(entry: Entry, sides: list) -> list[float]:
    """[left, top, width, height] as [left, top, right, bottom].

    Raises:
      DataError: if these are not four numbers.
    """
    if len(sides) != 4 or not all(
        isinstance(side, int | float) and not isinstance(side, bool) for side in sides
    ):
        raise DataError(f"{entry}: {str(sides)[:80]} is no box [left, top, width, height]")
    left, top, width, height = sides
    return [left, top, left + width, top + height]


def objects(items: Iterable[Any], place: Entry | str, name: str = "") -> Iterator[Entry]:
    """The objects of a list, as entries.

    Raises:
      DataError: if an item is no object.
    """
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            where = Entry({}, place, number, name)
            raise DataError(f"{where}: is {type(item).__name__}, not an object")
        yield Entry(item, place, number, name)


def read_json(path: str) -> Any:
    """The value in a JSON file.

    Raises:
      DataError: if it cannot be read, or is a pickle or compressed; the message has the command
        that converts it.
    """
    data = read_file(path)
    if data.startswith(PICKLES):
        raise DataError(f"{path}: is a pickle, which could run any code; {how_to_unpickle(path)}")
    if data.startswith(COMPRESSED) or data.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: is compressed; unpack it first")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error


def how_to_unpickle(path: str) -> str:
    """The command that writes a trusted pickle as JSON."""
    stem = path.removesuffix(".p").removesuffix(".pkl")
    program = (
        "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb'), "
        "encoding='utf-8'), open(sys.argv[2], 'w'))"
    )
    return (
        "where you trust it, write it as JSON: python -c "
        f"{shlex.quote(program)} {shlex.quote(path)} {shlex.quote(stem + '.json')}"
    )


def read_object(path: str, expected: str) -> Entry:
    """The object in a JSON file.

    Args:
      path: the file.
      expected: what the file should be, for the message.

    Raises:
      DataError: as `read_json`, or if it is no object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: is {a_kind(value)}, not {expected}")
    return Entry(value, path)


def read_list(path: str, expected: str) -> Iterator[Entry]:
    """The objects of the array in a JSON file; arguments and errors as of `read_object`."""
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(f"{path}: is {a_kind(value)}, not {expected}")
    return objects(value, path)


def read_lines(path: str) -> Iterator[Entry]:
    """The objects of a file with a JSON object a line; blank lines are left out.

    Raises:
      DataError: naming the line that is no object.
    """
    data = read_file(path)
    if data.startswith(COMPRESSED):
        raise DataError(f"{path}: is compressed; unpack it first")
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: is {a_kind(value)}, not an object")
        yield Entry(value, f"{path}:{number}")


def a_kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "null" if value is None else "a number")
