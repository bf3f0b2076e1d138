"""From the logical axes that modules annotate to the axes of the mesh."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlp_jax.errors import MeshError

RULES = (
    ("batch", ("data", "fsdp")),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("embed", "fsdp"),
    ("head_dim", None),
    ("embedding", None),
    ("patch", None),
    ("layers", None),
)


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """NamedSharding for every parameter.

    boxed: shapes of the variables with their `nn.LogicallyPartitioned` boxes, as `jax.eval_shape(module.init, ...)`
      gives them. Raises: MeshError naming the parameter where a dimension does not divide over its mesh axis.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    shapes = nn.meta.unbox(boxed)

    def check(path, shape, sharding):
        for size, axis in zip(shape.shape, sharding.spec, strict=False):
            parts = mesh.shape[axis] if axis else 1
            if size % parts:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise MeshError(f"{name} {shape.shape}: {size} does not divide over {axis}={parts}")
        return sharding

    return jax.tree_util.tree_map_with_path(check, shapes, shardings)


def shardings_like(tree: Any, parameters: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of a tree that holds copies of the parameters (optimizer moments, an average): a leaf whose path ends
    in a parameter's path and that has its shape lies where the parameter lies; everything else is replicated."""
    known = {}
    pairs = zip(jax.tree_util.tree_leaves_with_path(parameters), jax.tree.leaves(shardings), strict=True)
    for (path, leaf), sharding in pairs:
        known[_names(path)] = (leaf.shape, sharding)

    def place(path, leaf):
        names = _names(path)
        for start in range(len(names)):
            shape, sharding = known.get(names[start:], (None, None))
            if shape == leaf.shape:
                return sharding
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, tree)


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
