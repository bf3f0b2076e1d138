"""Where the samples of a tar file lie, from its headers."""

import array
import dataclasses
import hashlib

import numpy as np

from vlp_jax.data.index import Arrays, Index
from vlp_jax.data.local_files import Stamp
from vlp_jax.data.member_checks import MemberChecks
from vlp_jax.data.storage import COMPRESSED, open_file
from vlp_jax.data.tar_headers import BLOCK, CutOffError, TarError, read_members
from vlp_jax.errors import DataError

IMAGE, JSON, TEXT = range(3)
ROLES = {"png": IMAGE, "jpg": IMAGE, "jpeg": IMAGE, "webp": IMAGE, "json": JSON, "txt": TEXT}


@dataclasses.dataclass
class TarIndex:
    """Where the samples of a tar lie: 40 bytes a sample beside its key.

    members: [N, 3, 2] uint32, for the image, the JSON and the text of a sample: first block + 1 (0 if it has none),
    size in bytes. keys: uint8, all keys in UTF-8, one after the other; ends: [N] uint32, where each one ends.
    digest: uint8 [32], of the keys and the sizes. cut: int64 [1], the byte that a tar is good to
    which was cut off, and of whose last sample something may be missing; empty for a whole one. checks: [N, 3] uint32, see
    `MemberChecks`.
    """

    arrays: Arrays

    @property
    def members(self) -> np.ndarray:
        return self.arrays["members"]

    @property
    def checks(self) -> np.ndarray:
        return self.arrays["checks"]

    @property
    def file(self) -> Stamp | None:
        """The stamp of the tar when it was indexed, where it is known."""
        return getattr(self.arrays, "file", None)

    @property
    def digest(self) -> str:
        return self.arrays["digest"].tobytes().hex()

    @property
    def cut(self) -> int | None:
        return int(self.arrays["cut"][0]) if len(self.arrays["cut"]) else None

    def __len__(self) -> int:
        return self.arrays.count("ends") if isinstance(self.arrays, Index) else len(self.arrays["ends"])

    def key(self, row: int) -> str:
        ends = self.arrays["ends"]
        return self.arrays["keys"][ends[row - 1] if row else 0 : ends[row]].tobytes().decode()


def index_tar(path: str) -> Arrays:
    """Reads the headers of one tar, as far as it goes: the arrays of a `TarIndex`.

    Raises: DataError if it is not a tar, has a damaged header, or has a member that leaves it.
    """
    samples, checks, cut = _Samples(path), MemberChecks(), []
    with open_file(path) as file:
        compressed = file.read(6).startswith(COMPRESSED)
        try:
            for name, start, size in read_members(file):
                samples.add(name, start // BLOCK, size)
                checks.add(file, start)
        except CutOffError as error:
            cut = [error.place]
        except TarError as error:
            unpack = "is compressed; samples are read at random, so unpack it to a plain tar first"
            raise DataError(f"{path}: {unpack if compressed else error}") from error
    arrays = samples.arrays()
    return arrays | {"cut": np.array(cut, np.int64), "checks": checks.of_members(arrays["members"])}


class _Samples:
    """Members of a tar, put together to samples."""

    def __init__(self, path: str):
        self.path, self.last_key = path, None
        self.keys, self.ends, self.members = bytearray(), array.array("I"), array.array("I")

    def add(self, name: str, block: int, size: int) -> None:
        if name.startswith("/") or ".." in name and ".." in name.split("/"):
            raise DataError(f"{self.path}: member {name!r} leaves the folder of the tar; refusing to read it")
        key, role = _key_and_role(name)
        if role is None:
            return
        if key != self.last_key:
            self.last_key = key
            self.keys += key.encode()
            self.ends.append(len(self.keys))
            self.members.extend([0] * 6)
        place = len(self.members) - 6 + 2 * role
        if self.members[place]:
            raise DataError(f"{self.path}: {name}: sample {key!r} has two members of this kind; give each its own name up to the "
                            "first dot")
        if size >= 2**32:
            raise DataError(f"{self.path}: {name} is larger than 4 GiB")
        self.members[place], self.members[place + 1] = block + 1, size

    def arrays(self) -> Arrays:
        members, ends = np.array(self.members, np.uint32).reshape(-1, 3, 2), np.array(self.ends, np.uint32)
        digest = hashlib.sha256()
        for part in (self.keys, ends, np.ascontiguousarray(members[..., 1])):
            digest.update(part)
        return {"members": members, "keys": np.frombuffer(bytes(self.keys), np.uint8), "ends": ends,
                "digest": np.frombuffer(digest.digest(), np.uint8)}


def _key_and_role(name: str) -> tuple[str, int | None]:
    """Splits a member's name at the first dot after the last slash, as the webdataset library does."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ROLES.get(ending.lower()) if stem else None
