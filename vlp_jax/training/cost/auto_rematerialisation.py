"""`rematerialisation="auto"`: the least recomputation with which an update fits the memory of a
device, by compiling it."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax

from vlp_jax.distributed.exchange import broadcast_from_primary
from vlp_jax.errors import is_out_of_memory
from vlp_jax.reporting import report
from vlp_jax.sharding.mesh import build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import batch_shapes, build_update
from vlp_jax.training.cost.memory import device_memory, gigabytes, program_bytes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

AUTO = "auto"
# from the least recomputation to the least memory
POLICIES = ("none", "save_matmuls", "full")
PARTS = ("image", "text", "fusion", "decoder")
# of a device's memory, for a program: the rest is for what its estimate leaves out, as the next
# batch and the allocator's gaps
USED = 0.95
# the length of a run changes only constants of the schedule in its program
ANY_NUMBER_OF_STEPS = 100_000


def automatic_parts(config: "Experiment") -> dict[str, Any]:
    """{name: declaration} of the parts of the model whose policy is `auto`."""
    parts = {name: getattr(config.model, name) for name in PARTS}
    return {
        name: part
        for name, part in parts.items()
        if getattr(part, "rematerialisation", None) == AUTO
    }


def with_policy(config: "Experiment", policy: str) -> "Experiment":
    """The config with a policy in place of `auto`.

    A part that has no such policy, as a ResNet without `save_matmuls`, takes the next one with less
    memory.
    """
    chosen = {
        name: dataclasses.replace(
            part,
            rematerialisation=next(
                own for own in POLICIES[POLICIES.index(policy) :] if own in part.policies
            ),
        )
        for name, part in automatic_parts(config).items()
    }
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **chosen))


def candidates(config: "Experiment") -> Iterator["Experiment"]:
    """The config with each policy in place of `auto`, without repetition, the least recomputation
    first; the config itself without `auto`."""
    if not automatic_parts(config):
        yield config
        return
    tried = []
    for policy in POLICIES:
        candidate = with_policy(config, policy)
        if candidate not in tried:
            tried.append(candidate)
            yield candidate


def resolve(config: "Experiment") -> "Experiment":
    """The config with the policy in place of `auto` that fits the devices of this process.

    On a CPU nothing is recomputed, and nothing is compiled here. Elsewhere the update is compiled
    with each policy in turn; the program that fits is in the compilation cache for the run. Where
    none fits, it is that with the least memory. All processes take the choice of the primary one.

    Raises:
      ConfigError, MeshError: as `build_update`.
    """
    if not automatic_parts(config):
        return config
    if jax.default_backend() == "cpu":
        return with_policy(config, POLICIES[0])
    limit, name = device_memory()
    words = []
    for candidate in candidates(config):
        needed = memory_needed(candidate)
        words.append(
            f"{policy_of(candidate)} needs {'more' if needed is None else gigabytes(needed)}"
        )
        fits = limit is None or (needed is not None and needed <= USED * limit)
        if broadcast_from_primary("rematerialisation", lambda fits=fits: fits):
            break
    has = "" if limit is None else f", {name} has {gigabytes(limit)}"
    report(f"rematerialisation={policy_of(candidate)!r}: {', '.join(words)}{has}")
    return candidate


def policy_of(config: "Experiment") -> str:
    """The policies of the model's parts, `save_matmuls/full` where they differ."""
    parts = [getattr(config.model, name) for name in PARTS]
    found = [getattr(part, "rematerialisation", None) for part in parts]
    return "/".join(dict.fromkeys(policy for policy in found if policy))


def memory_needed(config: "Experiment") -> int | None:
    """Bytes of a device that the compiled update needs; None where the compiler refuses it for want
    of memory."""
    layout = build_layout(config.mesh, build_mesh(config.mesh))
    update = build_update(config, layout, ANY_NUMBER_OF_STEPS)
    try:
        compiled = update.train_step.lower(update.state_shapes, batch_shapes(config)).compile()
    except jax.errors.JaxRuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise
    return program_bytes(compiled.memory_analysis())
