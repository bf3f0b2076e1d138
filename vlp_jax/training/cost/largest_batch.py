"""Search for the largest batch that fits, by compiling."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from vlp_jax.errors import ConfigError
from vlp_jax.hardware.topologies import Topology
from vlp_jax.sharding.mesh import batch_parts, build_mesh
from vlp_jax.training.cost.estimate import CostEstimate, estimate_cost

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

COMPILES = 12


def largest_batch(
    config: "Experiment", topology: Topology, say: Callable[[str], None]
) -> CostEstimate:
    """The cost estimate of the largest batch that fits, to within one eighth of it.

    The resolution is at least one microbatch on every device. Memory grows about linearly with the
    batch, so two compiled sizes predict the limit. The predicted size is compiled too, and the
    search continues between the largest size that fits and the smallest that does not.

    Args:
      config: the config of the run; its batch size is where the search starts.
      topology: the devices to compile for.
      say: takes a line about each compiled size.
    Raises:
      ConfigError: not even the smallest batch fits.
    """
    unit = unit_of(config, topology)
    fitting: dict[int, CostEstimate] = {}
    failing: dict[int, CostEstimate] = {}
    size = max(config.data.batch_size // unit, 1)
    for _ in range(COMPILES):
        cost = estimate_cost(
            dataclasses.replace(
                config, data=dataclasses.replace(config.data, batch_size=size * unit)
            ),
            topology,
        )
        (fitting if cost.fits else failing)[size] = cost
        say(
            f"batch {size * unit}: {cost.memory_bytes / 1e9:.2f} GB of "
            f"{cost.chip_memory_bytes / 1e9:.2f} GB, {'fits' if cost.fits else 'does not fit'}"
        )
        low, high = max(fitting, default=0), min(failing, default=None)
        if high is not None and high - low <= max(1, low // 8):
            break
        size = next_size(fitting, failing)
    if not fitting:
        raise ConfigError(
            f"--find-batch: not even {unit} examples fit {topology.spec}; more "
            "chips, mesh.fsdp or rematerialisation"
        )
    return fitting[max(fitting)]


def unit_of(config: "Experiment", topology: Topology) -> int:
    """The smallest batch: one example of each microbatch on every device with its own part of the
    batch."""
    return (
        batch_parts(build_mesh(config.mesh, topology.devices())) * config.accumulation.microbatches
    )


def next_size(fitting: dict[int, CostEstimate], failing: dict[int, CostEstimate]) -> int:
    """The next size to compile.

    It is just below the point where a line through two estimates reaches the chip's memory, and
    lies between the sizes that fit and those that do not.
    """
    low, high = max(fitting, default=0), min(failing, default=None)
    if not low:
        return max(min(failing) // 2, 1)
    known = (
        sorted(fitting.items())[-2:]
        if len(fitting) > 1
        else sorted((fitting | failing).items())[:2]
    )
    if len(known) < 2:
        return 2 * low
    (first, one), (second, two) = known
    slope = (two.memory_bytes - one.memory_bytes) / (second - first)
    guess = (
        int(first + 0.98 * (one.chip_memory_bytes - one.memory_bytes) / slope)
        if slope > 0
        else 2 * low
    )
    if high is None:
        return max(low + 1, min(guess, 8 * low))
    return guess if low < guess < high else (low + high) // 2
