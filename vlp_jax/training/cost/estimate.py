"""Cost estimate of an update on absent chips, from the compiled program.

It has memory, flops, traffic and the least time.
"""

import contextlib
import dataclasses
import re
import time
from typing import TYPE_CHECKING, Any

import jax

from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.hardware.chips import Chip
from vlp_jax.hardware.collective_counts import collective_counts
from vlp_jax.hardware.topologies import Topology
from vlp_jax.models.config import ModelConfig
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import Update, batch_shapes, build_update, check_batches
from vlp_jax.training.cost.auto_rematerialisation import ANY_NUMBER_OF_STEPS, USED, candidates
from vlp_jax.training.cost.flops import train_step_flops
from vlp_jax.training.cost.memory import program_bytes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class CostEstimate:
    """The cost estimate of one update. Bytes are those of one chip.

    Attributes:
      topology, chips: the spec of the topology, and its number of chips.
      batch_size: the global batch.
      mesh: {axis: size}.
      rematerialisation: policies of the towers (see `policies`).
      parameters: number of parameters.
      arguments_bytes: arguments of the compiled program.
      temporaries_bytes: the most that is alive at once in addition to arguments and results.
      output_bytes: results that do not reuse the memory of an argument.
      memory_bytes: all of it together. Where the compiler refused the program: what its error
        states as needed.
      chip_memory_bytes: memory of one chip.
      fits: whether memory_bytes is at most chip_memory_bytes.
      flops_per_step: analytic, of the global batch.
      floor_compute_seconds, floor_memory_seconds, floor_interconnect_seconds: least time by flops,
        by memory traffic, and by traffic within a slice or GPU host.
      floor_network_seconds: least time by traffic between slices or GPU hosts; None where there is
        none, or where the chip's share of that network is not published.
      floor_seconds: the largest of these.
      collectives: those of one update, as `hardware.collective_counts` returns them.
      compile_seconds: time of the compilation.
    Values that only a compiled program shows are None where the compiler refused it.
    """

    topology: str
    chips: int
    batch_size: int
    mesh: dict[str, int]
    rematerialisation: str
    parameters: int
    arguments_bytes: int | None
    temporaries_bytes: int | None
    output_bytes: int | None
    memory_bytes: int
    chip_memory_bytes: int
    fits: bool
    flops_per_step: int
    floor_compute_seconds: float
    floor_memory_seconds: float | None
    floor_interconnect_seconds: float | None
    floor_network_seconds: float | None
    floor_seconds: float
    collectives: dict[str, dict[str, int]] | None
    compile_seconds: float

    @property
    def free_fraction(self) -> float:
        """The fraction of the chip's memory that stays free."""
        return 1.0 - self.memory_bytes / self.chip_memory_bytes

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return dataclasses.asdict(self)


def plan(config: "Experiment", topology: Topology) -> tuple[jax.sharding.Mesh, Update]:
    """The mesh over the devices of a topology, and the update to compile for it.

    Raises:
      ConfigError, MeshError: a config that is not possible.
    """
    mesh = build_mesh(config.mesh, topology.devices())
    check_batches(config, mesh)
    return mesh, build_update(config, build_layout(config.mesh, mesh), ANY_NUMBER_OF_STEPS)


def estimate_cost(config: "Experiment", topology: Topology) -> CostEstimate:
    """The cost estimate of the update of `config`, compiled for `topology`.

    With `rematerialisation="auto"` it is that of the first policy that fits with what a run leaves
    free (`auto_rematerialisation.USED`), else of the last.

    Raises:
      ConfigError, MeshError: the update cannot be compiled at all.
    """
    *others, last = candidates(config)
    for candidate in others:
        cost = estimate_as_given(candidate, topology)
        if cost.memory_bytes <= USED * topology.chip.memory_bytes:
            return cost
    return estimate_as_given(last, topology)


def estimate_as_given(config: "Experiment", topology: Topology) -> CostEstimate:
    """`estimate_cost` with the policies of rematerialisation that the config names."""
    mesh, update = plan(config, topology)
    known = dict(
        topology=topology.spec,
        chips=topology.chips,
        batch_size=config.data.batch_size,
        mesh=dict(mesh.shape),
        rematerialisation=policies(config.model),
        chip_memory_bytes=topology.chip.memory_bytes,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(update.shapes.params)),
        flops_per_step=train_step_flops(config),
    )
    compute = known["flops_per_step"] / (mesh.devices.size * topology.chip.flops)
    start = time.monotonic()
    try:
        compiled = update.train_step.lower(update.shapes, batch_shapes(config)).compile()
    except jax.errors.JaxRuntimeError as error:
        needed = memory_asked_for(str(error), topology.chip)
        return CostEstimate(
            **known,
            **dict.fromkeys(
                (
                    "arguments_bytes",
                    "temporaries_bytes",
                    "output_bytes",
                    "collectives",
                    "floor_memory_seconds",
                    "floor_interconnect_seconds",
                    "floor_network_seconds",
                )
            ),
            memory_bytes=needed,
            fits=False,
            floor_compute_seconds=compute,
            floor_seconds=compute,
            compile_seconds=time.monotonic() - start,
        )
    found = measured(compiled, topology.chip, topology.islands(mesh.devices.flat), compute)
    return CostEstimate(**known, **found, compile_seconds=time.monotonic() - start)


