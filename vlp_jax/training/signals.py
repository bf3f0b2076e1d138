"""Being told to stop: SIGTERM (a preempted machine), SIGHUP (a terminal that is closed) and SIGINT (Ctrl-C) end a run after the
update or the evaluation batch under way, and on several hosts after the same one on all of them. A second Ctrl-C ends it at
once."""

import itertools
import os
import signal
import sys
from types import FrameType, TracebackType

from jax.experimental import multihost_utils

from vlp_jax.distributed.exchange import several_hosts
from vlp_jax.distributed.heartbeat import leave_together
from vlp_jax.interrupts import CTRL_C, AtOnce
from vlp_jax.printing import safe_print as print

_questions = itertools.count(1)  # of the whole process: JAX never agrees on a number that is behind it


class StopSignal:
    """While entered, remembers the first signal to stop instead of dying of it; `number` is None until the run is to stop.

    Ctrl-C is answered at once, in a line on stderr, and a second one, or one before the first update, ends the process without a
    further save. A SIGHUP that was ignored before (`nohup`) stays so. Of several hosts, any may get the signal. JAX's preemption
    service, which has taken over SIGTERM there, spreads the word and lets all agree on one point in the background; an update
    costs nothing more for it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.interrupts, self.updated = 0, False  # updated: whether there is anything to save that was not there at the start

    def __enter__(self) -> "StopSignal":
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        handlers = dict.fromkeys(numbers, self.remember)
        if several_hosts():
            del handlers[signal.SIGTERM]
            handlers = dict.fromkeys(handlers, pass_on)
        self.previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self.listener = AtOnce(self.answer)
        self.listener.__enter__()
        return self

    def remember(self, number: int, frame: FrameType | None = None) -> None:
        if self.number is None:
            self.number = number

    def answer(self, number: int) -> None:
        """What is said and done at once, in a thread, of a signal that `remember` or `pass_on` hears of when it can."""
        if number != signal.SIGINT:
            return
        self.interrupts += 1
        if not self.updated:
            leave_together("interrupted", CTRL_C)
        elif self.interrupts == 1:
            print("stopping after this step; again to stop now", file=sys.stderr, flush=True)
        else:
            leave_together("stopped now, without a further save", CTRL_C)

    def asks(self) -> bool:
        """Whether the run is to stop here. Of several hosts, each must ask at the same points of the program: after every
        update, between two batches of an evaluation. JAX lets them agree on the number of a question."""
        question = next(_questions)
        if self.number is None and several_hosts() and multihost_utils.reached_preemption_sync_point(question):
            self.number = signal.SIGTERM
        return self.number is not None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.listener.__exit__(kind, error, trace)
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells report it: 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.number


def pass_on(number: int, frame: FrameType | None) -> None:
    """Ctrl-C and SIGHUP become the signal that JAX's preemption service listens to."""
    os.kill(os.getpid(), signal.SIGTERM)
