"""The least cost of a run, printed once its update is compiled."""

import datetime
from typing import TYPE_CHECKING

from jax.sharding import AbstractMesh, Mesh

from vlp_jax.hardware.chips import Chip, chip_of
from vlp_jax.reporting import report
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.cost.memory import device_memory, gigabytes
from vlp_jax.training.hooks.compilations import WatchedStep
from vlp_jax.training.hooks.hook import Hook, Update

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


class RunCost(Hook):
    """A line about time and memory at the first update of a session, on chips of known peaks.

    Args:
      config: the config of the run.
      mesh: its devices.
      steps: the number of the last update.
      train_step: the update, which knows its memory once it is compiled.
    """

    def __init__(
        self, config: "Experiment", mesh: Mesh | AbstractMesh, steps: int, train_step: WatchedStep
    ):
        self.config, self.steps, self.train_step = config, steps, train_step
        self.devices = mesh.size
        self.chip = chip_of(mesh.local_devices[0].device_kind)
        self.reported = False

    def after(self, update: Update) -> None:
        """Prints the line, once."""
        if self.reported or self.chip is None:
            return
        self.reported = True
        flops = train_step_flops(self.config) / self.devices
        updates = self.steps - update.step + 1
        line = least_time(flops, self.config.data.batch_size, updates, self.devices, self.chip)
        if (needed := self.train_step.program_bytes) is not None:
            limit, name = device_memory()
            has = "" if limit is None else f", {name} has {gigabytes(limit)}"
            line += f"; an update needs {gigabytes(needed)}{has}"
        report(line)


def least_time(flops: float, batch_size: int, updates: int, devices: int, chip: Chip) -> str:
    """The least time of a run in words.

    Args:
      flops: model flops of an update on each device, without recomputation.
      batch_size: examples of an update.
      updates: number of updates to come.
      devices: number of chips.
      chip: their peak figures.
    """
    seconds = flops / chip.flops
    whole = datetime.timedelta(seconds=round(seconds * updates))
    return (
        f"{devices} x {chip.name} at {chip.flops / 1e12:g} Tflops: at least {seconds * 1e3:.1f} ms "
        f"an update ({batch_size / seconds:,.0f} examples/s at most), {whole} or "
        f"{seconds * updates * devices / 3600:,.1f} chip hours for {updates:,} updates"
    )