def measured(
    compiled: Any, chip: Chip, islands: list[int], compute_seconds: float
) -> dict[str, Any]:
    """The fields of a cost estimate that come from the compiled program."""
    memory = compiled.memory_analysis()
    new_output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = program_bytes(memory)
    collectives = collective_counts(compiled.as_text(), islands)
    sent, beyond = (
        sum(found[key] for found in collectives.values()) for key in ("sent_bytes", "network_bytes")
    )
    floors = {  # every argument is read and every result is written at least once
        "floor_compute_seconds": compute_seconds,
        "floor_memory_seconds": (memory.argument_size_in_bytes + memory.output_size_in_bytes)
        / chip.memory_bandwidth,
        "floor_interconnect_seconds": sent / chip.interconnect_bandwidth,
        "floor_network_seconds": beyond / chip.network_bandwidth
        if beyond and chip.network_bandwidth
        else None,
    }
    return dict(
        arguments_bytes=memory.argument_size_in_bytes,
        temporaries_bytes=memory.temp_size_in_bytes,
        output_bytes=new_output,
        memory_bytes=total,
        fits=total <= chip.memory_bytes,
        collectives=collectives,
        floor_seconds=max(floor or 0.0 for floor in floors.values()),
        **floors,
    )


def policies(model: ModelConfig) -> str:
    """`full`, or `save_matmuls/full` where the image and text towers differ."""
    return "/".join(dict.fromkeys((model.image.rematerialisation, model.text.rematerialisation)))


def memory_asked_for(message: str, chip: Chip) -> int:
    """The bytes that a program needs, from the compiler's out-of-memory error.

    Raises:
      ConfigError: any other error.
    """
    found = re.search(
        r"[Uu]sed ([\d.]+)([GMK]) of|temporaries \(([\d.]+)([GMK])\) exceeds|needs? "
        r"([\d.]+)([GMK])",
        message,
    )
    if "RESOURCE_EXHAUSTED" not in message and "memory" not in message:
        raise ConfigError(
            f"the compiler for {chip.name} refused the program: "
            f"{message.strip().splitlines()[0][:300]}"
        )
    if found is None:
        return chip.memory_bytes + 1
    number, unit = [part for part in found.groups() if part is not None]
    return int(float(number) * {"G": 2**30, "M": 2**20, "K": 2**10}[unit])


def nearest_fix(config: "Experiment", topology: Topology, cost: CostEstimate) -> str:
    """The least costly change by which an estimate that does not fit should fit.

    It is found by proportion; only a compilation can confirm it.
    """
    state = (
        cost.parameters
        * 4
        * (3 + (config.ema is not None))
        // (cost.mesh["fsdp"] * cost.mesh["tensor"])
    )
    sharing = more_sharing(config, topology, cost) if state > 0.4 * cost.chip_memory_bytes else None
    if sharing is not None:
        strategy = " --config.mesh.strategy=none" if config.mesh.strategy else ""
        return (
            f"--config.mesh.fsdp={sharing.fsdp} --config.mesh.data={sharing.data}{strategy} "
            f"(the state alone takes {state / 1e9:.1f} GB a chip)"
        )
    lesser = {"none": "save_matmuls", "save_matmuls": "full", "save_names": "full"}
    image, text = config.model.image, config.model.text
    policy = lesser.get(image.rematerialisation) or (
        lesser.get(text.rematerialisation) if "full" in text.policies else None
    )
    if policy and state < cost.chip_memory_bytes:
        of_image = policy if policy in image.policies else "full"
        of_text = (
            f" --config.model.text.rematerialisation={policy}" if policy in text.policies else ""
        )
        return f"--config.model.image.rematerialisation={of_image}{of_text}"
    room = (cost.chip_memory_bytes - state) / max(cost.memory_bytes - state, 1)
    unit = cost.mesh["data"] * cost.mesh["fsdp"] * config.accumulation.microbatches
    batch = int(config.data.batch_size * room) // unit * unit
    if batch > 0:
        return f"--config.data.batch_size={batch}, or as many chips more as keep the batch"
    return f"more chips, or larger ones: not even one example a chip fits {cost.topology}"


def more_sharing(config: "Experiment", topology: Topology, cost: CostEstimate) -> MeshConfig | None:
    """The mesh on which the most devices share one copy of the state.

    Returns: None where none is better than the config's mesh, or none can be built.
    """
    copies = cost.mesh["data"] * cost.mesh["fsdp"]
    for fsdp in (copies // data for data in range(1, copies) if copies % data == 0):
        mesh = dataclasses.replace(
            config.mesh, data=copies // fsdp, fsdp=fsdp, tensor=cost.mesh["tensor"], strategy=None
        )
        if fsdp <= cost.mesh["fsdp"]:
            return None
        with contextlib.suppress(ConfigError, MeshError):
            plan(dataclasses.replace(config, mesh=mesh), topology)
            return mesh
    return None
