"""Indexes: what reading a file once tells about where its samples lie, kept so that it is read once only.

The index of `/data/x.tar` is `/data/.x.tar.webdataset-index`; that of remote data, or of data in a folder that cannot
be written, lies in `$VLP_JAX_CACHE/indexes` (by default `~/.cache/vlp_jax/indexes`). It is rebuilt when the file has
changed, appears under its name only when whole, and is mapped into memory, not read: processes share its pages. A file
of up to 1 MiB is read again instead, and leaves no index.
Its format is one line of JSON, padded to 1024 bytes, then the arrays, each padded to 64 bytes.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vlp_jax.data.notices import said_while_waiting
from vlp_jax.data.storage import scheme_of, size_and_version
from vlp_jax.errors import DataError

FORMAT = 2
HEADER, ALIGNMENT = 1024, 64  # bytes
SMALL = 1 << 20  # bytes
AT_ONCE = 8  # remote files indexed at the same time
AT_ONCE_HERE = 4  # the same of local ones: the disk may be a mounted one that answers late

Arrays = dict[str, np.ndarray]


class Index(Mapping[str, np.ndarray]):
    """Named arrays. Pickles as the name of the file they are mapped from, where there is one."""

    def __init__(self, arrays: Arrays, path: str | None = None, stamp: dict | None = None):
        self.arrays, self.path, self.stamp = arrays, path, stamp

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __reduce__(self):
        return (_reopen, (self.path, self.stamp)) if self.path else (Index, (self.arrays,))


def load_indexes(paths: list[str], kind: str, build: Callable[[str], Arrays], spec: str) -> list[Index]:
    """The indexes of some files, stored ones where they are still right, else built now by `build(path)` and stored.

    Args: kind: stands for all that decides an index beside the file itself; part of the name it is stored by.
      spec: what messages call the source.
    Raises: DataError if a file is missing, and whatever `build` raises.
    """
    indexes = []
    with (
        said_while_waiting(lambda: f"indexing {spec}: {len(indexes)} of {len(paths)} files"),
        ThreadPoolExecutor(AT_ONCE if scheme_of(paths[0]) else AT_ONCE_HERE) as pool,
    ):
        for index in pool.map(lambda path: _load_index(path, kind, build), paths):
            indexes.append(index)
    return indexes


def _load_index(path: str, kind: str, build: Callable[[str], Arrays]) -> Index:
    size, version = size_and_version(path)
    stamp = {"format": FORMAT, "kind": kind, "size": size, "version": version}
    places = list(_places(path, kind)) if size > SMALL else []
    for place in places:
        found = _read(place, stamp)
        if found is not None:
            return found
    arrays = build(path)
    for place in places:
        if _write(place, stamp, arrays):
            return _read(place, stamp) or Index(arrays)
    return Index(arrays)


def _places(path: str, kind: str) -> Iterator[str]:
    """Where an index may lie, the best place first."""
    if not scheme_of(path):
        folder, name = os.path.split(os.path.abspath(path))
        path = f"{folder}/{name}"
        if os.stat(folder).st_mode & 0o222:  # root may write where nobody should
            yield f"{folder}/.{name}.{kind}-index"
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "vlp_jax")
    cache = pathlib.Path(os.environ.get("VLP_JAX_CACHE") or default).expanduser()
    yield str(cache / "indexes" / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:32]}.{kind}-index")


def _read(place: str, stamp: dict) -> Index | None:
    """The index stored there; None if there is none, or it is of another file than the one that `stamp` stands for."""
    try:
        with open(place, "rb") as file:
            header = json.loads(file.read(HEADER))
            whole = os.fstat(file.fileno()).st_size == header["bytes"]
        if not whole or header["stamp"] != stamp:
            return None
        memory = np.asarray(np.memmap(place, np.uint8, "r"))
        arrays = {
            name: memory[start : start + size].view(dtype).reshape(shape)
            for name, dtype, shape, start, size in header["arrays"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Index(arrays, place, stamp)


def _write(place: str, stamp: dict, arrays: Arrays) -> bool:
    """Stores an index; False where nothing can be written."""
    entries, end = [], HEADER
    for name, array in arrays.items():
        entries.append([name, array.dtype.str, array.shape, end, array.nbytes])
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({"stamp": stamp, "bytes": end, "arrays": entries}).encode().ljust(HEADER - 1) + b"\n"
    folder, partial = os.path.dirname(place), None
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".partial-", delete=False) as file:
            partial = file.name
            file.write(header)
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).data)
                file.write(bytes(-array.nbytes % ALIGNMENT))
        os.chmod(partial, 0o644)
        os.replace(partial, place)
        return True
    except OSError:
        if partial:
            with contextlib.suppress(OSError):
                os.remove(partial)
        return False


def _reopen(path: str, stamp: dict) -> Index:
    index = _read(path, stamp)
    if index is None:
        raise DataError(f"{path}: this index is gone or has changed since the source was opened; open the source again")
    return index
