"""Estimate the cost of a run: compile its train step for absent TPUs (v4, v5e, v5p, v6e) or GPUs
(h100, h200).

python -m vlp_jax.compile --config=configs/clip_b16.py --topology=v5e:16x16 [--config.KEY=VALUE ...]
  prints memory, flops, traffic and the least time of a step. It reads no data and no tokenizer.
"""

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from vlp_jax.command_line import Flags, run_entry_point
from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError
from vlp_jax.experiment import Experiment
from vlp_jax.printing import safe_print as print

if TYPE_CHECKING:  # modules that need JAX are imported where they are used, as in main.py
    from vlp_jax.hardware.topologies import Topology
    from vlp_jax.training.cost.estimate import CostEstimate

# fraction of a GPU's memory, JAX's default (docs.jax.dev, "GPU memory allocation")
JAX_TAKES = 0.75


def main(arguments: list[str]) -> int:
    """Prints a cost estimate per topology, and a table if there are several.

    Returns: 2 where one does not fit, else 0.
    Raises:
      UserError: anything that the user can fix.
    """
    flags = Flags(prog="compile", description=__doc__)
    flags.add_argument(
        "--config",
        required=True,
        help="a config by its name, or a file with get_config(); NAME:VARIANT",
    )
    flags.add_argument(
        "--topology",
        required=True,
        help="v5e:16x16 or h100:8; several with commas; 2*v5e:16x16: two slices",
    )
    flags.add_argument(
        "--json", help="file to write the cost estimate to, a list for several topologies"
    )
    flags.add_argument(
        "--find-batch",
        action="store_true",
        help="find the largest batch that fits, by compiling several",
    )
    given, overrides = flags.parse_with_overrides(arguments)
    config = load_config(given.config, overrides)
    from vlp_jax.hardware.topologies import parse_topology
    from vlp_jax.training.cost.estimate import estimate_cost
    from vlp_jax.training.cost.largest_batch import largest_batch
    from vlp_jax.training.hooks.metric_writers import write_atomically

    topologies = [parse_topology(spec) for spec in given.topology.split(",")]
    check_all(config, topologies, given)  # before minutes of compilation
    costs = []
    for topology in topologies:
        cost = (
            largest_batch(config, topology, say)
            if given.find_batch
            else estimate_cost(config, topology)
        )
        print(cost_text(cost, topology, config), flush=True)
        costs.append(cost)
        if given.json:
            rows = [cost.to_json() for cost in costs]
            write_atomically(
                given.json, json.dumps(rows[0] if len(topologies) == 1 else rows, indent=2) + "\n"
            )
    if len(costs) > 1:
        print("\n" + table(costs), flush=True)
    return 0 if all(cost.fits for cost in costs) else 2


def check_all(config: Experiment, topologies: "list[Topology]", given: Any) -> None:
    """Checks the topologies and the output file before anything is compiled.

    Raises:
      ConfigError, MeshError: the config does not fit a topology, or the estimate cannot be written.
    """
    from vlp_jax.training.cost.estimate import plan
    from vlp_jax.training.cost.largest_batch import unit_of

    for topology in topologies:
        size = unit_of(config, topology) if given.find_batch else config.data.batch_size
        plan(
            dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size)),
            topology,
        )
    folder = os.path.dirname(given.json or "") or "."
    if given.json and (os.path.isdir(given.json) or not os.access(folder, os.W_OK)):
        raise ConfigError(
            f"--json: {given.json} cannot be written; give a file in a folder that exists"
        )


def say(line: str) -> None:
    """Prints a line for the user on stderr, apart from the estimates."""
    print(line, file=sys.stderr, flush=True)


