"""When a checkpoint is due."""

import time

from vlp_jax.config import schema
from vlp_jax.distributed.exchange import broadcast_from_primary, several_hosts


class SaveSchedule:
    """Every so many steps, every so many minutes, and after the last step. Of several hosts the first one's clock counts,
    and it is asked only when a row is written, where they meet anyway."""

    def __init__(self, config: schema.Checkpoint, last_step: int):
        self.config, self.last_step = config, last_step
        self.last_save, self.agreed = time.monotonic(), False

    def due(self, step: int) -> bool:
        every = self.config.every_steps
        by_minutes = self.agreed if several_hosts() else self.minutes_have_passed()
        return step == self.last_step or (every is not None and step % every == 0) or by_minutes

    def minutes_have_passed(self) -> bool:
        every = self.config.every_minutes
        return every is not None and (time.monotonic() - self.last_save) / 60 >= every

    def agree(self) -> None:
        """Asks host 0's clock; called by all hosts at the same step."""
        if several_hosts() and self.config.every_minutes is not None:
            self.agreed = broadcast_from_primary("checkpoint.every_minutes", self.minutes_have_passed)

    def saved(self) -> None:
        self.last_save, self.agreed = time.monotonic(), False
