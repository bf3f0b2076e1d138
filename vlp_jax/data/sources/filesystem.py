"""Bytes of files on this machine or behind a URL that fsspec reads (`gs://`, `s3://`, `https://`,
`memory://`, ...).

No file stays open between reads, so the sources built on this module can be pickled, forked, and
read from many threads. Only regular files are read: reading a named pipe could wait for ever, and a
device such as /dev/zero has no end.
"""

import contextlib
import errno
import io
import os
import posixpath
from collections.abc import Generator
from typing import BinaryIO

from vlp_jax.data.sources.local_files import (
    Stamp,
    check_status,
    local_path,
    open_regular,
    scheme_of,
    stamp_of,
)
from vlp_jax.data.sources.ranges import (
    BUFFER,
    WEB,
    RemoteFile,
    WrongAnswerError,
    fetch_range,
    is_web,
    web_info,
)
from vlp_jax.errors import DataError

MOUNTS = {
    "gs": "gcsfuse",
    "s3": "mount-s3",
    "az": "blobfuse2",
    "abfs": "blobfuse2",
    "abfss": "blobfuse2",
}
# first bytes of gzip, zstd, xz and bzip2 files
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class MissingFileError(DataError):
    """There is no such file."""


class ChangedFileError(DataError):
    """A file is no longer the one that was indexed."""

    def __init__(self, path: str):
        super().__init__(
            f"{path}: has changed since it was indexed; start again, or bring the old file back"
        )


def refuse_remote(path: str, spec: str, supported: tuple[str, ...] = ()) -> None:
    """Checks that a path is local or has a supported scheme.

    Args:
      path: path or URL.
      spec: name of the source in the message.
      supported: schemes that the kind reads.

    Raises:
      DataError: if the scheme is not supported. The message names the mount to use.
    """
    scheme = scheme_of(path)
    if scheme and scheme not in supported:
        kind = spec.partition(":")[0]
        read = " and ".join(["local paths", *(f"{name}://" for name in supported)])
        mount = MOUNTS.get(scheme, "rclone mount")
        raise DataError(
            f"{spec}: {kind} reads {read} only; mount it (with {mount}) and give the mounted path"
        )


def join(folder: str, name: str) -> str:
    """The path of `name` in a local or remote folder."""
    return posixpath.join(folder, name) if scheme_of(folder) else os.path.join(folder, name)


def folder_of(path: str) -> str:
    """The folder of a local or remote file."""
    if not scheme_of(path):
        return os.path.dirname(path) or "."
    folder = path.rpartition("/")[0]
    return f"{folder}/" if folder.endswith(":/") else folder


def read_file(path: str) -> bytes:
    """All bytes of a file.

    Raises:
      MissingFileError: if there is none.
      DataError: if it cannot be read.
    """
    with _one_line_errors(path):
        here = local_path(path)
        if here is None:
            filesystem, name = _filesystem(path)
            return filesystem.cat_file(name)
        with open(open_regular(here)[0], "rb", buffering=0) as file:
            return file.readall()


