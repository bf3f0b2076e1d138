"""The device mesh: named axes `data`, `fsdp` and `tensor`, sized by the config."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vlp_jax.config import schema
from vlp_jax.errors import MeshError

BATCH_AXES = ("data", "fsdp")


def make_mesh(config: schema.Mesh, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all). Without a -1, the product of the sizes may be less than their number;
    the first ones are used then.

    Raises: MeshError for sizes that the devices cannot fill.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    shown = " x ".join(f"{name}={size}" for name, size in sizes.items())
    if 0 in sizes.values() or list(sizes.values()).count(-1) > 1:
        raise MeshError(f"mesh {shown}: sizes are at least 1, and one of them may be -1 (the remaining devices)")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values():
        if len(devices) % fixed:
            raise MeshError(f"mesh {shown}: {len(devices)} devices do not divide by {fixed}")
        sizes = {name: len(devices) // fixed if size == -1 else size for name, size in sizes.items()}
    elif fixed > len(devices):
        raise MeshError(f"mesh {shown}: needs {fixed} devices, {len(devices)} are here; set one size to -1 to take what there is")
    used = devices[:math.prod(sizes.values())]
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), devices=used, axis_types=(AxisType.Auto,) * len(sizes))


def check_batch(batch_size: int, mesh: Mesh, what: str = "data.batch_size") -> None:
    """Raises: MeshError naming the nearest sizes unless the batch divides over the mesh's batch axes."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        nearest = f"{below} and {above}" if below else str(above)
        axes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        raise MeshError(f"{what} {batch_size} does not divide over {axes} ({parts}): nearest are {nearest}")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
