"""Signals to stop: SIGTERM (a preempted machine), SIGHUP (a closed terminal) and SIGINT (Ctrl-C).

They end a run after the current update or evaluation batch; with several processes, after the same
one on all of them. A second Ctrl-C ends the run at once.
"""

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

# one counter per process: JAX never agrees on a number that is already past
_questions = itertools.count(1)


class StopSignal:
    """A context that records the first signal to stop instead of ending the process.

    `number` is None until the run is to stop. Ctrl-C is acknowledged at once by a line on stderr. A
    second one, or one before the first update, ends the process without a further save. A SIGHUP
    that was ignored before (`nohup`) stays ignored. With several processes any of them may get the
    signal: JAX's preemption service, which has taken over SIGTERM there, distributes it and lets
    all processes agree on one step in the background, at no cost to an update.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.interrupts, self.updated = 0, False  # updated: whether there is anything new to save

    def __enter__(self) -> "StopSignal":
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            numbers.remove(signal.SIGHUP)
        handlers = dict.fromkeys(numbers, self.remember)
        if several_hosts():
            del handlers[signal.SIGTERM]
            handlers = dict.fromkeys(handlers, pass_on)
        self.previous = {
            number: signal.signal(number, handler) for number, handler in handlers.items()
        }
        self.listener = AtOnce(self.answer)
        self.listener.__enter__()
        return self

    def remember(self, number: int, frame: FrameType | None = None) -> None:
        """Signal handler: keeps the number of the first signal."""
        if self.number is None:
            self.number = number

    def answer(self, number: int) -> None:
        """The immediate reaction to a signal, in a thread; `remember` or `pass_on` may run only
        later."""
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
        """Whether the run is to stop here.

        With several processes, each must call this at the same points of the program: after every
        update, and between two batches of an evaluation. JAX lets them agree on the number of a
        call.
        """
        question = next(_questions)
        if (
            self.number is None
            and several_hosts()
            and multihost_utils.reached_preemption_sync_point(question)
        ):
            self.number = signal.SIGTERM
        return self.number is not None

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.listener.__exit__(kind, error, trace)
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    @property
    def exit_status(self) -> int:
        """128 + the number of the signal, as shells report it: 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or 0)


def pass_on(number: int, frame: FrameType | None) -> None:
    """Forwards Ctrl-C and SIGHUP as the signal that JAX's preemption service handles."""
    os.kill(os.getpid(), signal.SIGTERM)
