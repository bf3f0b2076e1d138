"""Where the samples of a tar file lie, from its headers."""

import array
import dataclasses
import re
import tarfile
from collections.abc import Iterator

import numpy as np

from vlp_jax.data.index import Arrays
from vlp_jax.data.storage import COMPRESSED, open_file, read_range, size_and_version
from vlp_jax.errors import DataError

BLOCK = tarfile.BLOCKSIZE
IMAGE, JSON, TEXT = range(3)
ROLES = {"png": IMAGE, "jpg": IMAGE, "jpeg": IMAGE, "webp": IMAGE, "json": JSON, "txt": TEXT}
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


@dataclasses.dataclass
class TarIndex:
    """Where the samples of a tar lie: 24 bytes a sample beside its key.

    members: [N, 3, 2] uint32, for the image, the JSON and the text of a sample: first block + 1 (0 if it has none),
    size in bytes. keys: uint8, all keys in UTF-8, one after the other; ends: [N] int64, where each one ends.
    """

    arrays: Arrays

    @property
    def members(self) -> np.ndarray:
        return self.arrays["members"]

    def __len__(self) -> int:
        return len(self.arrays["ends"])

    def key(self, row: int) -> str:
        ends = self.arrays["ends"]
        return self.arrays["keys"][ends[row - 1] if row else 0 : ends[row]].tobytes().decode()


def index_tar(path: str) -> Arrays:
    """Reads the headers of one tar: the arrays of a `TarIndex`.

    Raises: DataError if it is not a tar, is cut off, or has a member that leaves it.
    """
    last_key, keys, ends, members = None, bytearray(), array.array("q"), array.array("I")
    for name, block, size in _regular_members(path):
        key, role = _key_and_role(name)
        if role is None:
            continue
        if key != last_key:
            last_key = key
            keys += key.encode()
            ends.append(len(keys))
            members.extend([0] * 6)
        place = len(members) - 6 + 2 * role
        if members[place]:
            raise DataError(f"{path}: {name}: sample {key!r} has two members of this kind")
        if size >= 2**32:
            raise DataError(f"{path}: {name} is larger than 4 GiB")
        members[place], members[place + 1] = block + 1, size
    return {
        "members": np.array(members, np.uint32).reshape(-1, 3, 2),
        "keys": np.frombuffer(bytes(keys), np.uint8),
        "ends": np.array(ends, np.int64),
    }


def _regular_members(path: str) -> Iterator[tuple[str, int, int]]:
    """Yields (name, first block, size) of the regular files in the tar, in order."""
    with open_file(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", errors="strict") as tar:
                yield from _members(path, tar)
                end, size = tar.offset, size_and_version(path)[0]
            file.seek(end)
            if file.read(BLOCK) != tarfile.NUL * BLOCK:
                state = "it was cut off or is still being written" if end >= size else "its next header is damaged"
                raise DataError(f"{path}: no end mark at byte {end} of {size}; {state}")
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {_why_not_a_tar(path, error)}") from error


def _members(path: str, tar: tarfile.TarFile) -> Iterator[tuple[str, int, int]]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # or a tar of a million members would keep them all
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise DataError(f"{path}: member {member.name!r} leaves the folder of the tar; refusing to read it")
        if member.isreg():
            yield member.name, member.offset_data // BLOCK, member.size


def _why_not_a_tar(path: str, error: Exception) -> str:
    if read_range(path, 0, 6).startswith(COMPRESSED):
        return "is compressed; samples are read at random, so unpack it to a plain tar first"
    if "unexpected end" in str(error) or "truncated" in str(error):
        return f"is cut off: the tar ends in the middle of a member ({size_and_version(path)[0]} bytes are there)"
    return f"is not a tar file ({error})"


def _key_and_role(name: str) -> tuple[str, int | None]:
    """Splits a member's name at the first dot after the last slash, as the webdataset library does."""
    match = _NAME.fullmatch(name)
    return (match.group(1), ROLES.get(match.group(2).lower())) if match else (name, None)