def cost_text(cost: "CostEstimate", topology: "Topology", config: Experiment) -> str:
    """A cost estimate as text; GB are 10^9 bytes."""
    from vlp_jax.hardware.chips import CHIPS
    from vlp_jax.hardware.topologies import GPUS
    from vlp_jax.training.cost.estimate import nearest_fix

    chip = CHIPS[topology.chip.name]
    mesh = " x ".join(f"{name}={size}" for name, size in cost.mesh.items())
    rows = {
        "topology": f"{cost.topology}, {cost.chips} chips, mesh {mesh}",
        "batch": f"{cost.batch_size:,}, {cost.batch_size / cost.chips:g} a chip",
        "rematerialisation": cost.rematerialisation,
        "parameters": f"{cost.parameters:,}",
    }
    if cost.temporaries_bytes is not None:
        rows |= {
            "arguments": gigabytes(cost.arguments_bytes),
            "temporaries": gigabytes(cost.temporaries_bytes),
            "output": f"{gigabytes(cost.output_bytes)} without what reuses arguments",
        }
    memory = (
        f"{gigabytes(cost.memory_bytes)} of {gigabytes(cost.chip_memory_bytes)}, "
        f"{cost.free_fraction:.1%} free"
    )
    rows |= {
        "memory a chip": memory,
        "model flops": f"{cost.flops_per_step:.4g} a step",
        "floor, matmuls": (
            f"{milliseconds(cost.floor_compute_seconds)} at {chip.flops / 1e12:g} Tflops a chip"
        ),
    }
    if cost.collectives is not None:
        rows |= {
            "floor, memory": (
                f"{milliseconds(cost.floor_memory_seconds)} at {chip.memory_bandwidth / 1e9:g} GB/s"
            ),
            "floor, interconnect": f"{milliseconds(cost.floor_interconnect_seconds)} at "
            f"{chip.interconnect_bandwidth / 1e9:g} GB/s",
        }
    if cost.floor_network_seconds is not None and chip.network_bandwidth is not None:
        rows |= {
            "floor, network": (
                f"{milliseconds(cost.floor_network_seconds)} at "
                f"{chip.network_bandwidth / 1e9:g} GB/s between "
            )
            + ("hosts" if chip.name in GPUS else "slices")
        }
    speed = cost.batch_size / cost.floor_seconds
    rows |= {
        "floor of a step": f"{milliseconds(cost.floor_seconds)}, {speed:,.0f} examples/s at most",
        "peaks from": chip.source,
    }
    rows |= {
        kind: f"{found['count']} a step over {found['bytes'] / 1e6:,.1f} MB, a chip sends "
        f"{(found['sent_bytes'] + found['network_bytes']) / 1e6:,.1f} MB"
        for kind, found in (cost.collectives or {}).items()
    }
    rows |= {"compiled in": f"{cost.compile_seconds:.0f} s"}
    if not cost.fits:
        rows |= {"does not fit": f"nearest fix: {nearest_fix(config, topology, cost)}"}
    elif chip.name in GPUS and cost.memory_bytes > JAX_TAKES * cost.chip_memory_bytes:
        rows |= {
            "to fit": (
                f"set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes {JAX_TAKES:.0%} "
                "of a GPU's memory otherwise"
            )
        }
    width = max(len(key) for key in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def table(costs: "list[CostEstimate]") -> str:
    """A table with a line per topology."""
    lines: list[tuple[str, ...]] = [
        (
            "topology",
            "chips",
            "batch",
            "arguments",
            "temporaries",
            "free",
            "floor",
            "examples/s at most",
        )
    ]
    for cost in costs:
        parts = [gigabytes(part) for part in (cost.arguments_bytes, cost.temporaries_bytes)]
        free = f"{cost.free_fraction:.1%}" if cost.fits else "does not fit"
        lines.append(
            (
                cost.topology,
                str(cost.chips),
                f"{cost.batch_size:,}",
                *parts,
                free,
                milliseconds(cost.floor_seconds),
                f"{cost.batch_size / cost.floor_seconds:,.0f}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def gigabytes(size: int | None) -> str:
    """Bytes in GB of 10^9, as text; "-" where they are not known."""
    return "-" if size is None else f"{size / 1e9:.3f} GB"


def milliseconds(seconds: float | None) -> str:
    """Seconds in ms, as text; "-" where they are not known."""
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    run_entry_point(main)
