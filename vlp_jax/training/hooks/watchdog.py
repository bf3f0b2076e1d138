"""The watchdog: writes the stack of every thread after too long without a sign of progress."""

import dataclasses
import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.distributed.heartbeat import leave_together
from vlp_jax.errors import PASSING, UserError
from vlp_jax.printing import safe_print as print
from vlp_jax.storage import bucket
from vlp_jax.storage.paths import is_bucket
from vlp_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

UPLOAD_SECONDS = 10.0  # for the report in a bucket, which may be what hangs


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig(Section):
    """Detection of a run that makes no progress.

    The stack of every thread is then written to the terminal and the workdir.
    """

    # Limit for one step with its data and checkpoint (the first one with compilation), for one
    # batch of an evaluation, or for the start with the restoration of a checkpoint; None: no
    # watchdog.
    seconds: float | None = between(1800.0, 0.1)
    exit: bool = False  # exit then with status 75, for a launcher that restarts the run

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`exit`, where there is no limit in seconds."""
        return {"exit": "without watchdog.seconds"} if self.seconds is None else {}


class Watchdog(Hook):
    """A context with a thread that requires a call of `expect` at least every `config.seconds`.

    All of a run is covered: restoring, the first step with its compilation, every batch of an
    evaluation, each save.
    """

    def __init__(self, config: WatchdogConfig, workdir: str, host: int = 0):
        self.config, self.workdir, self.host = config, workdir, host
        self.step, self.deadline = 0, float("inf")
        self.awaited = "the start"
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        if self.config.seconds is not None:
            self.expect("the start, a checkpoint's restoration included,")
            self.thread.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()

    def expect(self, awaited: str) -> None:
        """Signals progress; from now on `awaited` must finish in time."""
        self.awaited = awaited
        if self.config.seconds is not None:
            self.deadline = time.monotonic() + self.config.seconds

    def done(self, step: int) -> None:
        """Signals progress; step + 1 is next."""
        self.step = step
        self.expect(f"step {step + 1}")

    def run(self) -> None:
        """The thread: reports a hang once, and ends the process if `config.exit` is set."""
        seconds = self.config.seconds
        while seconds is not None and not self.over.wait(min(seconds / 10, 5.0)):
            if time.monotonic() > self.deadline:
                self.deadline = float("inf")  # one report per hang
                line = self.report()
                if self.config.exit:
                    leave_together(f"training error: {line}", PASSING)

    def report(self) -> str:
        """Writes the stack of every thread, and returns a description of the hang.

        It is written to stderr first, as the disk may be what hangs.
        """
        path = os.path.join(self.workdir, f"hang_step_{self.step + 1}_host_{self.host}.txt")
        hang = (
            f"{self.awaited} on host {self.host} has taken more than {self.config.seconds:g} s "
            "(watchdog.seconds)"
        )
        line = f"{hang}; the stack of every thread follows, and is in {path}"
        print(line, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=2)
        try:
            with tempfile.TemporaryFile("w+b") if is_bucket(path) else open(path, "w+b") as file:
                file.write(f"{line}\n".encode())
                file.flush()
                faulthandler.dump_traceback(file=file)
                if is_bucket(path):
                    file.seek(0)
                    bucket.write(path, file.read(), seconds=UPLOAD_SECONDS)
        except OSError as error:
            print(f"{path}: cannot be written: {error.strerror}", file=sys.stderr, flush=True)
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
        return f"{hang}; it lies in {path}"
