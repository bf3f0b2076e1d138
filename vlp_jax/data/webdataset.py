"""WebDataset: tar files in which neighbouring members that share a name up to its first dot are one sample."""

import dataclasses
import json
import os
import re
import tarfile
import threading

import numpy as np

from vlp_jax.data.patterns import find_files
from vlp_jax.data.samples import Reason, Sample, SampleError, check_captions, check_index, fingerprint_of
from vlp_jax.errors import DataError

BLOCK = tarfile.BLOCKSIZE
IMAGE, JSON, TEXT = range(3)
ROLES = {"png": IMAGE, "jpg": IMAGE, "jpeg": IMAGE, "webp": IMAGE, "json": JSON, "txt": TEXT}
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


@dataclasses.dataclass
class TarIndex:
    """Where the samples of a tar lie: 24 bytes a sample beside its key.

    members: [N, 3, 2] uint32, for the image, the JSON and the text of a sample: first block + 1 (0 if it has none),
    size in bytes. keys: all keys in UTF-8, one after the other; ends: [N] int64, where each one ends.
    """

    members: np.ndarray
    keys: bytes
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def key(self, row: int) -> str:
        return self.keys[self.ends[row - 1] if row else 0 : self.ends[row]].decode()


def index_tar(path: str) -> TarIndex:
    """Reads the headers of one tar. Raises: DataError if it is not a tar, is cut off, or has a member that leaves it."""
    keys, members, roles_of_last = [], [], None
    for name, block, size in _regular_members(path):
        key, role = _key_and_role(name)
        if role is None:
            continue
        if not keys or keys[-1] != key:
            keys.append(key)
            roles_of_last = [[0, 0], [0, 0], [0, 0]]
            members.append(roles_of_last)
        if roles_of_last[role][0]:
            raise DataError(f"{path}: {name}: sample {key!r} has two members of this kind")
        roles_of_last[role] = [block + 1, size]
    encoded = [key.encode() for key in keys]
    ends = np.cumsum([len(key) for key in encoded], dtype=np.int64)
    return TarIndex(np.array(members, np.uint32).reshape(-1, 3, 2), b"".join(encoded), ends)


def _regular_members(path):
    """Yields (name, first block, size) of the regular files in the tar, in order."""
    try:
        with tarfile.open(path, "r:", errors="strict") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # or a tar of a million members would keep them all
                if os.path.isabs(member.name) or ".." in member.name.split("/"):
                    raise DataError(f"{path}: member {member.name!r} leaves the folder of the tar; refusing to read it")
                if member.isreg():
                    yield member.name, member.offset_data // BLOCK, member.size
            end, size = tar.offset, os.path.getsize(path)
            tar.fileobj.seek(end)
            if tar.fileobj.read(BLOCK) != tarfile.NUL * BLOCK:
                state = "it was cut off or is still being written" if end >= size else "its next header is damaged"
                raise DataError(f"{path}: no end mark at byte {end} of {size}; {state}")
    except (tarfile.TarError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: {_why_not_a_tar(path, error)}") from error


def _why_not_a_tar(path: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b" or magic[:4] == b"\x28\xb5\x2f\xfd" or magic == b"\xfd7zXZ\x00" or magic[:3] == b"BZh":
        return "is compressed; samples are read at random, so unpack it to a plain tar first"
    if "unexpected end" in str(error) or "truncated" in str(error):
        return f"is cut off: the tar ends in the middle of a member ({os.path.getsize(path)} bytes are there)"
    return f"is not a tar file ({error})"


def _key_and_role(name: str) -> tuple[str, int | None]:
    """Splits a member's name at the first dot after the last slash, as the webdataset library does."""
    match = _NAME.fullmatch(name)
    return (match.group(1), ROLES.get(match.group(2).lower())) if match else (name, None)


class WebDatasetSource:
    """The samples of some tar files, in the order of `paths`.

    A sample has an image (.png .jpg .jpeg .webp) and a caption: `caption` or `captions` in its .json, or its .txt.
    Args: paths: tar files. spec: the name this source goes by in messages.
    Raises: DataError for a tar that is damaged, and for tars without a single sample.
    """

    def __init__(self, paths: list[str], spec: str):
        self.spec = spec
        self.paths = list(paths)
        self.indexes = [index_tar(path) for path in self.paths]
        self.starts = np.cumsum([0, *map(len, self.indexes)])
        if len(self) == 0:
            raise DataError(f"{spec}: no sample in {len(self.paths)} tar file(s); members must be named KEY.jpg, KEY.txt")
        self.__setstate__({})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = index - int(self.starts[shard])
        tar = self.indexes[shard]
        key = tar.key(row)
        image, fields, text = (self._read(shard, key, *map(int, member)) for member in tar.members[row])
        if image is None:
            raise SampleError(Reason.MISSING_IMAGE, key, "has no image")
        captions, metadata = parse_fields(key, fields, text)
        return Sample(key, image, captions, metadata)

    def fingerprint(self) -> str:
        """Stands for the names, sizes and number of samples of the tars and the keys in them."""
        shards = [
            [os.path.basename(path), len(tar), int(tar.members[..., 1].sum(dtype=np.int64)), fingerprint_of(tar.keys.hex())]
            for path, tar in zip(self.paths, self.indexes, strict=True)
        ]
        return fingerprint_of("webdataset", shards)

    def _read(self, shard: int, key: str, block: int, size: int) -> bytes | None:
        if block == 0:
            return None
        try:
            data = os.pread(self._file(shard), size, (block - 1) * BLOCK)
        except OSError as error:
            raise DataError(f"{self.paths[shard]}: cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise SampleError(Reason.DAMAGED_RECORD, key, f"{self.paths[shard]} became shorter since it was indexed")
        return data

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            return self._files[shard]

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_lock")}

    def __setstate__(self, state):
        self.__dict__.update(state, _files={}, _lock=threading.Lock())

    def __del__(self):
        for file in getattr(self, "_files", {}).values():
            os.close(file)


def parse_fields(key: str, fields: bytes | None, text: bytes | None) -> tuple[tuple[str, ...], dict]:
    """The captions and the metadata of a sample from its .json and .txt members.

    `caption` comes before a list `captions`, both before the .txt; a `captions` that maps languages is metadata.
    Raises: SampleError.
    """
    try:
        metadata = json.loads(fields) if fields is not None else {}
        text = text.decode() if text is not None else None
    except ValueError as error:
        raise SampleError(Reason.DAMAGED_TEXT, key, f"its text cannot be read: {error}") from error
    if not isinstance(metadata, dict):
        raise SampleError(Reason.WRONG_TYPE, key, f"its .json is {type(metadata).__name__}, not an object")
    first = metadata.pop("caption", None)
    several = None if isinstance(metadata.get("captions"), dict) else metadata.pop("captions", None)
    if first is None and several is None:
        return check_captions(text, key), metadata
    if isinstance(first, str) and isinstance(several, list):
        several = [first, *several]
    elif several is None or first is not None:
        several = first
    return check_captions(several, key), metadata


def open_webdataset(pattern: str) -> WebDatasetSource:
    """The tar files of a pattern. Raises: DataError; see `find_files` and `WebDatasetSource`."""
    return WebDatasetSource(find_files(pattern, "webdataset"), f"webdataset:{pattern}")
