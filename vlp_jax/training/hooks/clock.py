"""What a run has cost so far, over all its sittings, and how its time is spent."""

import contextlib
import dataclasses
import queue
import resource
import threading
import time
from typing import Any

import jax
import psutil


def wall_seconds() -> float:
    """Seconds since this process was started, imports included."""
    return time.time() - psutil.Process().create_time()


def cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclasses.dataclass
class Clock:
    """Seconds spent by earlier sittings (from the checkpoint) plus this process's own.

    `lap` measures speed between two rows: seconds a step, examples a second and the fraction of time spent waiting for data.
    """

    earlier_wall: float = 0.0
    earlier_cpu: float = 0.0
    lap_start: float = dataclasses.field(default_factory=time.monotonic)
    lap_steps: int = 0
    lap_waited: float = 0.0
    lap_compiled: float = 0.0
    laps: int = 0

    def wall_seconds(self) -> float:
        return self.earlier_wall + wall_seconds()

    def cpu_seconds(self) -> float:
        return self.earlier_cpu + cpu_seconds()

    def begin_lap(self, in_flight: int = 0) -> None:
        """Starts measuring again; time from the last lap to here counts for nothing. in_flight: steps that run already."""
        self.lap_start, self.lap_steps, self.lap_waited, self.lap_compiled = time.monotonic(), in_flight, 0.0, 0.0

    def count_step(self, waited: float, compiled: float = 0.0) -> None:
        """One more step in this lap, for whose data nothing went on for `waited` seconds, and whose compilation took `compiled`."""
        self.lap_steps += 1
        self.lap_waited += waited
        self.lap_compiled += compiled

    def lap(self, batch_size: int, in_flight: int = 0) -> dict[str, float]:
        """`step_seconds` of an update, without waiting for its data; `examples_per_second`, waiting included, and
        `data_wait_fraction` since the lap began. Compilation counts for none of them. in_flight: counted steps that still run."""
        seconds = max(time.monotonic() - self.lap_start - self.lap_compiled, 1e-9)
        waited, steps = min(self.lap_waited, seconds), self.lap_steps - in_flight
        self.laps += 1
        return {"step_seconds": max(seconds - waited, 1e-9) / max(steps, 1), "examples_per_second": steps * batch_size / seconds,
                "data_wait_fraction": waited / seconds}

    def seconds_left(self, lap: dict[str, float], steps: int, batch_size: int) -> float:
        """What so many further steps take at the speed of a lap; the wait in the first one was for the input to start."""
        return steps * (lap["step_seconds"] if self.laps == 1 else batch_size / max(lap["examples_per_second"], 1e-9))

    def to_json(self) -> dict[str, float]:
        return {"wall_seconds": self.wall_seconds(), "cpu_seconds": self.cpu_seconds()}


class LastUpdate:
    """When the newest update was finished: a wait for data while the devices still compute costs nothing."""

    def __init__(self):
        self.finished: float | None = float("-inf")
        self.started: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def begin(self, outputs: Any) -> None:
        """Follows an update, of which these are outputs that nothing donates."""
        self.finished = None
        self.started.put(outputs)

    def idle(self, start: float, end: float) -> float:
        """Seconds between these times of `time.monotonic` in which no update was running."""
        finished = self.finished
        return 0.0 if finished is None else max(0.0, end - max(start, finished))

    def close(self) -> None:
        self.started.put(None)

    def _follow(self) -> None:
        while (outputs := self.started.get()) is not None:
            with contextlib.suppress(Exception):  # the loop reads the same outputs, and raises
                jax.block_until_ready(outputs)
            if self.started.empty():
                self.finished = time.monotonic()
