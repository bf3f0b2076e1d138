"""Sequential reader of tar headers.

It reads POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU tar's long names, sparse files (see
`tar_sparse.py`), hard links, and several concatenated tars in one file. Python's tarfile does the
same several times more slowly, because it creates an object of everything in a header.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from vlp_jax.data.sources.tar_sparse import LARGEST, SparseMap, old_gnu_map, pax_map

BLOCK = 512  # bytes; headers and the data of members begin at multiples of it
REGULAR = b"\x007"  # further types of regular files, in addition to "0"
SPARSE = b"S"  # type of sparse files in GNU tar's own format
EXTENSIONS = b"xgXLK"  # types of hidden members, which hold attributes of the next member
LONGEST_EXTENSION = 1 << 20  # bytes
# bytes of zeros after the last member; GNU tar writes 10 KiB, at most about 1 MiB on request
LONGEST_PADDING = 4 << 20
LINK, SYMBOLIC_LINK = b"1", b"2"
NO_FILES = {SYMBOLIC_LINK: "symbolic links", b"3": "devices", b"4": "devices", b"6": "devices"}
NO_TARGET, NO_TAR = "hard links to files that are not there", "bytes behind its end that are no tar"


class TarError(Exception):
    """The bytes are not a tar file, or a header in it is damaged."""


class CutOffError(Exception):
    """The tar is truncated: it ends without an end mark, or in many more zeros than any padding.

    It was cut off, or is not complete yet.

    Args:
      place: number of valid bytes at the beginning.
    """

    def __init__(self, place: int):
        super().__init__(place)
        self.place = place


class TarMembers:
    """Iterator over (name, first byte of its data, size of its data) of every regular file in a
    tar, in order.

    The last member's data may extend beyond the end of a truncated tar. A hard link yields the file
    that it leads to, if `targets` has the position of its header. Other links, folders and devices
    are left out.

    Args:
      file: the tar.
      targets: result of `find_targets`; None: hard links are left out.

    Attributes, filled during the iteration:
      part: number of tars before the current one in the file.
      sparse: the maps of sparse files, by the first byte of their data. Their size is that of the
        stored data.
      links: (position of the header, name of the file it leads to) of each hard link.
      left_out: number of members that are no files, by kind.
      header, behind_header: the newest header, and the position after it.

    Raises during the iteration:
      TarError: if a header is damaged.
      CutOffError: after the last existing member of a truncated tar.
    """

    def __init__(self, file: BinaryIO, targets: Mapping[int, tuple[int, int]] | None = None):
        self.header, self.behind_header = b"", 0
        self.file, self.targets, self.part = file, {} if targets is None else targets, 0
        self.sparse: dict[int, SparseMap] = {}
        self.links: list[tuple[int, str]] = []
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        file, extension = self.file, {}
        end, place = file.seek(0, 2), 0
        while True:
            file.seek(place)
            header = file.read(BLOCK)
            if len(header) < BLOCK:
                raise (
                    CutOffError(end)
                    if place
                    else TarError(f"is not a tar file ({end} bytes are less than a header)")
                )
            if not any(header):
                following = self._behind_end_mark(place, end)
                if following is None:
                    return
                place, extension, self.part = following, {}, self.part + 1
                continue
            try:
                kind, size = header[156:157], _checked_size(header)
                data = place + BLOCK
                self.header, self.behind_header = header, data
                if kind in EXTENSIONS:
                    extension |= _extension(file, kind, data, size)
                else:
                    name, size = (
                        extension.get("path") or _name(header),
                        int(extension.get("size", size)),
                    )
                    if size < 0:
                        raise ValueError(f"a size of {size} bytes")
                    # links, devices and folders have no data, whatever size the header has
                    if kind in b"123456":
                        if kind != b"5":
                            yield from self._no_file(kind, place, name, header, extension)
                        size = 0
                    elif kind == SPARSE or extension.get("sparse"):
                        name, data, size = self._sparse(
                            header, name, data, size, extension.get("sparse")
                        )
                        if data in self.sparse:
                            yield name, data, size
                    # the oldest tars mark folders by a slash
                    elif kind == b"0" or kind in REGULAR and not name.endswith("/"):
                        yield name, data, size
                    extension = {}
            except UnicodeDecodeError as error:
                raise TarError(
                    f"the name of the member at byte {place} is not UTF-8; write the "
                    "tar with names in UTF-8"
                ) from error
            except EOFError as error:
                raise CutOffError(end) from error
            except ValueError as error:
                what = (
                    f"the header at byte {place} of {end} is damaged"
                    if place
                    else "is not a tar file"
                )
                raise TarError(f"{what} ({error})") from error
            place = data - (-size // BLOCK) * BLOCK

    def _behind_end_mark(self, place: int, end: int) -> int | None:
        """Position of the next tar after the zeros at `place`; None if none follows in the file."""
        self.file.seek(place)
        zeros = 0
        while zeros < LONGEST_PADDING:
            chunk = self.file.read(min(1 << 16, LONGEST_PADDING - zeros))
            if not chunk:
                return None
            rest = chunk.lstrip(b"\0")
            zeros += len(chunk) - len(rest)
            if rest:
                break
        else:
            if end - place > LONGEST_PADDING:  # a download that allocated its file and then stopped
                raise CutOffError(place)
            return None
        following = place + zeros // BLOCK * BLOCK
        self.file.seek(following)
        header = self.file.read(BLOCK)
        try:
            _checked_size(header.ljust(BLOCK, b"\0"))
        except ValueError:
            self.left_out[NO_TAR] += end - following
            return None
        return following

    def _no_file(
        self, kind: bytes, place: int, name: str, header: bytes, extension: dict[str, Any]
    ) -> Iterator[tuple[str, int, int]]:
        """Yields the target of a hard link if it is in the tar; counts other members."""
        if kind == LINK:
            self.links.append((place, extension.get("linkpath") or _text(header[157:257])))
            if place in self.targets:
                data, size = self.targets[place]
                yield name, data, size
                return
        self.left_out[NO_FILES.get(kind, NO_TARGET)] += 1

    def _sparse(
        self, header: bytes, name: str, data: int, size: int, given: list[tuple[str, str]] | None
    ) -> tuple[str, int, int]:
        """The name of a sparse file, and position and size of its stored data."""
        if given:
            name, skipped, found = pax_map(self.file, name, data, given)
        else:
            skipped, found = old_gnu_map(self.file, header, data, _number)
        if given:
            size -= skipped  # included in a pax size, but not in GNU's own
        found.check(size)
        if found.size <= LARGEST:
            self.sparse[data + skipped] = found
        else:
            self.left_out[f"sparse files of more than {LARGEST >> 20} MiB"] += 1
        return name, data + skipped, size


def read_members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """The members of a tar; see `TarMembers`."""
    return iter(TarMembers(file))


def find_targets(file: BinaryIO, links: list[tuple[int, str]]) -> dict[int, tuple[int, int]]:
    """The positions of the data of hard links. Reads all headers again.

    The target of a link is the last earlier member with the name that the link leads to. It may be
    a link itself.

    Args:
      file: the tar.
      links: `TarMembers.links` of a first pass.

    Returns: (first byte, size) of the data, by the position of the link's header.
    """
    wanted: dict[str, list[int]] = {}
    for place, target in links:
        wanted.setdefault(target.removeprefix("./"), []).append(place)
    targets: dict[int, tuple[int, int]] = {}
    try:
        # `targets` grows meanwhile, so that links to links are found
        for name, start, size in TarMembers(file, targets):
            for place in wanted.get(name.removeprefix("./"), ()):
                if start < place:
                    targets[place] = start, size
    except CutOffError:
        pass
    return targets


def _checked_size(header: bytes) -> int:
    """The size in a header. Raises ValueError if the checksum of the header is wrong."""
    stored, field = _number(header[148:156]), header[148:156]
    # The checksum counts its own field as blanks. The low half of Adler-32 is the sum of all bytes
    # plus 1, modulo 65521.
    if zlib.adler32(header) & 0xFFFF != (1 + stored + sum(field) - 8 * ord(" ")) % 65521:
        raise ValueError("its checksum is wrong")
    return _number(header[124:136])


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary after a first byte of 0x80, which is how GNU tar
    writes large numbers."""
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


def _extension(file: BinaryIO, kind: bytes, start: int, size: int) -> dict[str, Any]:
    """The `path`, `size`, `linkpath` and `sparse` map that a hidden member sets for the next
    member.

    Raises CutOffError and ValueError.
    """
    if kind not in b"xXLK":
        return {}
    if size > LONGEST_EXTENSION:
        raise ValueError(f"a name or attributes of {size} bytes")
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise CutOffError(start + len(data))
    if kind in b"LK":
        return {"path" if kind == b"L" else "linkpath": _text(data)}
    found: dict[str, Any] = {}
    while data.strip(b"\0"):
        length = int(data.split(b" ", 1)[0])  # length of the whole record "LENGTH NAME=VALUE\n"
        if not 0 < length <= len(data):
            raise ValueError("its attributes leave it")
        name, _, value = data[:length].partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        if name in (b"path", b"size", b"linkpath"):
            found[name.decode()] = value.decode()
        elif name.startswith(b"GNU.sparse."):
            found.setdefault("sparse", []).append(
                (name.decode().removeprefix("GNU.sparse."), value.decode())
            )
        data = data[length:]
    return found
