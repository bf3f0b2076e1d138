"""What a trainer's time went into: training, or something else."""

import contextlib
import time
from collections.abc import Iterator

from vlp_jax.training.hooks.clock import wall_seconds

PHASES = ("start_up", "data_wait", "checkpoint_stall", "evaluation")


class Goodput:
    """Seconds of this process, by phase; what is in no phase was training. `start_up` is everything from the start of the process
    to now, and the compilation of the update, which `spent` adds later."""

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0) | {"start_up": wall_seconds()}

    def spent(self, phase: str, seconds: float) -> None:
        self.seconds[phase] += seconds

    @contextlib.contextmanager
    def spent_on(self, phase: str) -> Iterator[None]:
        """What runs inside belongs to `phase`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent(phase, time.monotonic() - start)

    def fractions(self) -> dict[str, float]:
        """`goodput/training` and the phases, as fractions of the wall time so far; they add up to 1."""
        total = max(wall_seconds(), sum(self.seconds.values()))
        fractions = {f"goodput/{phase}": seconds / total for phase, seconds in self.seconds.items()}
        return {"goodput/training": max(0.0, 1.0 - sum(fractions.values())), **fractions}
