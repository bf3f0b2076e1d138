"""The training state as a value: everything that an update reads and writes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlp_jax.distributed.exchange import wait_on_cpu
from vlp_jax.sharding.layout import Layout, current_layout
from vlp_jax.sharding.linear_maps import WORDS
from vlp_jax.sharding.mesh import replicated
from vlp_jax.sharding.parameter_sharding import (
    Axes,
    named_axes,
    parameter_shardings,
    path_of,
    shardings_like,
)
from vlp_jax.training.guard import fresh_guard


@flax.struct.dataclass
class TrainState:
    """The training state.

    Attributes:
      step: int32, completed updates.
      params: float32 parameters.
      optimizer: the Optax state.
      ema: exponential moving average of the parameters, or None.
      collections: mutable variables other than parameters.
      rng: uint32 [2], the PRNG key of the run, never changed.
      guard: a GuardState, or None where no update is ever skipped.
      ema_statistics: the same moving average of BatchNorm's running statistics among the
        collections, or None without an EMA or without such statistics.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    ema: Any
    collections: dict
    rng: jax.Array
    guard: Any = None
    ema_statistics: Any = None

    @property
    def ema_variables(self) -> dict:
        """The EMA parameters with their own statistics, and the other collections as they are."""
        return {"params": self.ema, **self.collections, **(self.ema_statistics or {})}


def running_statistics(collections: dict) -> dict | None:
    """The collections that describe the activations of the parameters; None if there are none.

    EMA parameters need their own: with the statistics of other parameters, activations are
    normalised wrongly.
    """
    return {name: tree for name, tree in collections.items() if name == "batch_stats"} or None


def initial_variables(
    module: nn.Module, batch: dict[str, jax.Array], seed: int
) -> Mapping[str, Any]:
    """The initial variables of the module, boxed with their logical axes; a function to trace."""
    return _initial_variables(module, current_layout(), dict(batch), jax.random.key(seed))


# Shapes, axes and values each need the variables: with the cache of `jit`, they are traced once.
# `inline` leaves the programs that call it as they are without it. The layout is a part of the key.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _initial_variables(
    module: nn.Module, layout: Layout | None, batch: dict, key: jax.Array
) -> Mapping[str, Any]:
    return module.init({"params": key}, batch, train=False)


def fresh_variables(
    module: nn.Module,
    batch: dict[str, jax.Array],
    seed: int,
    words: tuple[jax.Array, jax.Array] | None = None,
) -> dict:
    """The variables before the first update; a function to trace.

    Args:
      module: the model with its objectives.
      batch: an example batch; only its shapes matter.
      seed: of the initial parameters.
      words: as in `create_state`.
    """
    boxed = initial_variables(module, batch, seed)
    variables = dict(nn.meta.unbox(boxed))
    if words is not None:
        vectors, found = words
        tables = word_tables(named_axes(boxed["params"]))
        variables["params"] = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                jnp.where(found[:, None], vectors, leaf) if path_of(path) in tables else leaf
            ),
            variables["params"],
        )
    return variables


