"""What a run has cost so far, over all its sittings, and how its time is spent."""

import dataclasses
import resource
import time

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

    def wall_seconds(self) -> float:
        return self.earlier_wall + wall_seconds()

    def cpu_seconds(self) -> float:
        return self.earlier_cpu + cpu_seconds()

    def begin_lap(self) -> None:
        """Starts measuring anew; time from the last lap to here counts for nothing."""
        self.lap_start, self.lap_steps, self.lap_waited = time.monotonic(), 0, 0.0

    def count_step(self, waited: float) -> None:
        """One more step in this lap, `waited` seconds of it for data."""
        self.lap_steps += 1
        self.lap_waited += waited

    def lap(self, batch_size: int) -> dict[str, float]:
        """`step_seconds`, `examples_per_second` and `data_wait_fraction` since the lap began."""
        seconds = max(time.monotonic() - self.lap_start, 1e-9)
        return {"step_seconds": seconds / max(self.lap_steps, 1),
                "examples_per_second": self.lap_steps * batch_size / seconds,
                "data_wait_fraction": min(self.lap_waited / seconds, 1.0)}

    def to_json(self) -> dict[str, float]:
        return {"wall_seconds": self.wall_seconds(), "cpu_seconds": self.cpu_seconds()}
