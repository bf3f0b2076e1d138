"""The device mesh with the axes `data`, `fsdp` and `tensor`.

Its sizes come from the config, and its arrangement from the devices' topology.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.errors import MeshError
from vlp_jax.sharding.divisors import nearest_words

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

BATCH_AXES = ("data", "fsdp")
MESH_AXES = ("data", "fsdp", "tensor")
AUTO = (AxisType.Auto,) * len(MESH_AXES)  # XLA chooses the sharding where the rules leave it open


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(Section):
    """The device mesh, and the sharding of parameters over it.

    One size may be -1; it takes the remaining devices. `data` and `fsdp` divide the batch. `fsdp`
    also divides parameters, their moments and their EMA; `tensor` divides attention heads, MLPs and
    the vocabulary. A rule is a logical axis and the mesh axes that it is sharded over, if any:
    ("vocab",), ("embed", "fsdp").
    """

    data: int = between(-1, -1)
    fsdp: int = between(1, -1)
    tensor: int = between(1, -1)
    # TPU slices that `data` spans, with `fsdp` over the others; -1: as many as possible
    dcn_data: int = between(-1, -1)
    # a preset of rules; None: by the sizes above
    strategy: Literal["data", "fsdp", "tensor", "fsdp+tensor"] | None = None
    rules: tuple[tuple[str, ...], ...] = ()  # take precedence over the preset's
    # Parameters with fewer elements (in one layer) are replicated; only `tensor` still divides
    # heads and MLPs.
    replicate_below: int = between(65_536, 0)

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """Rules for the axis "batch", which is always divided over `data` and `fsdp`."""
        divided = any(rule[:1] == ("batch",) for rule in self.rules)
        reason = (
            "for 'batch': examples are always divided over data x fsdp; set mesh.data and mesh.fsdp"
        )
        return {"rules": reason} if divided else {}


def build_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices`.

    Without a -1, the product of the sizes may be less than the number of devices; the first ones
    are used then. Devices of several slices, which only the data-centre network connects, are
    divided between the slices along `data`, then `fsdp`; `tensor` stays within one slice.

    Args:
      config: the mesh section of the config.
      devices: the devices. Default: all. They may be those of an absent machine's topology.
    Raises:
      MeshError: the devices cannot fill the sizes.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = tuple(mesh_sizes(config, len(devices)).values())
    used = devices[: math.prod(sizes)]
    across = sizes_across_slices(config, sizes, used)
    within = tuple(size // slices for size, slices in zip(sizes, across, strict=True))
    try:
        if math.prod(across) == 1:
            placed = mesh_utils.create_device_mesh(within, used, allow_split_physical_axes=True)
        else:
            placed = mesh_utils.create_hybrid_device_mesh(
                within, across, used, allow_split_physical_axes=True
            )
    except (ValueError, NotImplementedError, AssertionError) as error:
        raise MeshError(
            f"mesh {shown(sizes)}: the {len(used)} devices ({used[0].device_kind}) are "
            "not wired so: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    return Mesh(placed, MESH_AXES, axis_types=AUTO)


def abstract_mesh(config: MeshConfig, devices: int | None = None) -> AbstractMesh:
    """The mesh over a number of devices that need not exist.

    Args:
      config: the mesh section of the config.
      devices: number of devices. Default: as few as the config allows (1 for a -1).
    Raises:
      MeshError: as `build_mesh`.
    """
    fewest = math.prod(size for size in (config.data, config.fsdp, config.tensor) if size > 0)
    sizes = mesh_sizes(config, fewest if devices is None else devices)
    return AbstractMesh(tuple(sizes.values()), MESH_AXES, axis_types=AUTO)


def mesh_sizes(config: MeshConfig, devices: int) -> dict[str, int]:
    """The size of each mesh axis.

    Raises:
      MeshError: this number of devices cannot fill the sizes.
    """
    sizes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    words = shown(sizes.values())
    if 0 in sizes.values() or list(sizes.values()).count(-1) > 1:
        raise MeshError(
            f"mesh {words}: sizes are at least 1, and one of them may be -1 (the remaining devices)"
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if -1 in sizes.values():
        if devices % fixed:
            raise MeshError(
                f"mesh {words}: {devices} devices do not divide by {fixed}: nearest "
                f"are {nearest_words(devices, fixed)}"
            )
        return {name: devices // fixed if size == -1 else size for name, size in sizes.items()}
    if fixed > devices:
        raise MeshError(
            f"mesh {words}: needs {fixed} devices, {devices} are here; set one size "
            "to -1 to take what there is"
        )
    return sizes


def sizes_across_slices(
    config: MeshConfig, sizes: Sequence[int], devices: Sequence[Any]
) -> tuple[int, int, int]:
    """The number of slices that each mesh axis spans.

    Raises:
      MeshError: the mesh cannot be divided over the slices.
    """
    members = Counter(getattr(device, "slice_index", 0) or 0 for device in devices)
    slices, (data, fsdp, _) = len(members), sizes
    if len(set(members.values())) > 1:
        raise MeshError(
            f"mesh {shown(sizes)}: takes {', '.join(map(str, members.values()))} "
            f"devices of {slices} slices; use the same number of each"
        )
    on_data = math.gcd(data, slices) if config.dcn_data == -1 else config.dcn_data
    if on_data == 0 or slices % on_data:
        raise MeshError(
            f"mesh.dcn_data {config.dcn_data}: the devices form {slices} "
            f"slice{'s' * (slices > 1)}; expected a divisor of that, or -1"
        )
    for axis, size, count in (("data", data, on_data), ("fsdp", fsdp, slices // on_data)):
        if size % count:
            raise MeshError(
                f"mesh {axis}={size} does not divide over {count} of {slices} slices: "
                f"nearest are {nearest_words(size, count)}; tensor stays within a "
                "slice"
            )
    return on_data, slices // on_data, 1


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
    """The number of parts that the mesh divides a batch into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(batch_size: int, mesh: Mesh | AbstractMesh, what: str = "data.batch_size") -> None:
    """Checks that the batch divides over the batch axes of the mesh.

    Raises:
      MeshError: it does not; the message names the nearest sizes.
    """
    parts = batch_parts(mesh)
    if batch_size % parts:
        axes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        raise MeshError(
            f"{what} {batch_size} does not divide over {axes} ({parts}): nearest are "
            f"{nearest_words(batch_size, parts)}"
        )


def check_microbatch(batch_size: int, microbatches: int, mesh: Mesh | AbstractMesh) -> None:
    """Checks that each of `microbatches` equal parts of the batch divides over the batch axes.

    Raises:
      MeshError: it does not; the message names the nearest batch sizes.
    """
    parts = batch_parts(mesh)
    if batch_size % microbatches == 0 and batch_size // microbatches % parts:
        axes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        raise MeshError(
            f"accumulation.microbatches {microbatches}: a microbatch of "
            f"{batch_size // microbatches} does not divide over {axes} ({parts}): "
            "nearest values of data.batch_size are "
            f"{nearest_words(batch_size, parts * microbatches)}"
        )


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shown(sizes: Iterable[int]) -> str:
    """data=4 x fsdp=2 x tensor=1."""
    return " x ".join(f"{name}={size}" for name, size in zip(MESH_AXES, sizes, strict=True))
