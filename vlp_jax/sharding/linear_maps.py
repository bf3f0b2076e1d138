"""The inputs and outputs of a parameter that is a linear map, found from its logical axes."""

from typing import NamedTuple

from vlp_jax.sharding.parameter_sharding import INDIVISIBLE, Axes

WORDS = "vocab"  # rows of a table, looked up and not multiplied
TARGETS = "targets"  # outputs of a layer that predicts classes, scores or values


class LinearMap(NamedTuple):
    """The axes of a kernel, as positions among all axes of the parameter."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def own_axes(axes: Axes) -> tuple[int, ...]:
    """The axes of one parameter, without the axis of stacked layers."""
    return tuple(i for i, name in enumerate(axes) if name != INDIVISIBLE)


def sides(axes: Axes) -> list[tuple[int, ...]]:
    """The axes of one parameter, in order; `heads` and `head_dim` together are one side."""
    found: list[tuple[int, ...]] = []
    for i in own_axes(axes):
        if axes[i] == "head_dim" and i and axes[i - 1] == "heads":
            found[-1] += (i,)
        else:
            found.append((i,))
    return found


def linear_map(axes: Axes) -> LinearMap | None:
    """The inputs and outputs of a kernel: its last side holds the outputs, all others the inputs.

    The inputs of a convolution are thus its height, width and channels.

    Returns: None for what is no kernel: a parameter of one side (biases, scales, vectors per head),
      one with an unnamed axis (positions, learned tokens), and a table of words.
    """
    own = own_axes(axes)
    if any(axes[i] in (None, WORDS) for i in own) or len(sides(axes)) < 2:
        return None
    *inputs, outputs = sides(axes)
    return LinearMap(tuple(i for side in inputs for i in side), outputs)
