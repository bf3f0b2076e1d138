"""Writers of a run's metrics: metrics.jsonl, TensorBoard and a line on the terminal.

Only the primary process writes.
"""

import contextlib
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.printing import printable
from vlp_jax.reporting import finish_live_line, live_line, report, warn
from vlp_jax.storage.files import make_folder, read_bytes, write_atomically


class NullWriter:
    """The writer of processes that write no file."""

    rows: tuple[dict[str, Any], ...] = ()

    def write(self, row: dict[str, Any]) -> None:
        """Does nothing."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Does nothing."""

    def amend(self, measured: Mapping[str, Any]) -> None:
        """Does nothing."""

    def sync(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line with `step` first; every line is flushed when
    written."""

    def __init__(self, path: str, keep_up_to: int):
        """Opens the file for appending, cut back to complete rows of steps <= keep_up_to.

        If rows are damaged, a copy of the file is kept next to it and a line is printed.

        Raises: OSError.
        """
        self.path = path
        rows, damaged = parsed_rows(path)
        if damaged:
            shutil.copyfile(path, f"{path}.damaged")
            warn(
                f"{path}: {len(damaged)} damaged rows were left out, the first in line "
                f"{damaged[0]}; the file as it was is {path}.damaged"
            )
        self.rows = [row for row in rows if row["step"] <= keep_up_to]
        self.rewrite()

    def rewrite(self) -> None:
        """Writes `rows`, those of earlier sessions, and opens the file to append to them."""
        lines = [json.dumps(row) + "\n" for row in self.rows]
        write_atomically(self.path, "".join(lines))
        self.file = open(self.path, "a")  # noqa: SIM115 - open for the whole run
        # offset and contents of the last row
        self.newest = (sum(map(len, lines[:-1])), self.rows[-1]) if lines else None

    def amend(self, measured: Mapping[str, Any]) -> None:
        """Adds metrics to the last written row; readers see the old line or the new one.

        Raises:
          CheckpointError: as `write`.
        """
        assert self.newest is not None
        start, row = self.newest
        row |= finite(measured)
        try:
            with open(self.path) as file:
                before = file.read(start)
            write_atomically(self.path, f"{before}{json.dumps(row)}\n")
            self.file.close()
            self.file = open(self.path, "a")  # noqa: SIM115 - open for the whole run
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}") from error

    def sync(self) -> None:
        """Waits until the rows are on disk: a mounted bucket uploads only then.

        Raises:
          CheckpointError: as `write`.
        """
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}") from error

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row; non-finite numbers (of a skipped update) become null.

        Raises:
          CheckpointError: the disk is full or gone.
        """
        row = finite(row)
        try:
            self.newest = os.fstat(self.file.fileno()).st_size, row
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Closes the file."""
        # every row was flushed, except one that could not be written
        with contextlib.suppress(OSError):
            self.file.close()


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with None in place of non-finite numbers."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def read_rows(path: str) -> list[dict[str, Any]]:
    """The valid rows of a metrics.jsonl; none if there is no file."""
    return parsed_rows(path)[0]


def parsed_rows(path: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The valid rows of a metrics.jsonl in the order of their steps, and the numbers of invalid
    lines.

    An incomplete last line, of a run that was killed while writing it, counts as neither.
    """
    rows, damaged = [], []
    try:
        file = io.BytesIO(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return rows, damaged
    for number, line in enumerate(file, 1):
        row = row_of(line)
        if row is not None and row["step"] > (rows[-1]["step"] if rows else 0):
            rows.append(row)
        elif line.endswith(b"\n"):
            damaged.append(number)
    return rows, damaged


def row_of(line: bytes) -> dict[str, Any] | None:
    """The row in a line: an object with an integer `step`; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # ValueError also for bytes that are not UTF-8
        return None
    return (
        row
        if isinstance(row, dict) and type(row.get("step")) is int and line.endswith(b"\n")
        else None
    )


def write_texts(workdir: str, step: int, texts: Mapping[str, str]) -> None:
    """Writes {"SET/KIND": text} as WORKDIR/KIND/SET-STEP.txt, and KIND.json with that ending.

    Raises:
      CheckpointError: the disk is full or gone.
    """
    for name, text in texts.items():
        data, _, kind = name.rpartition("/")
        kind, _, ending = kind.partition(".")
        path = os.path.join(workdir, kind, f"{data}-{step:06d}.{ending or 'txt'}")
        try:
            make_folder(os.path.dirname(path))
            write_atomically(path, printable(text))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


class Progress:
    """A live line: step, loss, examples per second, model flops utilisation, time left.

    On a terminal the line is redrawn; elsewhere one is printed at most every few seconds.
    """

    def __init__(self, total_steps: int, seconds_between_lines: float = 5.0):
        self.total_steps, self.pause = total_steps, seconds_between_lines
        self.last_print = float("-inf")
        self.terminal = sys.stdout.isatty()

    def update(
        self,
        step: int,
        loss: float,
        examples_per_second: float,
        seconds_left: float,
        utilisation: float | None,
    ) -> None:
        """Shows the line of a step."""
        line = (
            f"step {step}/{self.total_steps}  loss {loss:.4f}  {examples_per_second:.0f} "
            f"examples/s  utilisation {percent(utilisation)}  {format_seconds(seconds_left)} "
            "left"
        )
        now = time.monotonic()
        if self.terminal:
            live_line(line)
        elif now - self.last_print >= self.pause or step == self.total_steps:
            report(line)
            self.last_print = now

    def close(self) -> None:
        """Leaves the last line on the terminal, below which others are printed."""
        finish_live_line()


def percent(fraction: float | None) -> str:
    """0.4123 -> 41.2%; n/a for None."""
    return "n/a" if fraction is None else f"{100 * fraction:.1f}%"


def format_seconds(seconds: float) -> str:
    """75 -> 1:15; 3700 -> 1:01:40."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
