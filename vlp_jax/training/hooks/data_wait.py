"""The reason why a run waits for data, inferred from how busy the cores are."""

import time

import psutil

from vlp_jax.data.config import DataConfig
from vlp_jax.data.cores import available_cores
from vlp_jax.reporting import report
from vlp_jax.training.hooks.hook import Hook

BUSY = 0.75  # fraction of the cores' time above which the cores are the bottleneck, not the storage
HIGH = 0.3  # fraction of time spent waiting that is worth a message


def cpu_seconds() -> float:
    """CPU time that this process and its workers have used so far."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended
            continue
        total += times.user + times.system
    return total


class DataWait(Hook):
    """Measures how busy this process and its workers keep the cores.

    The measurement starts at the creation or the last `restart`.

    Args:
      data: the config of the input.
      workers: number of processes that decode.
      cores: number of cores shared by all of them. Default: those of this machine.
    """

    def __init__(self, data: DataConfig, workers: int, cores: int | None = None):
        self.data, self.workers, self.cores = (
            data,
            workers,
            available_cores() if cores is None else cores,
        )
        self.reported, self.watching, self.laps = False, False, 0
        self.restart()

    def restart(self) -> None:
        """Starts the measurement again."""
        self.wall, self.cpu = time.monotonic(), cpu_seconds()

    def busy(self) -> float:
        """The fraction of the cores' time that was used since the last restart."""
        return (cpu_seconds() - self.cpu) / max(self.cores * (time.monotonic() - self.wall), 1e-9)

    def cause(self, busy: float | None = None) -> str:
        """The bottleneck and a remedy, in words.

        Args:
          busy: fraction of the cores' time that is used. Default: as measured.
        """
        busy, cores = (
            self.busy() if busy is None else busy,
            f"{self.cores} core{'s' * (self.cores > 1)}",
        )
        idle = f"{max(0.0, 1 - busy):.0%}"
        if self.workers > self.cores:
            return (
                f"data.workers={self.workers} processes take turns on {cores}; fewer are "
                "faster here (data.workers=none takes as many as suit the machine)"
            )
        if busy >= BUSY:
            return (
                f"decoding and training keep the {cores} busy, and more data.workers would not "
                "help; smaller images do (prepare --image-size), or more cores"
            )
        if self.workers == 0 and self.data.threads < self.cores:
            return (
                f"{self.data.threads} data.threads decode, and {idle} of the {cores} is idle; "
                f"set data.workers to {max(1, self.cores - 2)}, or more data.threads where the "
                "storage is slow"
            )
        return (
            f"{idle} of the {cores} is idle, so that the storage is what is waited for; a "
            "nearer copy of the data helps, or more samples read at a time "
            f"(data.threads={self.data.threads} in each of {max(1, self.workers)} processes)"
        )

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """Nothing; the cause of a long wait is reported."""
        for message in self.news(lap["data_wait_fraction"]):
            report(message)
        return {}

    def news(self, fraction: float) -> list[str]:
        """A line, once, if the run waited for data for a high fraction of two laps in a row.

        The cores are measured in the second of them. The first lap of a run does not count, as it
        has the start of the input.
        """
        high, self.laps = fraction >= HIGH, self.laps + 1
        if self.reported or not high or self.laps == 1:
            self.watching = False
            return []
        if not self.watching:
            self.watching = True
            self.restart()
            return []
        self.reported = True
        return [f"the data keeps the run waiting {fraction:.0%} of the time: {self.cause()}"]
