"""Where arrays lie while a function is traced: the mesh and the rules in use, and constraints on activations by name."""

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]  # (logical axis, mesh axes); the first that is free decides


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the rules that place logical axes on it. Parameters with fewer elements than `replicate_below` in one
    layer lie whole on every device (see `placement.parameter_spec`)."""

    mesh: Mesh | AbstractMesh
    rules: Rules
    replicate_below: int = 0

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The mesh axes of an array with these logical axes; None is an axis that nothing divides."""
        return nn.logical_to_mesh_axes(tuple(axes), self.rules)

    def sharding(self, axes: Sequence[str | None]) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(axes))

    def parts(self, axis: str) -> int:
        """How many parts a logical axis is divided into."""
        axes = self.spec([axis])[0]
        return math.prod(self.mesh.shape[name] for name in ([axes] if isinstance(axes, str) else axes or ()))


_in_use: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def layout_in_use(layout: Layout | None) -> Iterator[None]:
    """What is traced inside sees `layout`; entered by the train step, around the model and its objectives."""
    token = _in_use.set(layout)
    try:
        yield
    finally:
        _in_use.reset(token)


def current_layout() -> Layout | None:
    """The layout of the function that is being traced; None outside of one, as on a single device."""
    return _in_use.get()


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """`x`, required to lie as its logical axes say; `x` itself where no layout is in use, or one of a single device (whose
    program stays as it is without)."""
    layout = current_layout()
    return x if layout is None or layout.mesh.size == 1 else jax.lax.with_sharding_constraint(x, layout.sharding(axes))
