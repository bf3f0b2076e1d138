"""The one place where code is written for a single device of the mesh (`jax.shard_map`): kernels that the compiler cannot divide,
and meeting every pair (row, column) of a batch that is spread over devices, while no device ever holds all the pairs.

What is computed of the pairs is a function `visit(columns, kept, moving) -> (kept, moving)`: it meets the device's own rows
(which it knows) with the given columns, and updates what is kept of each row and what is known of each of these columns.
All three are pytrees of arrays, with the columns first in `columns` and `moving`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vlp_jax.sharding.layout import Layout, current_layout
from vlp_jax.sharding.mesh import BATCH_AXES, check_batch

Tree = Any
Visit = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
Merge = Callable[[Tree], Tree]
Axes = Sequence[str | None]


def on_each_device(function: Callable, layout: Layout, in_axes: Sequence[Axes], out_axes: Axes) -> Callable:
    """`function`, called on every device with its own part of each argument; for what works on each part alone, such as a
    kernel that the compiler cannot divide.

    in_axes: logical axes of each argument; out_axes: of the result.
    """
    return jax.shard_map(function, mesh=layout.mesh, in_specs=tuple(layout.spec(axes) for axes in in_axes),
                         out_specs=layout.spec(out_axes), check_vma=False)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How the devices of a mesh meet every pair.

    ring: the columns travel round the batch axes in both directions and meet each device's rows as they pass; else every
      device gathers all of them.
    chunk: the number of columns that are visited at once.
    mesh: the rows and the columns lie over its axes `data` and `fsdp`, the same on each device along `tensor`; None: all
      of them are here.
    """

    ring: bool
    chunk: int
    mesh: Mesh | None

    @classmethod
    def in_use(cls, ring: bool, chunk: int) -> "Exchange":
        """Over the mesh of the layout in use; without one, all rows and columns are taken to be here."""
        layout = current_layout()
        return cls(ring, chunk, None if layout is None else layout.mesh)

    def check(self, size: int) -> None:
        """Raises: MeshError where a batch of `size` does not divide over the batch axes."""
        if self.mesh is not None:
            check_batch(size, self.mesh, "a contrastive loss over a batch of")

    def on_each_device(self, function: Callable[[Tree, Tree], tuple[Tree, Tree]], batched: Tree, whole: Tree) -> tuple[Tree, Tree]:
        """`function(batched, whole) -> (batched, whole)`, which sees a device's own part of the arrays in `batched`, and
        those in `whole` entirely. What it returns is never differentiated through, and `whole` must be the same on all."""
        if self.mesh is None:
            return function(batched, whole)
        specs = (PartitionSpec(BATCH_AXES), PartitionSpec())
        # The check is of what varies over which axis; here the initial zeros of every loop would have to be declared to it.
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=specs, check_vma=False)(batched, whole)

    def total(self, tree: Tree) -> Tree:
        """The sums over the devices; to call inside `on_each_device`."""
        return tree if self.mesh is None else jax.lax.psum(tree, BATCH_AXES)

    def visit_all(self, visit: Visit, columns: Tree, kept: Tree, empty: Callable[[int], Tree],
                  merge: Merge) -> tuple[Tree, Tree]:
        """Visits the columns of all devices; to call inside `on_each_device`.

        columns: the device's own. kept: the rows' before any visit. empty(n): what is known of n columns before any visit.
        merge: from several partial states stacked along a new first axis to one.
        Returns: what is kept of the device's own rows, and what all devices together know of its own columns.
        """
        visit = in_chunks(visit, self.chunk)
        count = len(jax.tree.leaves(columns)[0])
        if self.mesh is None:
            return visit(columns, kept, empty(count))
        if self.ring:
            return _ring(visit, columns, kept, empty(count), merge)
        devices = jax.lax.axis_size(BATCH_AXES)
        everything = jax.lax.all_gather(columns, BATCH_AXES, tiled=True)
        kept, moving = visit(everything, kept, empty(devices * count))
        return kept, _collect(moving, merge, devices)


def add(stacked: Tree) -> Tree:
    """The merge of partial sums."""
    return jax.tree.map(lambda x: x.sum(axis=0), stacked)


def in_chunks(visit: Visit, chunk: int) -> Visit:
    """The same visit, `chunk` columns at a time, the rest last."""
    def visit_chunks(columns: Tree, kept: Tree, moving: Tree) -> tuple[Tree, Tree]:
        count = len(jax.tree.leaves(columns)[0])
        if count <= chunk:
            return visit(columns, kept, moving)
        whole = count // chunk * chunk
        parts = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), (columns, moving))
        kept, done = jax.lax.scan(lambda kept, part: visit(part[0], kept, part[1]), kept, parts)
        done = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), done)
        if whole == count:
            return kept, done
        columns, moving = jax.tree.map(lambda x: x[whole:], (columns, moving))
        kept, rest = visit(columns, kept, moving)
        return kept, jax.tree.map(lambda *x: jnp.concatenate(x), done, rest)

    return visit_chunks


def _ring(visit: Visit, columns: Tree, kept: Tree, empty: Tree, merge: Merge) -> tuple[Tree, Tree]:
    """Each device's columns go both ways round, and with each copy what is known of them from the devices it has met; they
    have met all after half a round, and what is known goes home in one move."""
    devices = jax.lax.axis_size(BATCH_AXES)
    kept, home = visit(columns, kept, empty)
    if devices == 1:
        return kept, home

    def move_and_visit(kept: Tree, traveller: Tree, step: int) -> tuple[Tree, Tree]:
        columns, moving = _shift(traveller, step)
        kept, moving = visit(columns, kept, moving)
        return kept, (columns, moving)

    def hop(carry: Tree, _: None) -> tuple[Tree, None]:
        kept, up, down = carry
        kept, up = move_and_visit(kept, up, 1)
        kept, down = move_and_visit(kept, down, -1)
        return (kept, up, down), None

    hops, start = (devices - 1) // 2, (columns, empty)
    (kept, up, down), _ = jax.lax.scan(hop, (kept, start, start), length=hops)
    if devices % 2 == 0:  # the device opposite is met once
        kept, up = move_and_visit(kept, up, 1)
    states = home, _shift(up[1], -(devices // 2)), _shift(down[1], hops)
    return kept, merge(jax.tree.map(lambda *x: jnp.stack(x), *states))


def _shift(tree: Tree, step: int) -> Tree:
    """Every device's arrays moved `step` places up the ring."""
    devices = jax.lax.axis_size(BATCH_AXES)
    return jax.lax.ppermute(tree, BATCH_AXES, [(i, (i + step) % devices) for i in range(devices)])


def _collect(moving: Tree, merge: Merge, devices: int) -> Tree:
    """Every device's partial state of all columns -> the merged state of the device's own columns."""
    if merge is add:
        return jax.lax.psum_scatter(moving, BATCH_AXES, scatter_dimension=0, tiled=True)
    parts = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), moving)
    return merge(jax.tree.map(lambda x: jax.lax.all_to_all(x, BATCH_AXES, 0, 0), parts))
