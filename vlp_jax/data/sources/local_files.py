"""Files on this machine: checks that they are regular files, and stamps that show a change.

Reading a named pipe could wait for ever, and a device such as /dev/zero has no end.
"""

import errno
import functools
import os
import re
import stat

from vlp_jax.errors import DataError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_LOCAL_SCHEME = re.compile(r"(?:file|local)://(?=/)", re.IGNORECASE)
# non-blocking: opening a named pipe would wait for a writer
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
# file systems that renumber files at each mount, or from time to time
UNSTABLE_INODES = ("fuse", "9p", "cifs", "smb")
Stamp = tuple[int, str]  # (size of a file, text that changes when the file does)


class NotRegularError(DataError):
    """A path leads to a named pipe, a device, a socket or a folder; `what` is which of them, in
    words."""

    def __init__(self, path: str, what: str):
        super().__init__(f"{path}: is {what}, not a file")
        self.what = what


def scheme_of(path: str) -> str | None:
    """`gs` for `gs://bucket/file`; None for a local path."""
    match = _SCHEME.match(path)
    return match.group(1).lower() if match else None


def local_path(path: str) -> str | None:
    """The path of a file on this machine, also of a `file://` URL; None for a remote file."""
    if not scheme_of(path):
        return path
    match = _LOCAL_SCHEME.match(path)
    return path[match.end() :] if match else None


def stamp_of(status: os.stat_result) -> Stamp:
    """The size of a file; the time of its last change in nanoseconds and its inode, where the file
    system keeps one."""
    inode = status.st_ino if _inodes_are_stable(status.st_dev) else 0
    return status.st_size, f"{status.st_mtime_ns}-{inode}"


@functools.cache
def _inodes_are_stable(device: int) -> bool:
    """Whether a device's file system keeps the inodes of its files, judged by the mounts that Linux
    lists."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    return not after.startswith(UNSTABLE_INODES)
    except (OSError, IndexError):
        pass
    return True


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of a local file, which the caller closes, and its status.

    Raises:
      NotRegularError: if it is not a regular file.
      OSError: if it cannot be opened.
    """
    try:
        file = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotRegularError(path, "a socket") from error
        raise
    try:
        status = os.fstat(file)
        check_status(path, status)
    except BaseException:
        os.close(file)
        raise
    return file, status


def check_status(path: str, status: os.stat_result) -> None:
    """Checks that a status is that of a regular file.

    Raises:
      NotRegularError: if it is not.
    """
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(path, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))


def check_regular(path: str) -> None:
    """Checks that a local path leads to a regular file or to nothing.

    Raises:
      NotRegularError: if it leads to anything else.
    """
    here = local_path(path)
    if here is not None and os.path.exists(here):
        check_status(path, os.stat(here))
