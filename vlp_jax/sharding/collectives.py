"""Code for a single device of the mesh (`jax.shard_map`); the only such code in the package.

It serves kernels that the compiler cannot partition, and computations on every pair (row, column)
of a sharded batch in which no device ever holds all pairs.

A computation on pairs is a function `visit(columns, kept, moving) -> (kept, moving)`. It combines
the device's own rows, which it closes over, with the given columns. It updates `kept`, the state of
each row, and `moving`, the state of each of these columns. All three are pytrees of arrays, with
the columns as the first axis in `columns` and `moving`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from vlp_jax.sharding.layout import Layout, current_layout
from vlp_jax.sharding.mesh import BATCH_AXES, check_batch

Tree = Any
Visit = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
Merge = Callable[[Tree], Tree]
Axes = Sequence[str | None]


def on_each_device(
    function: Callable, layout: Layout, in_axes: Sequence[Axes], out_axes: Axes
) -> Callable:
    """`function`, called on every device with the device's own part of each argument.

    It serves functions that work on each part alone, such as a kernel that the compiler cannot
    partition.

    Args:
      function: the function.
      layout: the layout in use.
      in_axes: logical axes of each argument.
      out_axes: logical axes of the result.
    """
    return jax.shard_map(
        function,
        mesh=layout.mesh,
        in_specs=tuple(layout.spec(axes) for axes in in_axes),
        out_specs=layout.spec(out_axes),
        check_vma=False,
    )


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How the devices of a mesh visit every pair.

    Attributes:
      ring: True: the columns travel around the batch axes in both directions and are combined with
        each device's rows as they pass. False: every device gathers all columns.
      chunk: number of columns visited at once.
      mesh: the mesh whose axes `data` and `fsdp` the rows and columns are sharded over; they are
        replicated along `tensor`. None: all of them are on one device.
    """

    ring: bool
    chunk: int
    mesh: Mesh | AbstractMesh | None

    @classmethod
    def in_use(cls, ring: bool, chunk: int) -> "Exchange":
        """An exchange over the mesh of the layout in use.

        Without a layout, all rows and columns are taken to be on one device.
        """
        layout = current_layout()
        return cls(ring, chunk, None if layout is None else layout.mesh)

    def check(self, size: int) -> None:
        """Checks that a batch of `size` divides over the batch axes.

        Raises:
          MeshError: it does not.
        """
        if self.mesh is not None:
            check_batch(size, self.mesh, "a contrastive loss over a batch of")

    def on_each_device(
        self, function: Callable[[Tree, Tree], tuple[Tree, Tree]], batched: Tree, whole: Tree
    ) -> tuple[Tree, Tree]:
        """`function(batched, whole) -> (batched, whole)`, called on every device.

        It gets the device's own part of `batched` and all of `whole`.

        The results are never differentiated through. The returned `whole` must be equal on all
        devices.
        """
        if self.mesh is None:
            return function(batched, whole)
        specs = (PartitionSpec(BATCH_AXES), PartitionSpec())
        # check_vma would require the initial zeros of every loop to be declared as varying over the
        # batch axes.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=specs, check_vma=False
        )(batched, whole)

    def total(self, tree: Tree) -> Tree:
        """The sums over the devices; to call inside `on_each_device`."""
        return tree if self.mesh is None else jax.lax.psum(tree, BATCH_AXES)

    def visit_all(
        self, visit: Visit, columns: Tree, kept: Tree, empty: Callable[[int], Tree], merge: Merge
    ) -> tuple[Tree, Tree]:
        """Visits the columns of all devices; to call inside `on_each_device`.

        Args:
          visit: the computation on pairs.
          columns: the device's own columns.
          kept: the state of the rows before any visit.
          empty: empty(n) is the state of n columns before any visit.
          merge: merges several partial states, stacked along a new first axis, into one.
        Returns: the state of the device's own rows, and the state of its own columns merged from
          all devices.
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
    """The same visit, `chunk` columns at a time, with the remainder last."""

    def visit_chunks(columns: Tree, kept: Tree, moving: Tree) -> tuple[Tree, Tree]:
        count = len(jax.tree.leaves(columns)[0])
        if count <= chunk:
            return visit(columns, kept, moving)
        whole = count // chunk * chunk
        parts = jax.tree.map(
            lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), (columns, moving)
        )
        kept, done = jax.lax.scan(lambda kept, part: visit(part[0], kept, part[1]), kept, parts)
        done = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), done)
        if whole == count:
            return kept, done
        columns, moving = jax.tree.map(lambda x: x[whole:], (columns, moving))
        kept, rest = visit(columns, kept, moving)
        return kept, jax.tree.map(lambda *x: jnp.concatenate(x), done, rest)

    return visit_chunks


def _ring(visit: Visit, columns: Tree, kept: Tree, empty: Tree, merge: Merge) -> tuple[Tree, Tree]:
    """`Exchange.visit_all` by a ring in both directions.

    Two copies of each device's columns travel around the ring, one in each direction, each with the
    state from the devices visited so far. After half a round they have visited all devices, and the
    states return to their device in one shift.
    """
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
    if devices % 2 == 0:  # the opposite device is visited only once
        kept, up = move_and_visit(kept, up, 1)
    states = home, _shift(up[1], -(devices // 2)), _shift(down[1], hops)
    return kept, merge(jax.tree.map(lambda *x: jnp.stack(x), *states))


def _shift(tree: Tree, step: int) -> Tree:
    """The arrays of every device moved `step` devices up the ring."""
    devices = jax.lax.axis_size(BATCH_AXES)
    return jax.lax.ppermute(tree, BATCH_AXES, [(i, (i + step) % devices) for i in range(devices)])


def _collect(moving: Tree, merge: Merge, devices: int) -> Tree:
    """The partial states of all columns on every device, merged into the state of the device's own
    columns."""
    if merge is add:
        return jax.lax.psum_scatter(moving, BATCH_AXES, scatter_dimension=0, tiled=True)
    parts = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), moving)
    return merge(jax.tree.map(lambda x: jax.lax.all_to_all(x, BATCH_AXES, 0, 0), parts))
