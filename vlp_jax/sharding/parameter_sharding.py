"""Sharding of the parameters and of their optimizer moments and EMA."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding, PartitionSpec

from vlp_jax.errors import MeshError
from vlp_jax.sharding.divisors import nearest_divisors, nearest_words
from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.rules import as_tuple

Axes = tuple[str | None, ...]
# used as sharded, since activations are sharded in the same way
COMPUTED_APART = {"heads": "heads", "mlp": "hidden units"}
INDIVISIBLE = "layers"  # the loop over layers would have to gather all layers


def parameter_shardings(boxed: Any, layout: Layout) -> Any:
    """A NamedSharding for every parameter.

    Args:
      boxed: shapes of the variables with their `nn.LogicallyPartitioned` boxes, as from
        `jax.eval_shape(module.init, ...)`.
      layout: the layout.
    Raises:
      MeshError: no dimension of a parameter divides over a mesh axis; the message names the
        parameter.
    """

    def place(path, leaf):
        shape = nn.meta.unbox(leaf).shape
        name = path_of(path).removeprefix("params/")
        return NamedSharding(layout.mesh, parameter_spec(name, shape, logical_axes(leaf), layout))

    return jax.tree_util.tree_map_with_path(place, boxed, is_leaf=is_boxed)


def path_of(path: tuple) -> str:
    """`model/image/norm/scale` for a key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_boxed(leaf: Any) -> bool:
    """Whether a leaf of the parameters still has the names of its axes."""
    return isinstance(leaf, nn.LogicallyPartitioned)


def logical_axes(leaf: Any) -> Axes:
    """The names of a boxed parameter's dimensions; all None without a box."""
    return tuple(leaf.names) if is_boxed(leaf) else (None,) * len(leaf.shape)


def named_axes(boxed: Any) -> dict[str, Axes]:
    """{path: logical axes} of the parameters that have them."""
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_boxed)
    return {path_of(path): logical_axes(leaf) for path, leaf in leaves if is_boxed(leaf)}


def parameter_spec(name: str, shape: Sequence[int], axes: Axes, layout: Layout) -> PartitionSpec:
    """The mesh axes of a parameter's dimensions.

    A small parameter is replicated, except along its heads or hidden units. Where the rules choose
    a dimension that does not divide, the mesh axis goes to the largest other one that does.

    Raises:
      MeshError: heads or hidden units do not divide, or no dimension does.
    """
    mesh = layout.mesh.shape
    wanted = [
        tuple(mesh_axis for mesh_axis in as_tuple(entry) if mesh[mesh_axis] > 1)
        for entry in layout.spec(axes)
    ]
    for size, axis, entry in zip(shape, axes, wanted, strict=True):
        parts = math.prod(mesh[mesh_axis] for mesh_axis in entry)
        if axis in COMPUTED_APART and size % parts:
            raise MeshError(
                f"{name} {tuple(shape)}: {size} {COMPUTED_APART[axis]} do not divide "
                f"over {words(entry, mesh)}: nearest are {nearest_words(size, parts)} "
                f"{COMPUTED_APART[axis]}, or sizes {nearest_divisors(parts, [size])}"
            )
    elements = math.prod(
        size for size, axis in zip(shape, axes, strict=True) if axis != INDIVISIBLE
    )
    if elements < layout.replicate_below:
        wanted = [
            entry if axis in COMPUTED_APART else ()
            for axis, entry in zip(axes, wanted, strict=True)
        ]
    placed, homeless = place_where_wanted(shape, wanted, mesh)
    divisible = [i for i, axis in enumerate(axes) if axis != INDIVISIBLE]
    for mesh_axis in homeless:
        fitting = [
            i for i in divisible if shape[i] % (mesh[mesh_axis] * parts_of(placed[i], mesh)) == 0
        ]
        if not fitting:
            nearest = nearest_divisors(mesh[mesh_axis], [shape[i] for i in divisible])
            raise MeshError(
                f"{name} {tuple(shape)}: no dimension divides over "
                f"{mesh_axis}={mesh[mesh_axis]}: nearest sizes of {mesh_axis} are "
                f"{nearest}; or leave it whole with "
                f"mesh.replicate_below={elements + 1}"
            )
        best = max(fitting, key=lambda i: (not placed[i], shape[i]))
        placed[best] += (mesh_axis,)
    return PartitionSpec(*(entry[0] if len(entry) == 1 else entry or None for entry in placed))


def place_where_wanted(
    shape: Sequence[int], wanted: list[tuple[str, ...]], mesh: Any
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The mesh axes that divide their intended dimension, by dimension, and those that do not."""
    placed: list[tuple[str, ...]] = []
    homeless = []
    for size, entry in zip(shape, wanted, strict=True):
        kept: tuple[str, ...] = ()
        for mesh_axis in entry:
            if size % (mesh[mesh_axis] * parts_of(kept, mesh)) == 0:
                kept += (mesh_axis,)
            else:
                homeless.append(mesh_axis)
        placed.append(kept)
    return placed, homeless


def parts_of(entry: tuple[str, ...], mesh: Any) -> int:
    """The number of parts that these mesh axes divide a dimension into."""
    return math.prod(mesh[mesh_axis] for mesh_axis in entry)


def words(entry: tuple[str, ...], mesh: Any) -> str:
    """`data=2 x fsdp=4`: the mesh axes of one dimension and their sizes."""
    return " x ".join(f"{mesh_axis}={mesh[mesh_axis]}" for mesh_axis in entry)


def shardings_like(tree: Any, parameters: Any, shardings: Any, layout: Layout) -> Any:
    """Shardings of a tree with copies of the parameters, such as optimizer moments or an EMA.

    A leaf whose path ends in a parameter's path has the parameter's sharding, if it has the same
    shape. If it lacks some dimensions (Adafactor's factored moments) and has at least
    `replicate_below` elements, it is sharded along those that it keeps. Every other leaf is
    replicated.
    """
    known = {}
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(parameters), jax.tree.leaves(shardings), strict=True
    )
    for (path, leaf), sharding in pairs:
        known[_names(path)] = (leaf.shape, sharding.spec)

    def place(path, leaf):
        names = _names(path)
        found = next(
            (known[names[start:]] for start in range(len(names)) if names[start:] in known), None
        )
        spec = (
            PartitionSpec()
            if found is None
            else spec_like(leaf.shape, *found, layout.replicate_below)
        )
        return NamedSharding(layout.mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def spec_like(
    shape: Sequence[int], parameter_shape: Sequence[int], spec: PartitionSpec, replicate_below: int
) -> PartitionSpec:
    """The spec of an array that belongs to a parameter of `parameter_shape` and `spec`."""
    if tuple(shape) == tuple(parameter_shape):
        return spec
    entries = [*spec, *(None,) * (len(parameter_shape) - len(spec))]
    if math.prod(shape) >= replicate_below:
        for kept in itertools.combinations(range(len(parameter_shape)), len(shape)):
            if tuple(shape) == tuple(parameter_shape[i] for i in kept):
                return PartitionSpec(*(entries[i] for i in kept))
    return PartitionSpec()


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
