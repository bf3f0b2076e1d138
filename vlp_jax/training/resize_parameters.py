"""Parameters of one run converted to the layout of another.

The two may differ in scanned layers, image size and text length.
"""

import functools
import math
import re
import types
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.sharding.parameter_sharding import Axes

Shapes = dict[str, list[int]]

# stack, layer, rest of the path: see `models.layers.transformer`
LAYER = re.compile(r"(.+?)(layers|layer_\d+)/(.+)")
# Logical axes of positions, which differ in length between runs.
# a square grid of patches, rows from the top; number of tokens before it
GRIDS = {"patches": 0, "mean_and_patches": 1}
LINES = ("patch_rows", "patch_columns")
TEXT = "text_positions"


def as_here(
    arrays: dict[str, jax.Array],
    fresh: dict[str, jax.Array],
    axes: Mapping[str, Axes] = types.MappingProxyType({}),
    position_filter: str = "bicubic",
) -> dict[str, jax.Array]:
    """Parameters of another run under the names and in the shapes that they have here; a function
    to trace.

    Args:
      arrays: {path: array} of the other run, as it names them.
      fresh: {path: array} of the wanted parameters. The other run has all of them, each in the same
        shape or in one that `change_of` can convert.
      axes: {path: logical axes} of the wanted parameters whose shape differs.
      position_filter: as in `interpolated`.
    """
    arrays = restacked(arrays, fresh)
    return {
        path: fitted(arrays[path], array, axes=axes.get(path, ()), position_filter=position_filter)
        for path, array in fresh.items()
    }


def shapes_as_here(there: Shapes, here: Shapes) -> Shapes:
    """The shapes of another run's parameters under the names that they have here (see
    `restacked`)."""
    arrays = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in there.items()}
    found = jax.eval_shape(functools.partial(restacked, names=tuple(here)), arrays)
    return {path: list(array.shape) for path, array in found.items()}


def restacked(arrays: dict[str, jax.Array], names: Iterable[str]) -> dict[str, jax.Array]:
    """The same parameters, {path: array}, with each stack scanned or unrolled as it is in the paths
    `names`.

    The arrays of scanned layers are stacked along a leading axis.
    """
    layers = [match.groups() for match in map(LAYER.fullmatch, names) if match]
    scanned = {stack for stack, layer, _ in layers if layer == "layers"}
    single = {stack for stack, layer, _ in layers if layer != "layers"}
    found: dict[str, jax.Array] = {}
    stacked: dict[str, dict[int, jax.Array]] = {}
    for path, array in arrays.items():
        stack, layer, part = (
            match.groups() if (match := LAYER.fullmatch(path)) else (None, None, None)
        )
        if layer == "layers" and stack in single:
            found |= {f"{stack}layer_{i}/{part}": array[i] for i in range(len(array))}
        elif layer not in (None, "layers") and stack in scanned:
            stacked.setdefault(f"{stack}layers/{part}", {})[number_of(layer)] = array
        else:
            found[path] = array
    return found | {
        path: jnp.stack([parts[i] for i in sorted(parts)]) for path, parts in stacked.items()
    }


def depths(shapes: Shapes) -> dict[str, int]:
    """{stack: number of its layers} among these parameters."""
    numbers: dict[str, set[int]] = {}
    for path, shape in shapes.items():
        if match := LAYER.fullmatch(path):
            stack, layer, _ = match.groups()
            numbers.setdefault(stack, set()).update(
                range(shape[0]) if layer == "layers" else [number_of(layer)]
            )
    return {stack: len(found) for stack, found in numbers.items()}


def number_of(layer: str) -> int:
    """3 for `layer_3`."""
    return int(layer.removeprefix("layer_"))


def change_of(there: list[int], here: list[int], *, axes: Axes) -> str | None:
    """What `fitted` does to a parameter of another shape: resampled, cut or extended.

    None where it cannot be converted.

    Args:
      there, here: its two shapes.
      axes: its logical axes here.
    """
    axis = next((i for i, name in enumerate(axes) if name in (*GRIDS, *LINES, TEXT)), None)
    if (
        axis is None
        or len(there) != len(here)
        or any(there[i] != here[i] for i in range(len(here)) if i != axis)
    ):
        return None
    if axes[axis] != TEXT:
        return "resampled"
    return "cut" if there[axis] > here[axis] else "extended"


def fitted(
    array: jax.Array, fresh: jax.Array, *, axes: Axes, position_filter: str = "bicubic"
) -> jax.Array:
    """`array` in the shape of `fresh`, the value here before the first update.

    Positions of patches are resampled. Of the token positions the first are taken; where there are
    more here than there, the last ones keep their initial values.
    """
    if array.shape == fresh.shape:
        return array
    if TEXT in axes:
        return jnp.concatenate([array[:, : fresh.shape[1]], fresh[:, array.shape[1] :]], axis=1)
    front = next((GRIDS[name] for name in axes if name in GRIDS), None)
    if front is None:
        return interpolated(array, fresh.shape, position_filter)
    return resampled(array, fresh.shape[1], front, position_filter)


def resampled(
    table: jax.Array, count: int, front: int = 0, position_filter: str = "bicubic"
) -> jax.Array:
    """Positions of a square grid of patches interpolated to another grid.

    See Dosovitskiy et al. 2021, section 3.2.

    Args:
      table: float32 [1, front + N, D], rows of the grid from the top.
      count: number of tokens of the result, `front` included.
      front: number of leading tokens that are no patches; they stay unchanged.
      position_filter: as in `interpolated`.
    Returns: float32 [1, count, D].
    """
    old, new = math.isqrt(table.shape[1] - front), math.isqrt(count - front)
    grid = rearrange(table[:, front:], "1 (y x) d -> y x d", y=old)
    grid = interpolated(grid, (new, new, table.shape[2]), position_filter)
    return jnp.concatenate([table[:, :front], rearrange(grid, "y x d -> 1 (y x) d")], axis=1)


def interpolated(array: jax.Array, shape: tuple[int, ...], position_filter: str) -> jax.Array:
    """Interpolation with a kernel that is widened where the grid becomes coarser: "linear", or
    "bicubic", that of Keys 1981 with a = -1/2.

    OpenCLIP and timm resample positions in this way (PyTorch's bicubic with antialias=True).
    PyTorch's bicubic without antialias, which METER and BLIP use, has a = -3/4; big_vision
    interpolates linearly. Weights that would fall outside the grid are distributed over those
    inside.
    """
    method = "cubic" if position_filter == "bicubic" else "linear"
    return jax.image.resize(array, shape, method, antialias=True)
