"""The sharding of a run's state over any number of devices.

Nothing is computed, and the devices need not exist.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import optax

from vlp_jax.sharding.layout import Layout
from vlp_jax.sharding.mesh import abstract_mesh
from vlp_jax.sharding.parameter_sharding import is_boxed, logical_axes, path_of
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.cost.memory import device_bytes, total_bytes
from vlp_jax.training.optimizer import build_optimizer
from vlp_jax.training.state import abstract_state, boxed_parameters

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class ParameterPlace:
    """The sharding of one parameter.

    Attributes:
      path: path of the parameter.
      shape: its global shape.
      logical_axes, mesh_axes: logical axis and mesh axes of each dimension.
      device_bytes: bytes of the part on one device.
    """

    path: str
    shape: tuple[int, ...]
    logical_axes: tuple[str | None, ...]
    mesh_axes: tuple[Any, ...]
    device_bytes: int


@dataclasses.dataclass(frozen=True)
class StatePlaces:
    """The sharding of every parameter, and the bytes that one device holds of each part of the
    state.

    `ema_bytes` is 0 where the config keeps no EMA parameters.
    """

    layout: Layout
    parameters: list[ParameterPlace]
    parameter_bytes: int
    optimizer_bytes: int
    ema_bytes: int


def state_places(config: "Experiment", devices: int | None = None) -> StatePlaces:
    """The sharding of a config's state.

    Args:
      config: the config of the run.
      devices: number of devices. Default: as few as its mesh allows.
    Raises:
      ConfigError, MeshError: settings that do not fit together.
    """
    layout = build_layout(config.mesh, abstract_mesh(config.mesh, devices))
    module, batch = build_module(config), jax.eval_shape(lambda: example_batch(config))
    boxed = boxed_parameters(module, batch)
    optimizer = build_optimizer(
        config.optimizer, optax.constant_schedule(config.optimizer.learning_rate), boxed
    )
    shapes, shardings = abstract_state(
        module, batch, optimizer, config.seed, config.ema is not None, layout
    )
    names = [logical_axes(leaf) for leaf in jax.tree.leaves(boxed, is_leaf=is_boxed)]
    placed = zip(
        jax.tree_util.tree_leaves_with_path(shapes.params),
        names,
        jax.tree.leaves(shardings.params),
        strict=True,
    )
    parameters = [
        ParameterPlace(
            path_of(path),
            leaf.shape,
            axes,
            (*sharding.spec, *(None,) * (len(axes) - len(sharding.spec))),
            device_bytes(leaf, sharding),
        )
        for (path, leaf), axes, sharding in placed
    ]
    return StatePlaces(
        layout,
        parameters,
        *(
            total_bytes(getattr(shapes, part), getattr(shardings, part))
            for part in ("params", "optimizer", "ema")
        ),
    )
