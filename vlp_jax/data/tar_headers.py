"""Reads the headers of a tar file one after the other: POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU tar's long names.

Python's tarfile does the same, several times more slowly, since it makes an object of all that a header holds.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 512  # bytes; headers and the data of members begin at multiples of it
REGULAR = b"\x007"  # types of regular files beside "0"
EXTENSIONS = b"xgXLK"  # types of hidden members, which say more about the member behind them
LONGEST_EXTENSION = 1 << 20  # bytes
LONGEST_PADDING = 4 << 20  # bytes of zeros behind the last member; GNU tar writes 10 KiB, at most a megabyte or so if told to


class TarError(Exception):
    """These bytes are not a tar file, or a header in it is damaged."""


class CutOffError(Exception):
    """The tar ends without an end mark, or in far more zeros than any padding: it was cut off, or has not all arrived.

    Args: place: the byte that it is good to.
    """

    def __init__(self, place: int):
        super().__init__(place)
        self.place = place


def read_members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yields (name, first byte of its data, size of its data) of every regular file in a tar, in order.

    The last member's data may reach beyond the end of a tar that is cut off. Links, folders and devices are passed over.
    Raises: TarError, and CutOffError behind the last member that is there.
    """
    end, place, extension = file.seek(0, 2), 0, {}
    while True:
        file.seek(place)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise CutOffError(end) if place else TarError(f"is not a tar file ({end} bytes are less than a header)")
        if not any(header):
            if end - place > LONGEST_PADDING:  # a download that reserved its room and stopped
                raise CutOffError(place)
            return
        try:
            kind, size = header[156:157], _checked_size(header)
            data = place + BLOCK
            if kind in EXTENSIONS:
                extension |= _extension(file, kind, data, size)
            else:
                name, size = extension.get("path") or _name(header), int(extension.get("size", size))
                extension = {}
                if kind in b"123456":  # links, devices and folders have no data, whatever their size
                    size = 0
                elif kind == b"0" or kind in REGULAR and not name.endswith("/"):  # the oldest tars mark folders so
                    yield name, data, size
        except UnicodeDecodeError as error:
            raise TarError(f"the name of the member at byte {place} is not UTF-8; write the tar anew, names in UTF-8") from error
        except ValueError as error:
            what = f"the header at byte {place} of {end} is damaged" if place else "is not a tar file"
            raise TarError(f"{what} ({error})") from error
        place = data - (-size // BLOCK) * BLOCK


def _checked_size(header: bytes) -> int:
    """The size in a header. Raises: ValueError if the header does not add up to its checksum."""
    stored, field = _number(header[148:156]), header[148:156]
    # the checksum takes its own field for blanks; Adler-32 adds up all bytes, plus 1, by a modulus
    if zlib.adler32(header) & 0xFFFF != (1 + stored + sum(field) - 8 * ord(" ")) % 65521:
        raise ValueError("its checksum is wrong")
    return _number(header[124:136])


def _number(field: bytes) -> int:
    """Octal digits, or, as GNU tar writes large ones, binary behind a first byte of 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise ValueError("a number in it is none")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode()


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefixed = header[345] and header[257:263] == b"ustar\0"
    return f"{_text(header[345:500])}/{name}" if prefixed else name


def _extension(file: BinaryIO, kind: bytes, start: int, size: int) -> dict[str, str]:
    """What a hidden member says of the `path` and `size` of the one behind it. Raises: CutOffError, ValueError."""
    if kind not in b"xXL":
        return {}
    if size > LONGEST_EXTENSION:
        raise ValueError(f"a name or attributes of {size} bytes")
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise CutOffError(start + len(data))
    if kind == b"L":
        return {"path": _text(data)}
    found = {}
    while data.strip(b"\0"):
        length = int(data.split(b" ", 1)[0])  # of the whole record: "LENGTH NAME=VALUE\n"
        if not 0 < length <= len(data):
            raise ValueError("its attributes leave it")
        name, _, value = data[:length].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        if name in (b"path", b"size"):
            found[name.decode()] = value.decode()
        data = data[length:]
    return found
