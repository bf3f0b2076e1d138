"""The bill before the run: `python -m vlp_jax.compile --config=configs/clip_b16.py --topology=v5e:16x16 [--config.KEY=VALUE ...]`
compiles the real train step for TPUs (v4, v5e, v5p, v6e) or GPUs (h100, h200) that are not here. Reads no data and no tokenizer.
"""

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from vlp_jax.command_line import Flags, run_entry_point
from vlp_jax.config import load_config, schema
from vlp_jax.errors import ConfigError
from vlp_jax.printing import safe_print as print

if TYPE_CHECKING:  # what brings in JAX is imported where it is used, as in main.py
    from vlp_jax.hardware.topologies import Topology
    from vlp_jax.training.cost.estimate import Bill

JAX_TAKES = 0.75  # of a GPU's memory, unless told otherwise (docs.jax.dev, "GPU memory allocation")


def main(arguments: list[str]) -> int:
    """Prints a bill a topology, and a table of several. Returns 2 where one does not fit, else 0. Raises: UserError."""
    flags = Flags(prog="compile", description=__doc__)
    flags.add_argument("--config", required=True, help="a config by its name, or a file with get_config(); NAME:VARIANT")
    flags.add_argument("--topology", required=True, help="v5e:16x16 or h100:8; several with commas; 2*v5e:16x16: two slices")
    flags.add_argument("--json", help="file to write the bill to, a list for several topologies")
    flags.add_argument("--find-batch", action="store_true", help="find the largest batch that fits, by compiling several")
    given, overrides = flags.parse_with_overrides(arguments)
    config = load_config(given.config, overrides)
    from vlp_jax.hardware.topologies import parse_topology
    from vlp_jax.training.cost.estimate import bill_of
    from vlp_jax.training.cost.largest_batch import largest_batch
    from vlp_jax.training.hooks.metric_writers import write_atomically

    topologies = [parse_topology(spec) for spec in given.topology.split(",")]
    check_all(config, topologies, given)  # before minutes of compiling
    bills = []
    for topology in topologies:
        bill = largest_batch(config, topology, say) if given.find_batch else bill_of(config, topology)
        print(bill_text(bill, topology, config), flush=True)
        bills.append(bill)
        if given.json:
            rows = [bill.to_json() for bill in bills]
            write_atomically(given.json, json.dumps(rows[0] if len(topologies) == 1 else rows, indent=2) + "\n")
    if len(bills) > 1:
        print("\n" + table(bills), flush=True)
    return 0 if all(bill.fits for bill in bills) else 2


def check_all(config: schema.Config, topologies: "list[Topology]", given: Any) -> None:
    """Raises: ConfigError, MeshError for a topology that the config cannot be laid out on, or a bill that cannot be written."""
    from vlp_jax.training.cost.estimate import plan
    from vlp_jax.training.cost.largest_batch import unit_of

    for topology in topologies:
        size = unit_of(config, topology) if given.find_batch else config.data.batch_size
        plan(dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size)), topology)
    folder = os.path.dirname(given.json or "") or "."
    if given.json and (os.path.isdir(given.json) or not os.access(folder, os.W_OK)):
        raise ConfigError(f"--json: {given.json} cannot be written; give a file in a folder that exists")


def say(line: str) -> None:
    """A line for the user, beside the bills."""
    print(line, file=sys.stderr, flush=True)


def bill_text(bill: "Bill", topology: "Topology", config: schema.Config) -> str:
    """One bill in words; GB are 10^9 bytes."""
    from vlp_jax.hardware.chips import CHIPS
    from vlp_jax.hardware.topologies import GPUS
    from vlp_jax.training.cost.estimate import nearest_fix

    chip = CHIPS[topology.chip.name]
    mesh = " x ".join(f"{name}={size}" for name, size in bill.mesh.items())
    rows = {"topology": f"{bill.topology}, {bill.chips} chips, mesh {mesh}",
            "batch": f"{bill.batch_size:,}, {bill.batch_size / bill.chips:g} a chip", "rematerialisation": bill.rematerialisation,
            "parameters": f"{bill.parameters:,}"}
    if bill.temporaries_bytes is not None:
        rows |= {"arguments": gigabytes(bill.arguments_bytes), "temporaries": gigabytes(bill.temporaries_bytes),
                 "output": f"{gigabytes(bill.output_bytes)} beside what reuses arguments"}
    memory = f"{gigabytes(bill.memory_bytes)} of {gigabytes(bill.chip_memory_bytes)}, {bill.free_fraction:.1%} free"
    rows |= {"memory a chip": memory,
             "model flops": f"{bill.flops_per_step:.4g} a step",
             "floor, matmuls": f"{milliseconds(bill.floor_compute_seconds)} at {chip.flops / 1e12:g} Tflops a chip"}
    if bill.collectives is not None:
        rows |= {"floor, memory": f"{milliseconds(bill.floor_memory_seconds)} at {chip.memory_bandwidth / 1e9:g} GB/s",
                 "floor, interconnect": f"{milliseconds(bill.floor_interconnect_seconds)} at "
                                        f"{chip.interconnect_bandwidth / 1e9:g} GB/s"}
    if bill.floor_network_seconds is not None:
        rows |= {"floor, network": f"{milliseconds(bill.floor_network_seconds)} at {chip.network_bandwidth / 1e9:g} GB/s between "
                                   + ("hosts" if chip.name in GPUS else "slices")}
    speed = bill.batch_size / bill.floor_seconds
    rows |= {"floor of a step": f"{milliseconds(bill.floor_seconds)}, {speed:,.0f} examples/s at most",
             "peaks from": chip.source}
    rows |= {kind: f"{found['count']} a step over {found['bytes'] / 1e6:,.1f} MB, a chip sends "
                   f"{(found['sent_bytes'] + found['network_bytes']) / 1e6:,.1f} MB"
             for kind, found in (bill.collectives or {}).items()}
    rows |= {"compiled in": f"{bill.compile_seconds:.0f} s"}
    if not bill.fits:
        rows |= {"does not fit": f"nearest fix: {nearest_fix(config, topology, bill)}"}
    elif chip.name in GPUS and bill.memory_bytes > JAX_TAKES * bill.chip_memory_bytes:
        rows |= {"to fit": f"set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes {JAX_TAKES:.0%} of a GPU's memory otherwise"}
    width = max(len(key) for key in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def table(bills: "list[Bill]") -> str:
    """A line a topology."""
    lines = [("topology", "chips", "batch", "arguments", "temporaries", "free", "floor", "examples/s at most")]
    for bill in bills:
        parts = [gigabytes(part) if part is not None else "-" for part in (bill.arguments_bytes, bill.temporaries_bytes)]
        free = f"{bill.free_fraction:.1%}" if bill.fits else "does not fit"
        lines.append((bill.topology, str(bill.chips), f"{bill.batch_size:,}", *parts, free, milliseconds(bill.floor_seconds),
                      f"{bill.batch_size / bill.floor_seconds:,.0f}"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def gigabytes(size: int) -> str:
    """Bytes in GB of 10^9, for reading."""
    return f"{size / 1e9:.3f} GB"


def milliseconds(seconds: float) -> str:
    """Seconds in ms, for reading."""
    return f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    run_entry_point(main)