def read_range(path: str, start: int, size: int, stamp: Stamp | None = None) -> bytes:
    """`size` bytes from byte `start` on; fewer where a local file ends earlier.

    Args:
      path: the file.
      start: first byte.
      size: number of bytes.
      stamp: `size_and_version` of the expected file, where it is known.

    Raises:
      MissingFileError, DataError: as `read_file`; DataError also if a web server's file has another
        size.
      ChangedFileError: if a local file has another stamp.
    """
    if size <= 0:
        return b""
    with _one_line_errors(path):
        here = local_path(path)
        if here is None:
            filesystem, name = _filesystem(path)
            return fetch_range(filesystem, name, start, size, stamp and stamp[0])
        file, status = open_regular(here)
        try:
            if stamp is not None and stamp_of(status) != stamp:
                raise ChangedFileError(path)
            data = os.pread(file, size, start)
            while len(data) < size:  # one call returns at most 2 GiB
                more = os.pread(file, size - len(data), start + len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(file)


@contextlib.contextmanager
def open_file(path: str) -> Generator[BinaryIO, None, None]:
    """Context with the file, to be read sequentially or with seeks.

    Raises:
      MissingFileError, DataError: as `read_file`, also while it is read.
    """
    with _one_line_errors(path), open_binary(path) as file:
        yield file


def open_binary(path: str) -> BinaryIO:
    """The file, which the caller closes.

    Raises:
      MissingFileError, DataError: as `read_file`, if it cannot be opened. Later reads raise the
        errors of the storage.
    """
    with _one_line_errors(path):
        here = local_path(path)
        if here is not None:
            return open(open_regular(here)[0], "rb")
        filesystem, name = _filesystem(path)
        size = _remote_stamp(filesystem, name)[0]

        def read(start: int, count: int) -> bytes:
            with _one_line_errors(path):
                return fetch_range(filesystem, name, start, count, size)

        return io.BufferedReader(RemoteFile(read, size), BUFFER)


def size_and_version(path: str) -> Stamp:
    """The size of a file, and a text that changes when the file does.

    For a local file that text is the time of its last change in nanoseconds and its inode, where
    the file system keeps one.

    Raises:
      MissingFileError, DataError: as `read_file`.
    """
    with _one_line_errors(path):
        here = local_path(path)
        if here is None:
            return _remote_stamp(*_filesystem(path))
        status = os.stat(here)
        check_status(here, status)
        return stamp_of(status)


def _remote_stamp(filesystem, name) -> Stamp:
    info = web_info(filesystem, name) if is_web(filesystem) else filesystem.info(name)
    if info.get("size") is None:
        raise WrongAnswerError(
            "its server states no size, and it is read in ranges; copy it to this machine"
        )
    # fsspec's key of a web file depends only on its address
    headers = info.get("ETag") or info.get("Last-Modified") or ""
    return int(info["size"]), str(headers if is_web(filesystem) else filesystem.ukey(name))


def size_or_none(path: str) -> int | None:
    """The size of a file; None if there is none."""
    try:
        return size_and_version(path)[0]
    except MissingFileError:
        return None


def remote_matches(pattern: str) -> list[str]:
    """The remote files that match a glob or a plain name.

    Raises:
      DataError: if the storage cannot be read.
    """
    with _one_line_errors(pattern):
        filesystem, name = _filesystem(pattern)
        if _is_there(filesystem, name):
            return [pattern]
        found = filesystem.glob(name) if set(name) & set("*?[") else []
        return sorted(str(filesystem.unstrip_protocol(path)) for path in found)


def _is_there(filesystem, name) -> bool:
    if not is_web(filesystem) or set(name) & set("*["):
        return filesystem.exists(name)
    try:
        web_info(filesystem, name)
    except FileNotFoundError:
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether a local or remote path is a folder.

    Web servers have only files, so no request is made.
    """
    if not scheme_of(path):
        return os.path.isdir(path)
    if scheme_of(path) in WEB:
        return False
    with _one_line_errors(path):
        filesystem, name = _filesystem(path)
        return filesystem.isdir(name)


def names_in(folder: str) -> list[str]:
    """The names of the files in a folder; empty where it cannot be listed, as on servers that serve
    only files."""
    try:
        with _one_line_errors(folder):
            if not scheme_of(folder):
                return os.listdir(folder)
            filesystem, name = _filesystem(folder)
            return [posixpath.basename(path) for path in filesystem.ls(name, detail=False)]
    except DataError:
        return []


def _filesystem(path):
    """The fsspec file system of a path, and the path in it.

    fsspec keeps one object for each kind of storage and creates another one in a forked process.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened: {error}") from error


@contextlib.contextmanager
def _one_line_errors(path):
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        if isinstance(error, WrongAnswerError):
            raise DataError(f"{path}: {error}") from error
        if isinstance(error, FileNotFoundError) or error.errno in _ABSENT:
            raise MissingFileError(f"{path}: no such file") from error
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        if not scheme_of(path):
            raise
        raise DataError(
            f"{path}: cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
