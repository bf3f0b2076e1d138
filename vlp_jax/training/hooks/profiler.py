"""Profiles of a few updates for TensorBoard: `--config.profile.start=100 --config.profile.steps=5`."""

import os
from typing import Any

import jax

from vlp_jax.config import schema


class ProfilerWindow:
    """Records updates `start` to `start + steps - 1` into DIR/profile; every process records itself.

    A run resumed within the window records the rest of it.
    """

    def __init__(self, config: schema.Profile, workdir: str):
        self.first, self.folder = config.start, os.path.join(workdir, "profile")
        self.end = None if config.start is None else config.start + config.steps
        self.recording = False

    def before(self, step: int) -> None:
        """Called before update `step` is started."""
        if self.first is not None and not self.recording and self.first <= step < self.end:
            jax.profiler.start_trace(self.folder)
            self.recording = True

    def after(self, step: int, results: Any) -> None:
        """Called with the results of update `step`; waits for those of the last recorded one."""
        if self.recording and step == self.end - 1:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a recording in progress, as at the end of a run."""
        if self.recording:
            jax.profiler.stop_trace()
            self.recording = False
