"""The record of a run: rows of metrics.jsonl, further writers, the progress line, and the newest
value of each metric."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from vlp_jax.config import to_tree
from vlp_jax.distributed.exchange import broadcast_from_primary, is_primary_process
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
        path = os.path.join(workdir, "metrics.jsonl")
        self.rows = MetricsFile(path, keep_up_to=step) if is_primary_process() else NullWriter()
        self.writers = self.open_writers(step)
        self.progress = Progress(run.steps)
        # the newest value of each
        self.metrics = {key: value for row in self.rows.rows for key, value in row.items()}
        self.metrics.pop(UTILISATION, None)  # it may be of other devices

    def open_writers(self, step: int) -> list[MetricWriter]:
        """The writers of the config."""
        if not is_primary_process():
            return []
        config = self.run.config
        return [
            open_writer(spec, RunFacts(name, self.workdir, step, to_tree(config)))
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
        """Waits until the rows are on disk."""
        self.rows.sync()

    def close(self) -> None:
        """Closes all files."""
        with contextlib.ExitStack() as stack:
            for writer in (*self.writers, self.progress, self.rows):
                stack.callback(writer.close)
