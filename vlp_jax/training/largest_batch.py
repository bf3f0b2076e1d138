"""The largest batch that fits, found by compiling."""

import dataclasses
from collections.abc import Callable

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.mesh import batch_parts, make_mesh
from vlp_jax.sharding.topologies import Topology
from vlp_jax.training.bill import Bill, bill_of

COMPILES = 12


def largest_batch(config: schema.Config, topology: Topology, say: Callable[[str], None]) -> Bill:
    """The bill of the largest batch that fits, in steps of one eighth of what fits (of one microbatch on every device at least).

    Memory grows about linearly with the batch, so two compiled sizes foretell where it ends; that size is compiled too, and the
    search goes on between the largest that fits and the smallest that does not. Raises: ConfigError where not one example fits.
    """
    unit = batch_parts(make_mesh(config.mesh, topology.devices())) * config.accumulation.microbatches
    fitting: dict[int, Bill] = {}
    failing: dict[int, Bill] = {}
    size = max(config.data.batch_size // unit, 1)
    for _ in range(COMPILES):
        bill = bill_of(dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size * unit)), topology)
        (fitting if bill.fits else failing)[size] = bill
        say(f"batch {size * unit}: {bill.memory_bytes / 1e9:.2f} GB of {bill.chip_memory_bytes / 1e9:.2f} GB, "
            f"{'fits' if bill.fits else 'does not fit'}")
        low, high = max(fitting, default=0), min(failing, default=None)
        if high is not None and high - low <= max(1, low // 8):
            break
        size = next_size(low, high, sorted((fitting | failing).items()))
    if not fitting:
        raise ConfigError(f"--find-batch: not even {unit} examples fit {topology.spec}; more chips, mesh.fsdp or rematerialisation")
    return fitting[max(fitting)]


def next_size(low: int, high: int | None, known: list[tuple[int, Bill]]) -> int:
    """Where to compile next: just below where a line through two bills meets the chip's memory, kept between low and high."""
    if len(known) < 2:
        return low * 2 if low else max(high // 2, 1)
    (first, one), (second, two) = known[-2:] if high is None else ([item for item in known if item[0] <= high][-2:])
    slope = (two.memory_bytes - one.memory_bytes) / (second - first)
    guess = int(first + (one.chip_memory_bytes - one.memory_bytes) / slope * 0.98) if slope > 0 else low * 2
    if high is None:
        return max(low + 1, min(guess, low * 8))
    return min(max(guess, low + 1), high - 1) if low < guess < high else (low + high) // 2 or 1
