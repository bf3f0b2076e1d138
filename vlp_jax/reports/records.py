"""What a run has written: metrics, config and checkpoints."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vlp_jax.config import to_tree
from vlp_jax.config.tree import flatten
from vlp_jax.errors import CheckpointError, ConfigError, UserError
from vlp_jax.storage.files import read_text
from vlp_jax.storage.paths import absolute
from vlp_jax.training.checkpoints.format import checkpoint_folder, finished_steps, read_metadata
from vlp_jax.training.hooks.metric_writers import parsed_rows
from vlp_jax.training.restore import restore_config


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
      folder: its workdir.
      name: its name on the page.
      rows: the rows of its metrics.jsonl.
      damaged: numbers of the lines of metrics.jsonl that cannot be read.
      steps: steps of its checkpoints.
      components: as in `vlp_jax.load`.
    """

    folder: str
    name: str
    rows: Sequence[Mapping[str, Any]]
    damaged: Sequence[int]
    steps: Sequence[int]
    components: Collection[str] = ()

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """{dotted key: value} of the config: config.json, else that of the newest checkpoint; {}
        where neither can be read."""
        try:
            return flatten(json.loads(read_text(os.path.join(self.folder, "config.json"))))
        except (OSError, ValueError):
            pass
        try:
            return flatten(to_tree(restore_config(self.folder, allowed=self.components)))
        except UserError:
            return {}

    @functools.cached_property
    def parameters(self) -> int | None:
        """The number of parameters of the newest checkpoint; None where none can be read."""
        if not self.steps:
            return None
        try:
            shapes = read_metadata(checkpoint_folder(self.folder), self.steps[-1])["parameters"]
        except CheckpointError:
            return None
        return sum(math.prod(shape) for shape in shapes.values())

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """The steps and values of a metric, without rows that lack it or have no number."""
        found = [
            (row["step"], row[key])
            for row in self.rows
            if isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool)
        ]
        return [step for step, _ in found], [value for _, value in found]

    def last(self, key: str) -> Any:
        """The last value of a metric; None where there is none."""
        return next((row[key] for row in reversed(self.rows) if row.get(key) is not None), None)

    @property
    def evaluated(self) -> list[str]:
        """The names EVALUATOR/metric in the rows, in their order."""
        found = dict.fromkeys(key for row in self.rows for key in row if "/" in key)
        return [key for key in found if key.split("/")[0] not in ("train", "goodput")]


def open_runs(folders: Sequence[str], components: Collection[str] = ()) -> list[RunRecord]:
    """The runs in some folders, each with a short name of its own.

    Raises:
      CheckpointError: a folder has neither metrics nor checkpoints.
      ConfigError: a folder is given twice.
    """
    paths = [absolute(folder) for folder in folders]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: is given twice")
    return [
        open_run(folder, name, components)
        for folder, name in zip(paths, short_names(paths), strict=True)
    ]


def open_run(folder: str, name: str, components: Collection[str]) -> RunRecord:
    """A run; raises as `open_runs`."""
    rows, damaged = parsed_rows(os.path.join(folder, "metrics.jsonl"))
    checkpoints = checkpoint_folder(folder)
    steps = finished_steps(checkpoints)
    if not rows and not steps:
        raise CheckpointError(
            f"{folder}: has neither metrics.jsonl with a row nor a checkpoint; give the --workdir "
            "of a run"
        )
    return RunRecord(folder, name, rows, damaged, steps, components)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as distinguish them."""
    parts = [path.strip(os.sep).split(os.sep) for path in paths]
    count = 1
    while len({tuple(part[-count:]) for part in parts}) < len(parts):
        count += 1
    return [os.sep.join(part[-count:]) for part in parts]
