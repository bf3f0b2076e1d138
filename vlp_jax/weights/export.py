"""Our models written as public checkpoints."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.models.stack import StackConfig
from vlp_jax.storage.paths import name_of
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.checkpoints.format import describe, flat
from vlp_jax.training.checkpoints.workdir import TRAINING_ONLY, changed_keys
from vlp_jax.training.resize_parameters import LAYER, number_of
from vlp_jax.training.state import abstract_parameters
from vlp_jax.weights.family import Family, resolved
from vlp_jax.weights.files import check_absent, complete_folder
from vlp_jax.weights.formats.format import Format, format_named
from vlp_jax.weights.matching import matching
from vlp_jax.weights.public import as_experiment
from vlp_jax.weights.rules import Rules, Shape

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

SHOWN = 4  # most differing keys that a message names


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model that is written in a format.

    Attributes:
      name: name of the folder.
      config: its config, with unrolled layers.
      preprocessor: its preprocessing.
      family: the architecture there.
      theirs: its config there.
      rules: the rules that make their tensors.
      left: paths of our variables that have no place there.
      read: the array of one of our paths.
      card: the text of README.md.
    """

    name: str
    config: "Experiment"
    preprocessor: Preprocessor
    family: Family
    theirs: dict[str, Any]
    rules: Rules
    left: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    card: str

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, array) of their tensors, float32, made one after another."""
        for rule in self.rules:
            arrays = rule.give([self.read(path) for path in rule.ours])
            for name, array in zip(rule.theirs, arrays, strict=True):
                # safetensors writes the bytes in order
                yield self.family.written_name(name), np.array(array, np.float32, order="C")
        for name, shape in self.family.unread(self.theirs).items():
            yield name, np.zeros(shape, np.float32)


def export(
    place: str,
    config: "Experiment",
    preprocessor: Preprocessor,
    variables: Mapping[str, Any],
    card: str = "",
) -> Exported:
    """Writes a model as a public checkpoint.

    Args:
      place: FORMAT:DIR; the folder must not exist, or be empty.
      config: the model's config.
      preprocessor: its preprocessing.
      variables: {"params": ...} and other collections.
      card: the text of README.md.
    Returns: what was written.
    Raises:
      ConfigError: there is no such format, the folder exists, or the format has no such model.
    """
    kind, folder = format_named(place), place.partition(":")[2]
    if kind is None or not kind.families:
        raise ConfigError(f"--to: {place}: expected a folder, huggingface:DIR or openclip:DIR")
    check_absent(folder)
    name = name_of(folder)
    exported = as_exported(kind, name, config, preprocessor, variables, card)
    with complete_folder(folder) as unfinished:
        kind.write(unfinished, exported)
    return exported


def as_exported(
    kind: type[Format],
    name: str,
    config: "Experiment",
    preprocessor: Preprocessor,
    variables: Mapping[str, Any],
    card: str,
) -> Exported:
    """A model in a format; nothing is written.

    Raises:
      ConfigError: the format has no such model.
    """
    config = unrolled(config)
    statistics = flat({name: tree for name, tree in variables.items() if name != "params"})
    shapes = parameter_shapes(config)
    shapes |= {path: array.shape for path, array in statistics.items()}
    family, theirs = family_for(kind, config, shapes)
    objectives = objective_paths(config, family, shapes)
    renamed = {objectives.get(path, path): shape for path, shape in shapes.items()}
    constants = family.constants(config)
    renamed |= {path: array.shape for path, array in constants.items()}
    rules, _, left = matching(family.written_rules(theirs), renamed)
    ours = {new: old for old, new in objectives.items()}
    arrays = {**constants, **flat(variables["params"]), **statistics}

    def read(path: str) -> np.ndarray:
        return array_at(arrays, ours.get(path, path))

    return Exported(name, config, preprocessor, family, theirs, rules, tuple(left), read, card)


def of_absent(path: str, family: Family) -> bool:
    """Whether a parameter is of the tower that the architecture lacks."""
    tower = f"model/{family.absent}"
    return bool(family.absent) and path.startswith((f"{tower}/", f"{tower}_projection/"))


def fits_absent(family: Family, config: "Experiment", shapes: Mapping[str, Shape]) -> bool:
    """Whether nothing is lost with the tower that the architecture lacks: the model has no
    parameters of it, or only those of the stand-in that reading such a checkpoint makes."""
    if not any(of_absent(path, family) for path in shapes):
        return True
    here = resolved(config)
    return all(here.get(key) == value for key, value in family.stand_in.items())


def unrolled(config: "Experiment") -> "Experiment":
    """The config with unrolled layers."""
    parts: dict[str, Any] = {
        name: dataclasses.replace(part, scan=False)
        for name in ("image", "text", "fusion", "decoder")
        if isinstance(part := getattr(config.model, name), StackConfig)
    }
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **parts))


def parameter_shapes(config: "Experiment") -> dict[str, Shape]:
    """{path: shape} of the parameters of a config."""
    shapes = describe(abstract_parameters(build_module(config, "float32"), example_batch(config)))
    return {path: tuple(shape) for path, shape in shapes.items()}


def objective_paths(
    config: "Experiment", family: Family, shapes: Mapping[str, Shape]
) -> dict[str, str]:
    """{our path: path as in the rules} of the parameters of the family's objectives, which may have
    other names here."""
    found: dict[str, str] = {}
    kinds = {name: objective.kind for name, objective in config.objectives.items()}
    for key, kind in family.settings.fixed.items():
        there = re.fullmatch(r"objectives\.(\w+)\.kind", key)
        here = next((name for name, own in kinds.items() if own == kind), None)
        if there is not None and here is not None:
            old, new = f"objectives_{here}/", f"objectives_{there[1]}/"
            found |= {path: new + path.removeprefix(old) for path in shapes if path.startswith(old)}
    return found


def array_at(arrays: Mapping[str, Any], path: str) -> np.ndarray:
    """The array of a parameter by the path that it has with unrolled layers."""
    if path in arrays:
        return np.asarray(arrays[path])
    match = LAYER.fullmatch(path)
    assert match is not None, path
    stack, layer, part = match.groups()
    return np.asarray(arrays[f"{stack}layers/{part}"][number_of(layer)])


def family_for(
    kind: type[Format], config: "Experiment", shapes: Mapping[str, Shape]
) -> tuple[Family, dict[str, Any]]:
    """The architecture of a format that a model with variables of these shapes is of, and its
    config there.

    Raises:
      ConfigError: it is of none; the message has what differs from the nearest.
    """
    found: list[tuple[int, str]] = []
    fitting: list[tuple[bool, int, int, Family, dict[str, Any]]] = []
    for make in (kind.families or {}).values():
        family = make()
        if not family.exports or not fits_absent(family, config, shapes):
            continue
        try:
            theirs = family.their_config(config)
            changes = [
                *differences(family, theirs, config),
                *without_place(family, theirs, config, shapes),
            ]
        except (ConfigError, CheckpointError, KeyError) as error:
            found.append((len(found) + 1000, f"{family.title}: {error.args[0]}"))
            continue
        if not changes:
            place = unmatched(family, config, shapes), len(fitting)
            fitting.append((not family.absent, *place, family, theirs))
            continue
        more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        found.append((len(changes), f"{family.title}: {'; '.join(changes[:SHOWN])}{more}"))
    if fitting:
        *_, family, theirs = min(fitting)
        return family, theirs
    nearest = min(found)[1] if found else "it has none that is written"
    raise ConfigError(f"--to: the format has no such model; the nearest is {nearest}")


def unmatched(family: Family, config: "Experiment", shapes: Mapping[str, Shape]) -> int:
    """The number of parameters for which an architecture has no place, plus a large one for each
    objective of its own that the model lacks; the least is of the class with the right heads."""
    objectives = objective_paths(config, family, shapes)
    renamed = [objectives.get(path, path) for path in shapes]
    _, _, left = matching(family.rules, dict.fromkeys(renamed, ()))
    wanted = {path.split("/")[0] for rule in family.rules for path in rule.ours}
    lacking = {name for name in wanted if name.startswith("objectives_")} - {
        path.split("/")[0] for path in renamed
    }
    return len(left) + 1000 * len(lacking)


def without_place(
    family: Family, theirs: Mapping[str, Any], config: "Experiment", shapes: Mapping[str, Shape]
) -> list[str]:
    """A line about the variables of a model for which an architecture has no place, if any."""
    constants = {path: array.shape for path, array in family.constants(config).items()}
    _, _, left = matching(family.written_rules(theirs), {**shapes, **constants})
    kept = [path for path in left if not of_absent(path, family)]
    named = (path.removeprefix("batch_stats/") for path in kept)
    lost = [path for path in named if path.startswith("model/") and path.startswith(family.parts)]
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return [f"it has no place for {', '.join(lost[:SHOWN])}{more}"] if lost else []


def differences(family: Family, theirs: Mapping[str, Any], config: "Experiment") -> list[str]:
    """Lines `key: there -> here` of the model's settings that would be lost."""
    back = as_experiment(family.config(theirs, {}, family.title), family.title)
    there, here = (
        {
            key: value
            for key, value in resolved(each).items()
            if key.startswith("model.")
            and not (family.absent and key.startswith(f"model.{family.absent}."))
        }
        for each in (back, config)
    )
    return changed_keys(there, here, (*TRAINING_ONLY, "model.*.preset", *family.free))