def boxed_parameters(
    module: nn.Module, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> Any:
    """The shapes of the parameters, boxed with their logical axes, without computing any."""
    return jax.eval_shape(lambda batch: initial_variables(module, batch, 0), batch)["params"]


def abstract_parameters(
    module: nn.Module, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> Any:
    """The shapes of the parameters, without computing any."""
    return nn.meta.unbox(boxed_parameters(module, batch))


def parameter_axes(
    module: nn.Module, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, Axes]:
    """{path: logical axes} of the parameters that have them.

    Args:
      module: the model with its objectives, hashable.
      batch: an example batch, traced or not; only its shapes matter.
    """
    return _parameter_axes(
        module, tuple((name, array.shape, array.dtype) for name, array in batch.items())
    )


@functools.lru_cache(maxsize=8)
def _parameter_axes(module: nn.Module, shapes: tuple) -> dict[str, Axes]:
    return named_axes(
        boxed_parameters(
            module, {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape, dtype in shapes}
        )
    )


def abstract_collections(
    module: nn.Module, batch: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> Any:
    """The shapes of the variables other than parameters, such as BatchNorm's running statistics."""
    variables = nn.meta.unbox(
        jax.eval_shape(lambda batch: initial_variables(module, batch, 0), batch)
    )
    return {name: collection for name, collection in variables.items() if name != "params"}


def place_parameters(module: nn.Module, batch: dict, layout: Layout) -> Any:
    """The shardings of the parameters."""
    return parameter_shardings(
        jax.eval_shape(lambda batch: initial_variables(module, batch, 0), batch), layout
    )["params"]


def abstract_state(
    module: nn.Module,
    batch: dict,
    optimizer: optax.GradientTransformation,
    seed: int,
    with_ema: bool,
    layout: Layout,
    with_guard: bool = False,
) -> tuple[Any, Any]:
    """Shapes and shardings of the state, each as a TrainState."""
    parameters = place_parameters(module, batch, layout)
    shapes = jax.eval_shape(
        lambda batch: create_state(module, batch, optimizer, seed, with_ema, with_guard), batch
    )
    everywhere = replicated(layout.mesh)
    shardings = dataclasses.replace(
        shapes,
        step=everywhere,
        params=parameters,
        optimizer=shardings_like(shapes.optimizer, shapes.params, parameters, layout),
        ema=parameters if with_ema else None,
        ema_statistics=jax.tree.map(lambda _: everywhere, shapes.ema_statistics),
        collections=jax.tree.map(lambda _: everywhere, shapes.collections),
        rng=everywhere,
        guard=jax.tree.map(lambda _: everywhere, shapes.guard),
    )
    return shapes, shardings


def create_state(
    module: nn.Module,
    batch: dict,
    optimizer: optax.GradientTransformation,
    seed: int,
    with_ema: bool,
    with_guard: bool = False,
    words: tuple[jax.Array, jax.Array] | None = None,
) -> TrainState:
    """The state before the first update.

    Args:
      module: the model with its objectives.
      batch: an example batch; only its shapes matter.
      optimizer: the Optax transformation.
      seed: of the initial parameters and of the run's PRNG key.
      with_ema: whether the state has EMA parameters.
      with_guard: whether the state has a GuardState.
      words: initial vectors [V, D] of the text tower's embeddings, and bool [V], the tokens that
        have one.
    """
    variables = fresh_variables(module, batch, seed, words)
    params = variables.pop("params")
    ema = jax.tree.map(jnp.copy, params) if with_ema else None
    statistics = jax.tree.map(jnp.copy, running_statistics(variables)) if with_ema else None
    return TrainState(
        jnp.zeros((), jnp.int32),
        params,
        optimizer.init(params),
        ema,
        variables,
        jax.random.key_data(jax.random.key(seed)),
        fresh_guard() if with_guard else None,
        statistics,
    )


def word_tables(axes: Mapping[str, Axes]) -> set[str]:
    """The paths of the text tower's token embeddings: its parameters with a row per word.

    Args:
      axes: {path: logical axes} of the parameters.
    """
    return {
        path for path, names in axes.items() if path.startswith("model/text/") and names[0] == WORDS
    }


def fingerprint(tree: Any) -> int:
    """32 bits that change with any bit of any leaf and, almost surely, with the order of the
    leaves.

    It is the sum modulo 2^32 of every 32-bit word mixed with its position; a change of order keeps
    it with a chance of 2^-32. It distinguishes a damaged checkpoint from a valid one; it does not
    protect against forgery.
    """
    return sum(leaf_fingerprints(tree).values()) % 2**32


def leaf_fingerprints(tree: Any) -> dict[str, int]:
    """{path: part of `fingerprint`} of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [
        wait_on_cpu(leaf_fingerprint(jnp.asarray(leaf), np.uint32(number + 1)))
        for number, (_, leaf) in enumerate(leaves)
    ]
    return {
        path_of(path): int(part)
        for (path, _), part in zip(leaves, jax.device_get(parts), strict=True)
    }


@jax.jit
def leaf_fingerprint(leaf: jax.Array, number: jax.Array) -> jax.Array:
    """The part of one leaf in the sum, uint32; compiled once per shape, as a model has few
    shapes."""
    leaf = jnp.atleast_1d(leaf)
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    words = leaf.view(width).astype(jnp.uint32) if leaf.dtype != bool else leaf.astype(jnp.uint32)
    place = number
    for axis in range(words.ndim):
        place = mixed(place) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return mixed(words ^ mixed(place)).sum(dtype=jnp.uint32)


def mixed(words: jax.Array) -> jax.Array:
    """A one-to-one map of uint32 in which every input bit affects all output bits.

    It is the finaliser of Appleby's MurmurHash3.
    """
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def all_finite(tree: Any) -> bool:
    """Whether every floating-point number of a tree is finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(jax.device_get([wait_on_cpu(leaf_finite(leaf)) for leaf in floats]))


@jax.jit
def leaf_finite(leaf: jax.Array) -> jax.Array:
    """Whether no number of the array is infinite or NaN; scalar bool."""
    return jnp.isfinite(leaf).all()
