"""Signals answered at once. Python runs a signal's handler in the main thread, between two of its instructions: not while that is
inside a compilation or waits for a device, for minutes perhaps. A thread hears of the signal at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import NoReturn

CTRL_C = 130  # 128 + SIGINT, as shells report it


class AtOnce:
    """While entered, `answer(number)` is called in a thread as soon as a signal comes that has a handler in Python; to be entered
    in the main thread. Inside another, that one rests."""

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
        while numbers := os.read(self.end, 64).rstrip(b"\0"):
            for number in numbers:
                self.answer(number)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.set_wakeup_fd(self.previous)
        os.close(self.signalled)
        self.thread.join()
        os.close(self.end)


def leave_on_ctrl_c() -> None:
    """From here on, until a run answers it by itself, Ctrl-C ends this process with one line: also while modules are imported and
    programs compiled."""
    signal.signal(signal.SIGINT, _ignore)  # what is to be done the thread does
    AtOnce(lambda number: _leave() if number == signal.SIGINT else None).__enter__()


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler in Python, for a thread to hear of the signal."""


def _leave() -> NoReturn:
    _leaving[-1]()
    os._exit(CTRL_C)


def _say() -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        os.write(2, b"interrupted\n")


_leaving: list[Callable[[], None]] = [_say]  # what is done before this process ends; the last counts


@contextlib.contextmanager
def leaving_with(leave: Callable[[], None]) -> Iterator[None]:
    """Inside, Ctrl-C calls `leave`, in a thread, instead of saying its line."""
    _leaving.append(leave)
    try:
        yield
    finally:
        _leaving.remove(leave)


@contextlib.contextmanager
def as_exception() -> Iterator[None]:
    """Inside, Ctrl-C is a KeyboardInterrupt in the main thread, for what has to be put in order then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, listener = signal.signal(signal.SIGINT, signal.default_int_handler), signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(listener)
        signal.signal(signal.SIGINT, handler)
