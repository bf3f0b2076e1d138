"""What an update costs on chips that are not here: memory, flops, traffic and the least time, from the compiled program."""

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.chips import Chip
from vlp_jax.sharding.collective_counts import collective_counts, crossing_bytes
from vlp_jax.sharding.mesh import make_mesh
from vlp_jax.sharding.rules import make_layout
from vlp_jax.sharding.topologies import Topology
from vlp_jax.training.assembly import build_update, check_batches, example_batch
from vlp_jax.training.flops import train_step_flops

ANY_NUMBER_OF_STEPS = 100_000  # the schedule's constants; a run's length changes nothing else in its program


@dataclasses.dataclass(frozen=True)
class Bill:
    """Bytes are those of one chip. temporaries_bytes: the most that is alive at once beside arguments and results;
    output_bytes: results that do not reuse the memory of an argument. memory_bytes: all of it together. fits: whether that is
    at most chip_memory_bytes; where the compiler refused, memory_bytes is what it said is needed, and what only a compiled
    program shows is None. flops_per_step: analytic, of the global batch. collectives: {kind: {count, bytes}} of one update.
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
    floor_seconds: float
    collectives: dict[str, dict[str, int]] | None
    compile_seconds: float

    @property
    def free_fraction(self) -> float:
        return 1.0 - self.memory_bytes / self.chip_memory_bytes

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def bill_of(config: schema.Config, topology: Topology) -> Bill:
    """Compiles the update of `config` for `topology`. Raises: ConfigError, MeshError for what cannot be compiled at all."""
    mesh = make_mesh(config.mesh, topology.devices())
    check_batches(config, mesh)
    update = build_update(config, make_layout(config.mesh, mesh), ANY_NUMBER_OF_STEPS)
    known = dict(
        topology=topology.spec, chips=topology.chips, batch_size=config.data.batch_size, mesh=dict(mesh.shape),
        rematerialisation=policies(config.model), chip_memory_bytes=topology.chip.memory_bytes,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(update.shapes.params)), flops_per_step=train_step_flops(config))
    compute = known["flops_per_step"] / (mesh.devices.size * topology.chip.flops)
    start = time.monotonic()
    try:
        compiled = update.train_step.lower(update.shapes, batch_shapes(config)).compile()
    except jax.errors.JaxRuntimeError as error:
        needed = memory_asked_for(str(error), topology.chip)
        return Bill(**known, **dict.fromkeys(("arguments_bytes", "temporaries_bytes", "output_bytes", "collectives",
                                              "floor_memory_seconds", "floor_interconnect_seconds")),
                    memory_bytes=needed, fits=False, floor_compute_seconds=compute, floor_seconds=compute,
                    compile_seconds=time.monotonic() - start)
    return Bill(**known, **measured(compiled, topology.chip, compute), compile_seconds=time.monotonic() - start)


def measured(compiled: Any, chip: Chip, compute_seconds: float) -> dict[str, Any]:
    """The part of a bill that the compiled program tells."""
    memory = compiled.memory_analysis()
    new_output = memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes + new_output
    collectives = collective_counts(compiled.as_text())
    floors = {  # every argument is read and every result written once, at least
        "floor_compute_seconds": compute_seconds,
        "floor_memory_seconds": (memory.argument_size_in_bytes + memory.output_size_in_bytes) / chip.memory_bandwidth,
        "floor_interconnect_seconds": crossing_bytes(collectives) / chip.interconnect_bandwidth}
    return dict(arguments_bytes=memory.argument_size_in_bytes, temporaries_bytes=memory.temp_size_in_bytes, output_bytes=new_output,
                memory_bytes=total, fits=total <= chip.memory_bytes, collectives=collectives, floor_seconds=max(floors.values()),
                **floors)


def batch_shapes(config: schema.Config) -> dict[str, jax.ShapeDtypeStruct]:
    """The global batch as it comes from the host: pixels are bytes."""
    shapes = jax.eval_shape(lambda: example_batch(config, config.data.batch_size))
    return shapes | {"image": jax.ShapeDtypeStruct(shapes["image"].shape, jnp.uint8)}


def policies(model: schema.Model) -> str:
    """`full`, or `save_matmuls/full` where the image and the text tower differ."""
    return "/".join(dict.fromkeys((model.image.rematerialisation, model.text.rematerialisation)))


def memory_asked_for(message: str, chip: Chip) -> int:
    """Bytes that the compiler said a program needs, from its out-of-memory error. Raises: ConfigError for any other error."""
    found = re.search(r"[Uu]sed ([\d.]+)([GMK]) of|temporaries \(([\d.]+)([GMK])\) exceeds|needs? ([\d.]+)([GMK])", message)
    if "RESOURCE_EXHAUSTED" not in message and "memory" not in message:
        raise ConfigError(f"the compiler for {chip.name} refused the program: {message.strip().splitlines()[0][:300]}")
    if found is None:
        return chip.memory_bytes + 1
    number, unit = [part for part in found.groups() if part is not None]
    return int(float(number) * {"G": 2**30, "M": 2**20, "K": 2**10}[unit])


def nearest_fix(config: schema.Config, bill: Bill) -> str:
    """The change that loses least of what would make a bill that does not fit fit, by proportion; a compile tells for sure."""
    mesh, model = bill.mesh, config.model
    lesser = {"none": "save_matmuls", "save_matmuls": "full", "save_names": "full"}
    policy = lesser.get(model.image.rematerialisation) or lesser.get(model.text.rematerialisation)
    state = bill.parameters * 4 * (3 + (config.ema is not None)) // (mesh["fsdp"] * mesh["tensor"])
    if state > 0.4 * bill.chip_memory_bytes and mesh["data"] > 1:
        return f"--config.mesh.fsdp={bill.chips} --config.mesh.data=1 (the state alone takes {state / 1e9:.1f} GB a chip)"
    if policy:
        return f"--config.model.image.rematerialisation={policy} --config.model.text.rematerialisation={policy}"
    room = (bill.chip_memory_bytes - state) / max(bill.memory_bytes - state, 1)
    parts = int(np.prod([mesh["data"], mesh["fsdp"]]))
    batch = int(config.data.batch_size * room) // parts * parts
    if batch:
        return f"--config.data.batch_size={batch}, or as many chips more as keep the batch"
    return f"more chips: one example a chip is too much for {bill.topology}"
