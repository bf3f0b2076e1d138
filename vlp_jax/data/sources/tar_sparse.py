"""Sparse files in a tar (`tar -S`), of which only the parts that are not zeros are stored.

The formats are GNU tar's own one and its pax formats 0.0, 0.1 and 1.0.
https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html
"""

import dataclasses
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

BLOCK = 512
# bytes: larger files are not read, because a map of a few bytes could claim any size
LARGEST = 1 << 28
MOST_PARTS = 1 << 16


@dataclasses.dataclass(frozen=True)
class SparseMap:
    """The parts of a sparse file that are stored, one after the other.

    Attributes:
      size: size of the file in bytes.
      parts: (first byte, size) of each part.
    """

    size: int
    parts: tuple[tuple[int, int], ...]

    def check(self, stored: int) -> None:
        """Checks that the map is valid for `stored` bytes of stored data.

        Raises:
          ValueError: if it is not.
        """
        end = 0
        for first, size in self.parts:
            if size < 0 or first < end:
                raise ValueError("the map of a sparse file is out of order")
            end = first + size
        if end > self.size or sum(size for _, size in self.parts) > stored:
            raise ValueError("the map of a sparse file leaves it")

    def expand(self, stored: bytes) -> bytes:
        """The bytes of the file."""
        file, place = bytearray(self.size), 0
        for first, size in self.parts:
            file[first : first + size] = stored[place : place + size]
            place += size
        return bytes(file)


def old_gnu_map(
    file: BinaryIO, header: bytes, data: int, number: Callable[[bytes], int]
) -> tuple[int, SparseMap]:
    """The map in a header of type S and the blocks after it.

    Args:
      file: the tar.
      header: the header.
      data: position after the header.
      number: parses a numeric field.

    Returns: (size in bytes of the blocks of the map, which precede the data; the map).

    Raises:
      ValueError: if the map is damaged.
      EOFError: if the tar ends inside it.
    """
    parts, block, skipped = [], header[386:482], 0
    more = header[482]
    while True:
        for place in range(0, len(block), 24):
            entry = block[place : place + 24]
            if not entry.strip(b"\0"):
                break
            parts.append((number(entry[:12]), number(entry[12:])))
        if not more:
            return skipped, SparseMap(number(header[483:495]), tuple(parts))
        following = _block(file, data + skipped)
        if len(parts) > MOST_PARTS:
            raise ValueError("the map of a sparse file has no end")
        skipped, block, more = skipped + BLOCK, following[:504], following[504]


def pax_map(
    file: BinaryIO, name: str, data: int, given: list[tuple[str, str]]
) -> tuple[str, int, SparseMap]:
    """The map in the pax attributes `GNU.sparse.*`.

    Args:
      file: the tar.
      name: name of the member.
      data: position of its data.
      given: the attributes, without `GNU.sparse.`.

    Returns: (name of the file, number of bytes of its data that are the map, the map).

    Raises:
      ValueError: if the map is damaged or its format unknown.
      EOFError: if the tar ends inside it.
    """
    fields = dict(given)
    name, size = fields.get("name") or name, fields.get("realsize") or fields.get("size")
    if size is None:
        raise ValueError("a sparse file of no size")
    if (fields.get("major"), fields.get("minor")) == ("1", "0"):
        parts, skipped = _map_before_data(file, data)
        return name, skipped, SparseMap(int(size), parts)
    if fields.get("major", "0") != "0":
        raise ValueError(f"sparse files of the format {fields.get('major')}.{fields.get('minor')}")
    if "map" in fields:
        numbers = [int(number) for number in fields["map"].split(",")] if fields["map"] else []
    else:
        numbers = [int(value) for field, value in given if field in ("offset", "numbytes")]
    if len(numbers) % 2:
        raise ValueError("the map of a sparse file is not one of pairs")
    return name, 0, SparseMap(int(size), tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _map_before_data(file: BinaryIO, data: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """The map of format 1.0: decimal numbers, one a line, their count first, padded to full blocks.

    Raises ValueError and EOFError.
    """
    text, count, lines = b"", None, 0
    while count is None or lines <= 2 * count:
        block = _block(file, data + len(text))
        text, lines = text + block, lines + block.count(b"\n")
        if count is None:
            count = int(text.partition(b"\n")[0])
            if not 0 <= count <= MOST_PARTS:
                raise ValueError("the map of a sparse file has no end")
    numbers = [int(number) for number in text.split(b"\n", 2 * count + 1)[1 : 2 * count + 1]]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True)), len(text)


def _block(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise EOFError
    return block


def to_array(maps: dict[int, SparseMap]) -> np.ndarray:
    """The maps, keyed by the first byte of their data, in one int64 array [N]."""
    flat: list[int] = []
    for place, found in maps.items():
        flat += [
            place,
            found.size,
            len(found.parts),
            *(number for part in found.parts for number in part),
        ]
    return np.array(flat, np.int64)


def from_array(flat: np.ndarray) -> dict[int, SparseMap]:
    """The argument of `to_array`, from its result."""
    numbers, maps, place = flat.tolist(), {}, 0
    while place < len(numbers):
        data, size, count = numbers[place : place + 3]
        parts = numbers[place + 3 : place + 3 + 2 * count]
        maps[data] = SparseMap(size, tuple(zip(parts[::2], parts[1::2], strict=True)))
        place += 3 + 2 * count
    return maps
