"""The layout in use while a function is traced: the mesh and its rules.

Activations are constrained by their logical axes.
"""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Generator, Sequence

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

# (logical axis, mesh axes); the first free one applies
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh and the rules that map logical axes to it.

    Attributes:
      mesh: the mesh.
      rules: (logical axis, mesh axes) pairs.
      replicate_below: parameters with fewer elements in one layer are replicated (see
        `parameter_sharding.parameter_spec`).
    """

    mesh: Mesh | AbstractMesh
    rules: Rules
    replicate_below: int = 0

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The mesh axes of an array with these logical axes; a None axis is not sharded."""
        return nn.logical_to_mesh_axes(tuple(axes), self.rules) or PartitionSpec()

    def sharding(self, axes: Sequence[str | None]) -> NamedSharding:
        """The sharding of an array with these logical axes."""
        return NamedSharding(self.mesh, self.spec(axes))

    def parts(self, axis: str) -> int:
        """The number of parts that a logical axis is sharded into."""
        axes = self.spec([axis])[0]
        return math.prod(
            self.mesh.shape[name] for name in ([axes] if isinstance(axes, str) else axes or ())
        )


_in_use: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def layout_in_use(layout: Layout | None) -> Generator[None, None, None]:
    """A context in which functions are traced with `layout`.

    The train step enters it around the model and its objectives.
    """
    token = _in_use.set(layout)
    try:
        yield
    finally:
        _in_use.reset(token)


def current_layout() -> Layout | None:
    """The layout of the function being traced; None outside of one, as on a single device."""
    return _in_use.get()


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """`x` with a sharding constraint by its logical axes.

    `x` is returned unchanged where no layout is in use, or one of a single device, whose program
    then stays the same as without a layout.
    """
    layout = current_layout()
    return (
        x
        if layout is None or layout.mesh.size == 1
        else jax.lax.with_sharding_constraint(x, layout.sharding(axes))
    )
