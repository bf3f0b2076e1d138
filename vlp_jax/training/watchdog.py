"""The watchdog: when a step takes far too long, where every thread stands is written down while it still hangs."""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

from vlp_jax.config import schema

HANGING = 75  # exit status: sysexits' "temporary failure", for a launcher that starts the run again


class Watchdog:
    """While entered, a thread that expects `step_done` at least every `config.seconds`, from the first call on: the first
    step compiles, and takes as long as that does."""

    def __init__(self, config: schema.Watchdog, workdir: str, host: int = 0):
        self.config, self.workdir, self.host = config, workdir, host
        self.step, self.deadline = 0, float("inf")
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        if self.config.seconds is not None:
            self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()

    def step_done(self, step: int) -> None:
        """From now on step + 1 is awaited."""
        self.step = step
        if self.config.seconds is not None:
            self.deadline = time.monotonic() + self.config.seconds

    def rest(self) -> None:
        """Nothing is expected until the next `step_done`: an evaluation takes its own time."""
        self.deadline = float("inf")

    def run(self) -> None:
        while not self.over.wait(min(self.config.seconds / 10, 5.0)):
            if time.monotonic() > self.deadline:
                self.rest()  # one report a hang
                self.report()
                if self.config.exit:
                    os._exit(HANGING)

    def report(self) -> None:
        """Stacks to stderr first: the disk may be what hangs."""
        path = os.path.join(self.workdir, f"hang_step_{self.step + 1}_host_{self.host}.txt")
        line = (f"step {self.step + 1} on host {self.host} has taken more than {self.config.seconds:g} s (watchdog.seconds); where "
                f"every thread stands follows, and lies in {path}")
        print(line, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=2)
        try:
            with open(path, "w") as file:
                file.write(f"{line}\n")
                file.flush()
                faulthandler.dump_traceback(file=file)
        except OSError as error:
            print(f"{path}: cannot be written: {error.strerror}", file=sys.stderr, flush=True)
