"""The record of a run: rows of metrics.jsonl, further writers, the progress line, and the newest
value of each metric."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from vlp_jax.config import to_tree
from vlp_jax.distributed.exchange import broadcast_from_primary, is_primary_process
from vlp_jax.errors import StorageError
from vlp_jax.storage.paths import absolute, is_bucket
from vlp_jax.storage.spool import Spool
from vlp_jax.training.build import Run
from vlp_jax.training.hooks.metric_writers import MetricsFile, NullWriter, Progress, write_texts
from vlp_jax.training.hooks.throughput import UTILISATION
from vlp_jax.training.writers.base import MetricWriter, RunFacts, open_writer


class Recorder:
    """Everything that a run writes about itself, except checkpoints; only the primary process
    writes.

    Args:
      run: the run.
      workdir: its folder.
      step: the step from which it continues; rows of later ones are cut off.
    """

    def __init__(self, run: Run, workdir: str, step: int):
        self.run, self.workdir = run, workdir
        self.spool = open_spool(run, workdir)
        self.folder = self.spool.folder if self.spool else workdir  # of files that grow
        path = os.path.join(self.folder, "metrics.jsonl")
        self.rows = MetricsFile(path, keep_up_to=step) if is_primary_process() else NullWriter()
        self.writers = self.open_writers(step)
        self.progress = Progress(run.steps)
        # the newest value of each
        self.metrics = {key: value for row in self.rows.rows for key, value in row.items()}
        self.metrics.pop(UTILISATION, None)  # it may be of other devices
        self.upload()

    def open_writers(self, step: int) -> list[MetricWriter]:
        """The writers of the config."""
        if not is_primary_process():
            return []
        config = self.run.config
        return [
            open_writer(
                spec, RunFacts(name, self.folder, step, to_tree(config), self.spool is not None)
            )
            for name, spec in config.writers.items()
        ]

    def write(self, row: dict[str, Any], seconds_left: float) -> None:
        """Adds the row of an update."""
        for writer in (self.rows, *self.writers):
            writer.write(row)
        self.metrics |= row
        self.progress.update(
            row["step"],
            row["train/loss"],
            row["train/examples_per_second"],
            seconds_left,
            row.get(UTILISATION),
        )

    def amend(self, step: int, measured: Mapping[str, float]) -> None:
        """Adds metrics measured after the newest update to its row."""
        self.rows.amend(measured)
        for writer in self.writers:
            writer.write({"step": step, **measured})
        self.metrics |= measured
        self.upload()

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts of an evaluation to files, and those to read to the writers."""
        if is_primary_process():
            write_texts(self.workdir, step, texts)
        texts = {name: text for name, text in texts.items() if not name.endswith(".json")}
        for writer in self.writers:
            writer.write_texts(step, texts)

    def newest_row(self, step: int) -> dict[str, Any] | None:
        """The last row of earlier sessions, where it is that of `step`."""
        return next((row for row in self.rows.rows[-1:] if row["step"] == step), None)

    def values_by_step(self, metric: str | None) -> dict[int, float]:
        """{step: value} of a metric in the rows of earlier sessions, the same in all processes."""
        if metric is None:
            return {}
        rows = [(row["step"], row.get(metric)) for row in self.rows.rows]
        found = [(step, value) for step, value in rows if isinstance(value, int | float)]
        return dict(broadcast_from_primary("ranked checkpoints", lambda: found))

    def sync(self) -> None:
        """Waits until the rows are on disk, or in the bucket with what else has been written."""
        self.rows.sync()
        self.upload()

    def upload(self) -> None:
        """Uploads what the files of a bucket workdir have gained.

        Raises:
          UserError: the bucket does not answer, or refuses.
        """
        if self.spool:
            for writer in self.writers:
                writer.flush()
            self.spool.sync()

    def close(self, error: BaseException | None = None) -> None:
        """Closes all files.

        error: what has ended the run; nothing is uploaded to storage that does not answer.
        """
        with contextlib.ExitStack() as stack:
            if self.spool:
                stack.callback(self.spool.close, upload=not isinstance(error, StorageError))
            for writer in (*self.writers, self.progress, self.rows):
                stack.callback(writer.close)


def open_spool(run: Run, workdir: str) -> Spool | None:
    """Where the primary process writes files that grow, for a workdir in a bucket; else None."""
    if not is_bucket(workdir) or not is_primary_process():
        return None
    return Spool(absolute(workdir))
