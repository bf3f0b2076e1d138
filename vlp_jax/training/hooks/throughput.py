"""Throughput of the updates compared with the devices' peak, and the devices' memory."""

from typing import TYPE_CHECKING

from jax.sharding import AbstractMesh, Mesh

from vlp_jax.hardware.chips import chip_of
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

UTILISATION = "train/model_flops_utilisation"


class Throughput(Hook):
    """Measures how well the updates of a run use its devices.

    Args:
      config: the config of the run.
      mesh: its devices.
    """

    def __init__(self, config: "Experiment", mesh: Mesh | AbstractMesh):
        self.devices, self.device = mesh.size, mesh.local_devices[0]
        self.flops, self.chip = train_step_flops(config), chip_of(self.device.device_kind)

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """Examples per second and device, model flops utilisation and memory.

        Model flops utilisation is that of an update, without its wait for data; it is absent for
        devices whose peak is unknown. Memory is absent where the device does not report it. Model
        flops are counted analytically, without recomputation by rematerialisation (Chowdhery et al.
        2022, "PaLM", appendix B).
        """
        row = {"train/examples_per_second_per_device": lap["examples_per_second"] / self.devices}
        if self.chip is not None:
            row[UTILISATION] = self.flops / lap["step_seconds"] / (self.devices * self.chip.flops)
        memory = self.device.memory_stats() or {}
        return row | {
            f"train/device_memory_{name}": memory[key]
            for name, key in (("bytes", "bytes_in_use"), ("peak_bytes", "peak_bytes_in_use"))
            if key in memory
        }
