"""Being told to stop: SIGTERM (a preempted machine) and SIGINT (Ctrl-C) end a run after the update under way."""

import signal
from types import FrameType, TracebackType


class StopSignal:
    """While entered, remembers the first SIGTERM or SIGINT instead of dying of it; `number` is None until then."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "StopSignal":
        self.previous = {number: signal.signal(number, self.remember) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def remember(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells report it: 143 for SIGTERM."""
        return 128 + self.number
