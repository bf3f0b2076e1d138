"""The fractions of a process's time that went into training and into other phases."""

import contextlib
import time
from collections.abc import Generator

from vlp_jax.training.hooks.clock import wall_seconds
from vlp_jax.training.hooks.hook import Hook, Update

PHASES = ("start_up", "data_wait", "checkpoint_stall", "evaluation")


class Goodput(Hook):
    """Seconds of this process by phase. Time in no phase is training.

    `start_up` is everything from the start of the process until now, and the compilation of the
    update, which `spent` adds later.
    """

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0) | {"start_up": wall_seconds()}

    def after(self, update: Update) -> None:
        """Counts the wait for data, and compilation as start-up."""
        self.spent("data_wait", update.waited)
        self.spent("start_up", update.compile_seconds)

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """The fractions so far."""
        return self.fractions()

    def spent(self, phase: str, seconds: float) -> None:
        """Adds seconds to a phase."""
        self.seconds[phase] += seconds

    @contextlib.contextmanager
    def spent_on(self, phase: str) -> Generator[None, None, None]:
        """A context whose time belongs to `phase`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent(phase, time.monotonic() - start)

    def fractions(self) -> dict[str, float]:
        """`goodput/training` and the phases, as fractions of the wall time so far; they sum to
        1."""
        total = max(wall_seconds(), sum(self.seconds.values()))
        fractions = {f"goodput/{phase}": seconds / total for phase, seconds in self.seconds.items()}
        return {"goodput/training": max(0.0, 1.0 - sum(fractions.values())), **fractions}
