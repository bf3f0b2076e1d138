"""Parameters that another model has under other names: the pairs of `pretrained.NAME.renamed`.

A pair is (path here, path there), each of a parameter or of a module with all that it holds. Layers
are numbered in both, also where they are scanned: `{}` in the path here is the number of a layer,
and in the path there the same number, or one that is so much larger or smaller, `{+6}` or `{-6}`.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vlp_jax.errors import ConfigError
from vlp_jax.training.pretrained import NUMBER, Pairs
from vlp_jax.training.resize_parameters import LAYER, Shapes, shapes_as_here

LAYER_NUMBER = re.compile(r"layer_\d+")


def named_there(path: str, pairs: Pairs) -> str | None:
    """The path there of a parameter here, by the first pair that names it.

    Args:
      path: its path, of unrolled layers.
      pairs: the pairs.
    Returns: the path there, or None where no pair names the parameter.
    """
    for here, there in pairs:
        if match := expression(here).fullmatch(path):
            return moved(there.rstrip("/"), match.groupdict().get("layer")) + match["rest"]
    return None


def expression(here: str) -> re.Pattern[str]:
    """The regex of the paths that the first half of a pair names."""
    numbered = re.escape(here.rstrip("/")).replace(r"\{\}", r"(?P<layer>\d+)")
    return re.compile(rf"{numbered}(?P<rest>(/.*)?)")


def moved(there: str, number: str | None) -> str:
    """A path there with the number of its layer: ("layer_{+6}", "2") -> "layer_8"."""
    return NUMBER.sub(lambda shift: str(int(number or 0) + int(shift[1] or 0)), there)


def renamed(arrays: Mapping[str, Any], here: Shapes, pairs: Pairs) -> dict[str, Any]:
    """Arrays of another model under the names that the pairs give them here, layers unrolled.

    Those that no pair names keep their names; an array may get several names.

    Args:
      arrays: {path there: array}.
      here: the shapes of the parameters here, {path: shape}.
      pairs: the pairs. Empty: the arrays are returned as they are.
    """
    if not pairs:
        return dict(arrays)
    theirs = unrolled(arrays)
    kept = {path: array for path, array in theirs.items() if named_there(path, pairs) is None}
    return kept | {
        path: theirs[name]
        for path in (*unrolled_names(here), *whole_modules(theirs, pairs))
        if (name := named_there(path, pairs)) in theirs
    }


def whole_modules(theirs: Iterable[str], pairs: Pairs) -> list[str]:
    """The paths here of all that the modules of pairs without `{}` hold there, as another number of
    layers must not be overlooked."""
    return [
        here.rstrip("/") + path.removeprefix(there.rstrip("/"))
        for here, there in pairs
        for path in theirs
        if "{}" not in here and path.startswith(f"{there.rstrip('/')}/")
    ]


def unrolled(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """{path: array} with one array for each layer in place of scanned ones."""
    found: dict[str, Any] = {}
    for path, array in arrays.items():
        names = layer_names(path, array.shape)
        if names == [path]:
            found[path] = array
        else:
            found |= {name: array[number] for number, name in enumerate(names)}
    return found


def unrolled_names(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The paths with one for each layer in place of those of scanned layers."""
    return [name for path, shape in shapes.items() for name in layer_names(path, shape)]


def layer_names(path: str, shape: Sequence[int]) -> list[str]:
    """The path itself, or of scanned layers the path of each."""
    match = LAYER.fullmatch(path)
    if match is None or match[2] != "layers":
        return [path]
    return [f"{match[1]}layer_{number}/{match[3]}" for number in range(shape[0])]


def check_pairs(key: str, folder: str, pairs: Pairs, here: Shapes, there: Shapes) -> None:
    """Checks that each pair names parameters here and there.

    Args:
      key: the key of the pairs, for messages.
      folder: the other model, for messages.
      pairs: the pairs.
      here: the parameters here, {path: shape}.
      there: those of the other model, by its own names.
    Raises:
      ConfigError: one does not.
    """
    ours, theirs = unrolled_names(here), set(unrolled_names(there))
    for pair in pairs:
        named = [name for path in ours if (name := named_there(path, [pair])) is not None]
        if not named:
            raise ConfigError(
                f"{key}: {pair[0]!r} names no parameter of this model; near is "
                f"{nearest(pair[0], ours)!r}"
            )
        if not theirs.intersection(named):
            raise ConfigError(
                f"{key}: {pair[1]!r} names no parameter of {folder} that {pair[0]!r} has here; "
                f"near is {nearest(pair[1], theirs)!r}"
            )


def nearest(pattern: str, paths: Iterable[str]) -> str:
    """The most similar path of a module or parameter, with `{}` for the number of a layer."""
    found: dict[str, None] = {}
    for path in paths:
        parts = LAYER_NUMBER.sub("layer_{}", path).split("/")
        found |= {"/".join(parts[: end + 1]): None for end in range(len(parts))}
    return difflib.get_close_matches(NUMBER.sub("{}", pattern.rstrip("/")), found, 1, 0.0)[0]


def shapes_there(there: Mapping[str, Sequence[int]], pairs: Pairs, here: Shapes) -> Shapes:
    """The shapes of another model's parameters under the names that they have here."""
    arrays = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in there.items()}
    found = jax.eval_shape(functools.partial(renamed, here=here, pairs=pairs), arrays)
    return shapes_as_here({path: list(array.shape) for path, array in found.items()}, here)


def statistics_from(
    there: Mapping[str, Sequence[int]], patterns: Sequence[str], pairs: Pairs, here: Shapes
) -> dict[str, str]:
    """{path here: path there} of the running statistics of parameters that the patterns find."""
    found: dict[str, str] = {}
    for path, shape in here.items():
        collection, _, plain = path.partition("/")
        name = f"{collection}/{named_there(plain, pairs) or plain}"
        if (
            collection == "batch_stats"
            and there.get(name) == shape
            and any(re.search(pattern, plain) for pattern in patterns)
        ):
            found[path] = name
    return found
