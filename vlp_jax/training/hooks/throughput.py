"""Throughput of the updates compared with the devices' peak, and the time spent on other work."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from vlp_jax.hardware.chips import chip_of
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.hooks.compilations import WatchedStep
from vlp_jax.training.hooks.goodput import Goodput
from vlp_jax.training.hooks.profiler import ProfilerWindow

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

UTILISATION = "train/model_flops_utilisation"


class Throughput:
    """Runs the updates of a trainer and measures them.

    Args:
      config: the config of the run.
      mesh: its devices.
      workdir: its folder.
      train_step: the jitted `step(state, batch)`.
      say: takes a line for the user.
    """

    def __init__(self, config: "Experiment", mesh: jax.sharding.Mesh, workdir: str, train_step: Callable,
                 say: Callable[[str], None]):
        self.devices, self.device = mesh.size, mesh.local_devices[0]
        self.flops, self.chip = train_step_flops(config), chip_of(self.device.device_kind)
        self.train_step = WatchedStep(train_step, say)
        self.window = ProfilerWindow(config.profile, workdir)
        self.goodput = Goodput()

    @property
    def compile_seconds(self) -> float:
        """Seconds spent on compiling the update so far."""
        return self.train_step.compile_seconds

    def update(self, step: int, state: Any, batch: Any) -> tuple[Any, Any]:
        """Starts update `step`; its compilation counts as start-up."""
        self.window.before(step)
        before = self.train_step.compile_seconds
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            results = self.train_step(state, batch)
        self.goodput.spent("start_up", self.train_step.compile_seconds - before)
        self.window.after(step, results)
        return results

    def row(self, lap: dict[str, float]) -> dict[str, float]:
        """The metrics of metrics.jsonl that supplement a `lap` of `Clock.lap`.

        Model flops utilisation is that of an update, without its wait for data; it is absent for
        devices whose peak is unknown. Memory is absent where the device does not report it. Model
        flops are counted analytically, without recomputation by rematerialisation (Chowdhery et al.
        2022, "PaLM", appendix B).
        """
        row = {"train/examples_per_second_per_device": lap["examples_per_second"] / self.devices,
               "train/compilations": self.train_step.compilations,
               "train/compilations_from_cache": self.train_step.from_cache,
               "train/compile_seconds": self.train_step.compile_seconds}
        if self.chip is not None:
            row[UTILISATION] = self.flops / lap["step_seconds"] / (self.devices * self.chip.flops)
        memory = self.device.memory_stats() or {}
        row |= {f"train/device_memory_{name}": memory[key] for name, key in
                (("bytes", "bytes_in_use"), ("peak_bytes", "peak_bytes_in_use")) if key in memory}
        return row | self.goodput.fractions()

    def close(self) -> None:
        """Ends a profile in progress."""
        self.window.close()
