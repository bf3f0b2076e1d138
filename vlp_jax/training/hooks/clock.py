"""The time that a run has used over all its sessions, and how it is spent."""

import contextlib
import dataclasses
import queue
import resource
import threading
import time
from typing import Any

import jax
import psutil

from vlp_jax.training.hooks.hook import Hook, Update


def wall_seconds() -> float:
    """Seconds since this process was started, imports included."""
    return time.time() - psutil.Process().create_time()


def cpu_seconds() -> float:
    """CPU time of this process and of the child processes it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclasses.dataclass
class Clock(Hook):
    """Seconds used by earlier sessions (from the checkpoint) plus those of this process.

    A lap measures throughput between two rows.
    """

    earlier_wall: float = 0.0
    earlier_cpu: float = 0.0
    lap_start: float = dataclasses.field(default_factory=time.monotonic)
    lap_steps: int = 0
    lap_waited: float = 0.0
    lap_compiled: float = 0.0
    laps: int = 0

    def wall_seconds(self) -> float:
        """Wall time of the run so far."""
        return self.earlier_wall + wall_seconds()

    def cpu_seconds(self) -> float:
        """CPU time of the run so far."""
        return self.earlier_cpu + cpu_seconds()

    def begin_lap(self, in_flight: int = 0) -> None:
        """Starts a new lap; the time since the last one is discarded.

        in_flight: number of steps that are already running.
        """
        self.lap_start, self.lap_steps, self.lap_waited, self.lap_compiled = (
            time.monotonic(),
            in_flight,
            0.0,
            0.0,
        )

    def after(self, update: Update) -> None:
        """Counts one more step in this lap."""
        self.count_step(update.waited, update.compile_seconds)

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """Speed since the last row, and wall and CPU time of the run so far."""
        return {f"train/{key}": value for key, value in lap.items()} | self.to_json()

    def count_step(self, waited: float, compiled: float = 0.0) -> None:
        """Counts one more step in this lap.

        Args:
          waited: seconds in which nothing ran for want of its data.
          compiled: seconds of its compilation.
        """
        self.lap_steps += 1
        self.lap_waited += waited
        self.lap_compiled += compiled

    def lap(self, batch_size: int, in_flight: int = 0) -> dict[str, float]:
        """The throughput since the lap began; compilation does not count.

        Args:
          batch_size: examples per step.
          in_flight: counted steps that are still running.
        Returns: `step_seconds` per update without waiting for data, `examples_per_second` including
          it, and `data_wait_fraction`.
        """
        seconds = max(time.monotonic() - self.lap_start - self.lap_compiled, 1e-9)
        waited, steps = min(self.lap_waited, seconds), self.lap_steps - in_flight
        self.laps += 1
        return {
            "step_seconds": max(seconds - waited, 1e-9) / max(steps, 1),
            "examples_per_second": steps * batch_size / seconds,
            "data_wait_fraction": waited / seconds,
        }

    def seconds_left(self, lap: dict[str, float], steps: int, batch_size: int) -> float:
        """Seconds for `steps` more steps at the throughput of a lap.

        The wait for data in the first lap is left out, as it is the start of the input.
        """
        return steps * (
            lap["step_seconds"]
            if self.laps == 1
            else batch_size / max(lap["examples_per_second"], 1e-9)
        )

    def to_json(self) -> dict[str, float]:
        """Wall and CPU time of the run so far, for a checkpoint."""
        return {"wall_seconds": self.wall_seconds(), "cpu_seconds": self.cpu_seconds()}


class LastUpdate(Hook):
    """The time at which the newest update finished.

    A wait for data costs nothing while the devices still compute.
    """

    def __init__(self):
        self.finished: float | None = float("-inf")
        self.started: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def after(self, update: Update) -> None:
        """Follows an update by its metrics."""
        self.begin(update.metrics)

    def begin(self, outputs: Any) -> None:
        """Follows an update by some of its outputs, which must not be donated."""
        self.finished = None
        self.started.put(outputs)

    def idle(self, start: float, end: float) -> float:
        """Seconds between two times of `time.monotonic` in which no update was running."""
        finished = self.finished
        return 0.0 if finished is None else max(0.0, end - max(start, finished))

    def close(self) -> None:
        """Ends the thread."""
        self.started.put(None)

    def _follow(self) -> None:
        while (outputs := self.started.get()) is not None:
            # the loop reads the same outputs and raises the error
            with contextlib.suppress(Exception):
                jax.block_until_ready(outputs)
            if self.started.empty():
                self.finished = time.monotonic()
