"""Ranges of bytes of remote files, each checked for its status and its length.

A wrong range is requested again, and finally refused. A web server may ignore `Range` and send the
whole file with status 200, which fsspec returns as if it were the range. Any storage may send fewer
bytes than requested.
"""

import io
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from vlp_jax.errors import DataError

# number of tries; seconds before the second one, doubled before each further one
TRIES, PAUSE = 4, 0.3
BUFFER = 4 << 20  # bytes of one request when a file is read sequentially
WEB = ("http", "https")
T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)
# a second try would not help
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


class WrongAnswerError(OSError):
    """A storage sent other bytes than requested."""


def fetch_range(
    filesystem: Any, name: str, start: int, size: int, whole: int | None = None
) -> bytes:
    """The `size` bytes from byte `start` on of a file that is long enough.

    Args:
      filesystem: a file system of fsspec.
      name: the file in it.
      start: first byte.
      size: number of bytes.
      whole: expected size of the file; None where it is unknown.

    Raises:
      WrongAnswerError: after TRIES wrong answers; and whatever the storage raises.
    """
    fetch = _fetch_from_web if is_web(filesystem) else _fetch
    return _again(lambda: fetch(filesystem, name, start, size, whole))


def is_web(filesystem: Any) -> bool:
    """Whether a file system of fsspec sends requests to web servers."""
    protocols = (
        (filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol
    )
    return not {*WEB}.isdisjoint(protocols)


def _again(call: Callable[[], T]) -> T:
    for attempt in range(TRIES - 1):
        try:
            return call()
        except (*_FINAL, DataError):
            raise
        except Exception:
            time.sleep(PAUSE * 2**attempt)
    return call()


def _fetch(filesystem: Any, name: str, start: int, size: int, whole: int | None) -> bytes:
    data = filesystem.cat_file(name, start=start, end=start + size)
    if len(data) != size:
        raise WrongAnswerError(f"sent {len(data)} bytes for the {size} from byte {start} on")
    return data


def _fetch_from_web(filesystem: Any, url: str, start: int, size: int, whole: int | None) -> bytes:
    from fsspec.asyn import sync

    data: Any = sync(filesystem.loop, _get_range, filesystem, url, start, size, whole)
    return data


async def _get_range(filesystem: Any, url: str, start: int, size: int, whole: int | None) -> bytes:
    options = {**filesystem.kwargs}
    # identity: lengths must be those of the file, not of a compressed body
    headers = {
        **options.pop("headers", {}),
        "Range": f"bytes={start}-{start + size - 1}",
        "Accept-Encoding": "identity",
    }
    session = await filesystem.set_session()
    async with session.get(filesystem.encode_url(url), headers=headers, **options) as answer:
        check_answer(answer.status, answer.headers, start, size, whole)
        data = await answer.read()
    if len(data) != size:
        raise WrongAnswerError(f"sent {len(data)} bytes for the {size} from byte {start} on")
    return data


def check_answer(status: int, headers: Any, start: int, size: int, whole: int | None) -> None:
    """Checks, before its body is read, that a web server's answer has the requested range.

    Args:
      status: HTTP status.
      headers: HTTP headers of the answer.
      start: first byte requested.
      size: number of bytes requested.
      whole: expected size of the file; None where it is unknown.

    Raises:
      WrongAnswerError: if it has another range, or the file another size.
      FileNotFoundError, PermissionError: by the status.
    """
    length = headers.get("Content-Length")
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or (int(found[1]), int(found[2])) != (start, start + size - 1):
            raise WrongAnswerError(
                f"answered bytes {start}-{start + size - 1} with the range "
                f"{headers.get('Content-Range')!r}"
            )
        if whole is not None and found[3] not in ("*", str(whole)):
            raise WrongAnswerError(f"has {found[3]} bytes now, and had {whole} when it was indexed")
    elif status == 200 and (start > 0 or length != str(size)):
        raise WrongAnswerError(
            f"ignores Range: it answered bytes {start}-{start + size - 1} with "
            f"all {length or 'bytes'} (status 200); use a server or storage "
            "that knows ranges, or copy the file to this machine"
        )
    elif status != 200:
        raise refusal(status, f"answered bytes {start}-{start + size - 1} with status {status}")
    if length is not None and length != str(size):
        raise WrongAnswerError(f"sends {length} bytes for the {size} from byte {start} on")


def refusal(status: int, message: str) -> OSError:
    """The error for an HTTP status other than success."""
    if status in (404, 410):
        return FileNotFoundError(status)
    if status in (401, 403):
        return PermissionError(status, f"the server answered with status {status}")
    return WrongAnswerError(message)


def web_info(filesystem: Any, url: str) -> dict[str, Any]:
    """The information that fsspec has about a file on a web server. Failed requests are repeated.

    Raises:
      FileNotFoundError: only if there is no such file; fsspec itself raises it for other failures,
        too.
      PermissionError: if the server denies access.
      WrongAnswerError: if the server cannot be reached or answers with an error.
    """

    def ask() -> dict[str, Any]:
        try:
            return filesystem.info(url)
        except FileNotFoundError as error:
            cause = error.__cause__
            if cause is None or isinstance(cause, FileNotFoundError):
                raise
            status = getattr(cause, "status", None)
            if not isinstance(status, int) or status < 400:
                raise WrongAnswerError(
                    f"its server cannot be reached: {cause or type(cause).__name__}"
                ) from cause
            raise refusal(status, f"its server answered with status {status}") from cause

    return _again(ask)


class RemoteFile(io.RawIOBase):
    """A remote file that can be read and sought in. Each read is a checked range.

    Args:
      read_range: `(start, size) -> bytes`.
      size: size of the file in bytes.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int):
        super().__init__()
        self._read_range, self._size, self._place = read_range, size, 0

    def readable(self) -> bool:
        """True: the file is opened for reading only."""
        return True

    def seekable(self) -> bool:
        """True: a read may start at any byte."""
        return True

    def tell(self) -> int:
        """The byte at which the next read starts."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the start of the next read, to the first byte if it lies before that, and returns
        it; nothing is read."""
        self._place = max(
            0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        )
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with one range, as far as the file reaches, and returns its number of
        bytes.

        Raises: as `read_range`.
        """
        size = min(len(buffer), self._size - self._place)
        if size <= 0:
            return 0
        buffer[:size] = self._read_range(self._place, size)
        self._place += size
        return size
