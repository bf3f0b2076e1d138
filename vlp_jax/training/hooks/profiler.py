"""Profiles of a few updates for TensorBoard: `--config.profile.start=100
--config.profile.steps=5`."""

import dataclasses
import os
import shutil
import tempfile

import jax

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.storage.files import upload_folder
from vlp_jax.storage.paths import is_bucket
from vlp_jax.training.hooks.hook import Hook, Update


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig(Section):
    """A window of updates recorded for TensorBoard's profiler, in DIR/profile."""

    start: int | None = between(None, 1)  # the first recorded update; None: no profile
    steps: int = between(5, 1)


class ProfilerWindow(Hook):
    """Records updates `start` to `start + steps - 1` into DIR/profile; every process records
    itself.

    A run resumed within the window records the rest of it.
    """

    def __init__(self, config: ProfileConfig, workdir: str):
        self.first, self.folder = config.start, os.path.join(workdir, "profile")
        self.url = None
        if is_bucket(workdir):  # JAX writes local files only
            self.url, self.folder = self.folder, ""
        self.end = 0 if config.start is None else config.start + config.steps
        self.recording = False

    def before(self, step: int) -> None:
        """Starts the recording at its first update."""
        if self.first is not None and not self.recording and self.first <= step < self.end:
            self.folder = self.folder or tempfile.mkdtemp(prefix="vlp_jax_profile_")
            jax.profiler.start_trace(self.folder)
            self.recording = True

    def after(self, update: Update) -> None:
        """Waits for the last recorded update and ends the recording."""
        if self.recording and update.step == self.end - 1:
            jax.block_until_ready(update.metrics)
            self.close()

    def close(self) -> None:
        """Ends a recording in progress, as at the end of a run."""
        if self.recording:
            jax.profiler.stop_trace()
            self.recording = False
            if self.url:
                upload_folder(self.folder, self.url)
                shutil.rmtree(self.folder, ignore_errors=True)
