"""The one place where code is written for a single device of the mesh (`jax.shard_map`)."""

from collections.abc import Callable, Sequence

import jax

from vlp_jax.sharding.layout import Layout

Axes = Sequence[str | None]


def on_each_device(function: Callable, layout: Layout, in_axes: Sequence[Axes], out_axes: Axes) -> Callable:
    """`function`, called on every device with its own part of each argument; for what works on each part alone, such as a
    kernel that the compiler cannot divide.

    in_axes: logical axes of each argument; out_axes: of the result.
    """
    return jax.shard_map(function, mesh=layout.mesh, in_specs=tuple(layout.spec(axes) for axes in in_axes),
                         out_specs=layout.spec(out_axes), check_vma=False)
