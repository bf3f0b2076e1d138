"""The configs of two models compared: what of one may continue in the other."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlp_jax.config import to_tree
from vlp_jax.data.config import DataConfig
from vlp_jax.data.target_kinds import ClassesConfig
from vlp_jax.training.resize_parameters import Shapes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# Keys of a part of the model by which the same parameters compute something else.
COMPUTED = (
    *("norm", "norm_kind", "norm_epsilon", "activation", "causal", "padding_mask"),
    *("position_offset", "pooler_activation"),
)


def objectives_that_continue(
    here: Shapes, there: Shapes, config_there: dict, config: "Experiment"
) -> list[str]:
    """Patterns of the parameters of objectives that are the same in both runs.

    Objectives are the same if their name, kind and the shapes of all parameters are equal. For
    those with a head for a target, the definition of the target and the source of its classes must
    be equal too.
    """
    found = []
    for name, objective in config.objectives.items():
        theirs = config_there["objectives"].get(name, {})
        pattern = f"^objectives_{re.escape(name)}/"
        shapes = named(here, (pattern,))
        if shapes and shapes == named(there, (pattern,)) and theirs.get("kind") == objective.kind:
            target = objective.target
            if target is None or (
                theirs["target"] == target
                and same_target(config_there["data"], config.data, target)
            ):
                found.append(pattern)
    return found


def same_target(there: dict, here: DataConfig, name: str) -> bool:
    """Whether a target means the same in two runs.

    Classes that are found in the training data need the same training data.
    """
    target = here.targets[name]
    found_in_data = isinstance(target, ClassesConfig) and not target.names
    return there["targets"].get(name) == to_tree(target) and (
        not found_in_data or there["train"] == to_tree(here.train)
    )


def named(shapes: Shapes, patterns: tuple[str, ...]) -> Shapes:
    """The parameters whose path one of the patterns is found in."""
    return {
        path: shape
        for path, shape in shapes.items()
        if any(re.search(pattern, path) for pattern in patterns)
    }


def other_settings(used: Mapping[str, str], there: dict, here: dict) -> list[str]:
    """Lines about the settings by which parameters compute something else there than here.

    Args:
      used: {path here: path there} of the parameters.
      there, here: the configs.
    """
    parts = {(part_of(path, here), part_of(name, there)) for path, name in used.items()}
    return [
        f"model.{ours}.{key} {here['model'][ours][key]!r} (there {there['model'][theirs][key]!r})"
        for ours, theirs in sorted(parts)
        for key in COMPUTED
        if ours
        and theirs
        and key in here["model"][ours]
        and here["model"][ours][key] != there["model"][theirs].get(key, here["model"][ours][key])
    ]


def part_of(path: str, config: dict) -> str:
    """The part of the model that a parameter belongs to: "text" of "model/text/position"; "" where
    it is of none."""
    first, _, rest = path.partition("/")
    part = rest.partition("/")[0]
    return part if first == "model" and isinstance(config["model"].get(part), dict) else ""
