"""Indexes of data files: where their samples are, found by reading each file once and then stored.

The index of `/data/x.tar` is `/data/.x.tar.webdataset-index`. For remote data, and for data in a
folder that cannot be written, it is in `$VLP_JAX_CACHE/indexes` (by default
`~/.cache/vlp_jax/indexes`). It is rebuilt when the size, the time of change (in nanoseconds) or the
inode of the file differs. It appears under its name only when it is complete and on the disk. It is
mapped into memory instead of being read, so processes share its pages. A file of up to 1 MiB has no
index; it is read again instead.

The format is one line of 8 hexadecimal digits, the CRC-32 of the rest of the header; then JSON,
padded so that the header has 1024 bytes; then the arrays, each padded to 64 bytes. The JSON has a
CRC-32 of each array. Small arrays are checked when the index is opened, others when they are first
used.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vlp_jax.data.notifications import message_while_waiting
from vlp_jax.data.sources.filesystem import size_and_version
from vlp_jax.data.sources.local_files import Stamp, local_path
from vlp_jax.errors import DataError

FORMAT = 3
HEADER, ALIGNMENT = 1024, 64  # bytes
LONGEST_VERSION = 64  # characters
SMALL = 1 << 20  # bytes
CHECKED_AT_ONCE = 1 << 16  # bytes
# seconds: an older unfinished index of another machine is left over from a killed process
ABANDONED = 86_400
AT_ONCE = 8  # remote files indexed at the same time
AT_ONCE_HERE = 4  # local files indexed at the same time: the disk may be mounted and slow

Arrays = Mapping[str, np.ndarray]


class Index(Mapping[str, np.ndarray]):
    """Named arrays. Pickles as the name of the file that they are mapped from, where there is one.

    Args:
      arrays: the arrays by name.
      path: the file that they are mapped from; None if they are in memory only.
      stamp: format, kind, size and version of the indexed file.
      sums: the CRC-32 of arrays that are not checked yet.
    """

    def __init__(
        self,
        arrays: Arrays,
        path: str | None = None,
        stamp: dict | None = None,
        sums: Mapping[str, int] | None = None,
    ):
        self.arrays, self.path, self.stamp, self.sums = arrays, path, stamp or {}, dict(sums or {})

    def __getitem__(self, name: str) -> np.ndarray:
        expected = self.sums.get(name)
        if expected is not None:
            self._check(name, expected)
        return self.arrays[name]

    @property
    def file(self) -> Stamp | None:
        """The `size_and_version` of the file when it was indexed."""
        return (self.stamp["size"], self.stamp["version"]) if self.stamp else None

    def count(self, name: str) -> int:
        """The length of an array, without reading the array."""
        return len(self.arrays[name])

    def _check(self, name: str, expected: int) -> None:
        """Raises DataError for a damaged index and removes it, so that the next start builds
        another one."""
        if zlib.crc32(self.arrays[name].data) != expected:
            with contextlib.suppress(OSError):
                os.remove(self.path or "")
            raise DataError(
                f"{self.path}: this index is damaged, and was removed; start again, "
                "and it is rebuilt"
            )
        self.sums.pop(name, None)  # another thread may have removed it already

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __reduce__(self):
        return (
            (_reopen, (self.path, self.stamp))
            if self.path
            else (Index, (self.arrays, None, self.stamp))
        )


def load_indexes(
    paths: list[str], kind: str, build: Callable[[str], Arrays], spec: str
) -> list[Index]:
    """The indexes of some files, stored ones where they are valid; others are built by
    `build(path)` and stored.

    Args:
      paths: the files.
      kind: identifies everything that decides an index apart from the file itself; part of the name
        of the stored index.
      build: returns the arrays of one file.
      spec: name of the source in messages.

    Raises:
      DataError: if a file is missing or changes while it is indexed; and whatever `build` raises.
    """
    indexes = []
    with (
        message_while_waiting(lambda: f"indexing {spec}: {len(indexes)} of {len(paths)} files"),
        ThreadPoolExecutor(AT_ONCE if local_path(paths[0]) is None else AT_ONCE_HERE) as pool,
    ):
        for index in pool.map(lambda path: _load_index(path, kind, build), paths):
            indexes.append(index)
    return indexes


def _load_index(path: str, kind: str, build: Callable[[str], Arrays]) -> Index:
    size, version = size_and_version(path)
    version = (
        version if len(version) <= LONGEST_VERSION else hashlib.sha256(version.encode()).hexdigest()
    )
    stamp = {"format": FORMAT, "kind": kind, "size": size, "version": version}
    places = list(_places(path, kind)) if size > SMALL else []
    for place in places:
        found = _read(place, stamp)
        if found is not None:
            return found
    arrays = build(path)
    if local_path(path) is not None and size_and_version(path) != (size, version):
        raise DataError(f"{path}: changed while it was indexed; is it still being written?")
    for place in places:
        if _write(place, stamp, arrays):
            return _read(place, stamp) or Index(arrays, None, stamp)
    return Index(arrays, None, stamp)


def _places(path: str, kind: str) -> Iterator[str]:
    """Where an index may be stored, the best place first."""
    here = local_path(path)
    if here is not None:
        folder, name = os.path.split(os.path.abspath(here))
        path = f"{folder}/{name}"
        if os.stat(folder).st_mode & 0o222:  # root could write also into a read-only folder
            yield f"{folder}/.{name}.{kind}-index"
    default = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "vlp_jax")
    cache = pathlib.Path(os.environ.get("VLP_JAX_CACHE") or default).expanduser()
    yield str(
        cache
        / "indexes"
        / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:32]}.{kind}-index"
    )


def _read(place: str, stamp: dict) -> Index | None:
    """The index stored at `place`; None if there is no valid one, or if it belongs to another
    stamp."""
    try:
        with open(place, "rb") as file:
            sum_of_header, _, header = file.read(HEADER).partition(b" ")
            if int(sum_of_header, 16) != zlib.crc32(header):
                return None
            header = json.loads(header)
            whole = os.fstat(file.fileno()).st_size == header["bytes"]
        if not whole or header["stamp"] != stamp:
            return None
        memory = np.asarray(np.memmap(place, np.uint8, "r"))
        arrays = {
            name: memory[start : start + size].view(dtype).reshape(shape)
            for name, dtype, shape, start, size, _ in header["arrays"]
        }
        sums = {name: crc for name, *_, crc in header["arrays"]}
        for name in [name for name in sums if arrays[name].nbytes <= CHECKED_AT_ONCE]:
            if zlib.crc32(arrays[name]) != sums.pop(name):
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Index(arrays, place, stamp, sums)


def _write(place: str, stamp: dict, arrays: Arrays) -> bool:
    """Stores an index and returns once all of it is on the disk; False where nothing can be
    written."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries, end = [], HEADER
    for name, array in arrays.items():
        entries.append(
            [name, array.dtype.str, array.shape, end, array.nbytes, zlib.crc32(array.data)]
        )
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = (
        json.dumps({"stamp": stamp, "bytes": end, "arrays": entries}).encode().ljust(HEADER - 10)
        + b"\n"
    )
    folder, name = os.path.split(place)
    partial = None
    try:
        os.makedirs(folder, exist_ok=True)
        _sweep(place)
        prefix = f"{_partial_name(name)}{os.uname().nodename}-{os.getpid()}-"
        with tempfile.NamedTemporaryFile(dir=folder, prefix=prefix, delete=False) as file:
            partial = file.name
            file.write(b"%08x " % zlib.crc32(header) + header)
            for array in arrays.values():
                file.write(array.data)
                file.write(bytes(-array.nbytes % ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, place)
        return True
    except OSError:
        if partial:
            with contextlib.suppress(OSError):
                os.remove(partial)
        return False


def _partial_name(name: str) -> str:
    """Prefix of the name of an unfinished index; short, because the file's own name may have the
    maximal length."""
    return f".partial-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:16]}-"


def _sweep(place: str) -> None:
    """Removes unfinished indexes of killed processes; those of other machines after a day."""
    folder, name = os.path.split(place)
    start = os.path.join(glob.escape(folder), _partial_name(name))
    for partial in glob.glob(f"{start}*"):
        host, _, rest = (
            os.path.basename(partial)
            .removeprefix(_partial_name(name))
            .rpartition("-")[0]
            .rpartition("-")
        )
        with contextlib.suppress(OSError):
            here = host == os.uname().nodename and rest.isdecimal()
            if (
                not _is_alive(int(rest))
                if here
                else time.time() - os.stat(partial).st_mtime > ABANDONED
            ):
                os.remove(partial)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _reopen(path: str, stamp: dict) -> Index:
    index = _read(path, stamp)
    if index is None:
        raise DataError(
            f"{path}: this index is gone or has changed since the source was opened; "
            "open the source again"
        )
    return index
