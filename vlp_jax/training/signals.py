"""Being told to stop: SIGTERM (a preempted machine) and SIGINT (Ctrl-C) end a run after the update or the evaluation batch under
way, and on several hosts after the same one on all of them."""

import itertools
import os
import signal
from types import FrameType, TracebackType

from jax.experimental import multihost_utils

from vlp_jax.sharding.exchange import several_hosts

_questions = itertools.count(1)  # of the whole process: JAX never agrees on a number that is behind it


class StopSignal:
    """While entered, remembers the first SIGTERM or SIGINT instead of dying of it; `number` is None until the run is to stop.

    Of several hosts, any may get the signal. JAX's preemption service, which has taken over SIGTERM there, spreads the word
    and lets all agree on one point in the background; an update costs nothing more for it.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "StopSignal":
        handlers = {signal.SIGINT: pass_on} if several_hosts() else dict.fromkeys((signal.SIGTERM, signal.SIGINT), self.remember)
        self.previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def remember(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number

    def asks(self) -> bool:
        """Whether the run is to stop here. Of several hosts, each must ask at the same points of the program: after every
        update, between two batches of an evaluation. JAX lets them agree on the number of a question."""
        question = next(_questions)
        if self.number is None and several_hosts() and multihost_utils.reached_preemption_sync_point(question):
            self.number = signal.SIGTERM
        return self.number is not None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells report it: 143 for SIGTERM."""
        return 128 + self.number


def pass_on(number: int, frame: FrameType | None) -> None:
    """Ctrl-C becomes the signal that JAX's preemption service listens to."""
    os.kill(os.getpid(), signal.SIGTERM)
