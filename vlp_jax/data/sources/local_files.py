"""Files on this machine: regular ones only, and by what a change of one is noticed.

A named pipe would be waited for without end, and a device such as /dev/zero has no end.
"""

import errno
import functools
import os
import re
import stat

from vlp_jax.errors import DataError

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_LOCAL_SCHEME = re.compile(r"(?:file|local)://(?=/)", re.IGNORECASE)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # or opening a named pipe would wait for a writer
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
          stat.S_IFDIR: "a folder"}
UNSTABLE_INODES = ("fuse", "9p", "cifs", "smb")  # file systems that number a file anew at each mount, or by the hour
Stamp = tuple[int, str]  # the size of a file, and a text that changes when the file does


class NotRegularError(DataError):
    """A path leads to a named pipe, a device, a socket or a folder. what: which, in words."""

    def __init__(self, path: str, what: str):
        super().__init__(f"{path}: is {what}, not a file")
        self.what = what


def scheme_of(path: str) -> str | None:
    """`gs` of `gs://bucket/file`; None of a local path."""
    match = _SCHEME.match(path)
    return match.group(1).lower() if match else None


def local_path(path: str) -> str | None:
    """The path of a file on this machine, also of a `file://` URL; None of a remote one."""
    if not scheme_of(path):
        return path
    match = _LOCAL_SCHEME.match(path)
    return path[match.end():] if match else None


def stamp_of(status: os.stat_result) -> Stamp:
    """The size of a file; the time of its last change in nanoseconds and its inode, where the file system keeps one."""
    inode = status.st_ino if _inodes_are_stable(status.st_dev) else 0
    return status.st_size, f"{status.st_mtime_ns}-{inode}"


@functools.cache
def _inodes_are_stable(device: int) -> bool:
    """Whether the file system of this device number keeps the inodes of its files, by the mounts that Linux lists."""
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
    """A descriptor of a local file, to be closed, and its status. Raises: NotRegularError, OSError."""
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
    """Raises: NotRegularError."""
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(path, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))


def check_regular(path: str) -> None:
    """Raises: NotRegularError for a local path that leads to anything else than a file, which need not be there."""
    here = local_path(path)
    if here is not None and os.path.exists(here):
        check_status(path, os.stat(here))
