"""The schedule of checkpoints."""

import dataclasses
import time
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.distributed.exchange import broadcast_from_primary, several_hosts


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    """When checkpoints are saved and which are kept. The last step is always saved."""

    every_steps: int | None = between(1000, 1)
    every_minutes: float | None = between(None, 0.0)
    keep: int = between(2, 1)  # number of latest checkpoints kept
    keep_best: int = between(0, 0)  # number of best ones kept in addition, by `best_metric`
    best_metric: str | None = None  # a key of metrics.jsonl, such as val_vendor/text_to_image_recall@1
    best_mode: Literal["max", "min"] = "max"


class SaveSchedule:
    """Saves every so many steps, every so many minutes, and after the last step.

    With several processes the clock of the primary process decides. It is read only when a row is
    written, where the processes synchronise anyway.
    """

    def __init__(self, config: CheckpointConfig, last_step: int):
        self.config, self.last_step = config, last_step
        self.last_save, self.agreed = time.monotonic(), False

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        every = self.config.every_steps
        by_minutes = self.agreed if several_hosts() else self.minutes_have_passed()
        return step == self.last_step or (every is not None and step % every == 0) or by_minutes

    def minutes_have_passed(self) -> bool:
        """Whether `every_minutes` have passed since the last save."""
        every = self.config.every_minutes
        return every is not None and (time.monotonic() - self.last_save) / 60 >= every

    def agree(self) -> None:
        """Reads the clock of the primary process; called by all processes at the same step."""
        if several_hosts() and self.config.every_minutes is not None:
            self.agreed = broadcast_from_primary("checkpoint.every_minutes", self.minutes_have_passed)

    def saved(self) -> None:
        """Restarts the clock after a save."""
        self.last_save, self.agreed = time.monotonic(), False
