"""Device memory of a run's state, and explanations of out-of-memory errors.

The memory is computed from the state's shapes before anything is allocated.
"""

import math
import pathlib
import resource
from typing import Any

import jax
import psutil

from vlp_jax.errors import ConfigError, TrainingError, is_out_of_memory

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
ADVICE = (
    "a smaller data.batch_size, accumulation.microbatches, model.*.rematerialisation='full' "
    "and mesh.fsdp over more devices take less; python -m vlp_jax.compile prints the cost of "
    "a step"
)


def device_bytes(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> int:
    """Bytes of an array that one device holds."""
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def total_bytes(shapes: Any, shardings: Any) -> int:
    """Bytes that one device holds of all leaves of a tree."""
    return sum(
        device_bytes(*pair)
        for pair in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    )


def state_memory(shapes: Any, shardings: Any) -> dict[str, int]:
    """{part: bytes per device} of a TrainState and of the gradients, which are as large as the
    parameters."""
    parts = {
        "parameters": "params",
        "optimizer state": "optimizer",
        "ema": "ema",
        "averaged statistics": "ema_statistics",
        "collections": "collections",
    }
    cost = {
        name: total_bytes(getattr(shapes, part), getattr(shardings, part))
        for name, part in parts.items()
    }
    return {name: size for name, size in (cost | {"gradients": cost["parameters"]}).items() if size}


def host_memory() -> int:
    """Bytes of this machine's memory that this process may use."""
    limits = [psutil.virtual_memory().total, resource.getrlimit(resource.RLIMIT_AS)[0]]
    for path in map(pathlib.Path, CGROUP_LIMITS):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # a file of the other cgroup version, or "max"
            continue
    return min(limit for limit in limits if limit > 0)  # -1 means no limit


def device_memory() -> tuple[int | None, str]:
    """Bytes that one device of this process may hold (None where unknown), and a name of that
    memory."""
    device, count = jax.local_devices()[0], jax.local_device_count()
    if device.platform == "cpu":
        return host_memory() // count, (
            f"this machine's memory{f' for each of its {count} devices' if count > 1 else ''}"
        )
    return (device.memory_stats() or {}).get("bytes_limit"), f"a {device.device_kind}"


def check_state_fits(shapes: Any, shardings: Any) -> None:
    """Checks that a state and its gradients fit the memory of a device.

    Raises:
      ConfigError: they do not; the message has the size of each part.
    """
    cost, (memory, name) = state_memory(shapes, shardings), device_memory()
    if memory is not None and sum(cost.values()) > memory:
        raise ConfigError(
            f"model: is too large: {in_words(cost)} a device, and {name} has "
            f"{gigabytes(memory)}; mesh.fsdp over more devices, a smaller model, or "
            "an optimizer with less state (sgd, lion, adafactor) takes less"
        )


def check_parameters_fit(shapes: dict[str, list[int]], where: str) -> None:
    """Checks that float32 arrays of these shapes fit the memory of the one device that is to hold
    them.

    Raises:
      ConfigError: they do not.
    """
    needed, (memory, name) = sum(4 * math.prod(shape) for shape in shapes.values()), device_memory()
    if memory is not None and needed > memory:
        raise ConfigError(
            f"{where}: its parameters take {gigabytes(needed)}, and {name} has {gigabytes(memory)}"
        )


def out_of_memory(error: BaseException, shapes: Any, shardings: Any) -> TrainingError | None:
    """The TrainingError for an out-of-memory error during training; None for other errors.

    The message has the size of each part of the state.
    """
    if not is_out_of_memory(error):
        return None
    memory, name = device_memory()
    has = "" if memory is None else f" of the {gigabytes(memory)} that {name} has"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    cost = in_words(state_memory(shapes, shardings))
    return TrainingError(
        f"out of memory: {cost} a device{has}; the rest is the batch's: {ADVICE} ({said})"
    )


def in_words(cost: dict[str, int]) -> str:
    """`parameters 1.2 GB + gradients 1.2 GB = 2.4 GB`."""
    return (
        f"{' + '.join(f'{name} {gigabytes(size)}' for name, size in cost.items())} = "
        f"{gigabytes(sum(cost.values()))}"
    )


def program_bytes(memory: Any) -> int:
    """Arguments, temporaries and the results that reuse no argument, of a compiled program."""
    return (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def gigabytes(size: int) -> str:
    """Bytes in GB of 10^9, as text."""
    return f"{size / 1e9:,.3g} GB"
