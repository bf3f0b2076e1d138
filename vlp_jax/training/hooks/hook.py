"""The protocol of hooks: what is measured or done around the updates of a run."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Update:
    """An update that has been started; the devices may still compute it.

    Attributes:
      step: its number, from 1.
      batch: the arrays of this process, on the host.
      metrics: its results on the devices.
      waited: seconds in which nothing ran for want of its data.
      compile_seconds: seconds for which the call waited for its compilation.
    """

    step: int
    batch: dict[str, np.ndarray]
    metrics: Any
    waited: float
    compile_seconds: float


class Hook:
    """Base of all hooks. Each method does nothing by default."""

    def before(self, step: int) -> None:
        """Called before update `step` is started."""

    def after(self, update: Update) -> None:
        """Called once an update is started, in the order of the hooks."""

    def done(self, step: int) -> None:
        """Called after everything that belongs to a step: its row, evaluation and checkpoint."""

    def row(self, lap: dict[str, float]) -> Mapping[str, float]:
        """Metrics that are added to a row of metrics.jsonl.

        Args:
          lap: the speed since the last row, as of `Clock.lap`.
        """
        return {}

    def close(self) -> None:
        """Called at the end of training, also after an error."""
