"""Immediate handling of signals.

Python runs signal handlers in the main thread, between two of its instructions. This may be minutes
late, while that thread compiles or waits for a device. A separate thread is notified at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType, TracebackType
from typing import NoReturn

CTRL_C = 130  # 128 + SIGINT, as shells report it
# name of the thread that compiles the update, for which an orderly end of the process waits
COMPILING_AHEAD = "compiling ahead"


class AtOnce:
    """A context in which `answer(number)` is called in a thread as soon as a signal arrives.

    The signal must have a handler in Python. To be entered in the main thread. An outer context is
    suspended while an inner one is active.
    """

    def __init__(self, answer: Callable[[int], None]):
        self.answer = answer

    def __enter__(self) -> "AtOnce":
        self.end, self.signalled = os.pipe()
        os.set_blocking(self.signalled, False)
        self.previous = signal.set_wakeup_fd(self.signalled, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self.listen, daemon=True, name="signals")
        self.thread.start()
        return self

    def listen(self) -> None:
        """The thread: calls `answer` for every signal."""
        while numbers := os.read(self.end, 64).rstrip(b"\0"):
            for number in numbers:
                self.answer(number)

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self.previous)
        os.close(self.signalled)
        self.thread.join()
        os.close(self.end)


def leave_on_ctrl_c() -> None:
    """From now on Ctrl-C ends this process with one line, also during imports and compilation.

    This holds until a run handles Ctrl-C itself.
    """
    signal.signal(signal.SIGINT, _ignore)  # the thread handles the signal
    AtOnce(lambda number: _leave() if number == signal.SIGINT else None).__enter__()


def _ignore(number: int, frame: FrameType | None) -> None:
    """An empty Python handler, which makes the signal wake the thread."""


def _leave() -> NoReturn:
    """Ends the process with the last action of `_leaving`."""
    _leaving[-1]()
    os._exit(CTRL_C)


def _say() -> None:
    """Prints the default line."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, b"interrupted\n")


# actions before this process ends, of which the last is used
_leaving: list[Callable[[], None]] = [_say]


@contextlib.contextmanager
def leaving_with(leave: Callable[[], None]) -> Generator[None, None, None]:
    """A context in which Ctrl-C calls `leave`, in a thread, instead of printing the default
    line."""
    _leaving.append(leave)
    try:
        yield
    finally:
        _leaving.remove(leave)


@contextlib.contextmanager
def as_exception() -> Generator[None, None, None]:
    """A context in which Ctrl-C raises KeyboardInterrupt in the main thread, for cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, listener = (
        signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.set_wakeup_fd(-1),
    )
    try:
        yield
    finally:
        signal.set_wakeup_fd(listener)
        signal.signal(signal.SIGINT, handler)
