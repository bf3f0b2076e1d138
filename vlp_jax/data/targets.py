"""Targets of supervised objectives with their classes, which are named by the config or found in
the training data."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.config.tree import to_tree
from vlp_jax.data.notifications import notice
from vlp_jax.data.samples import Source
from vlp_jax.data.subsample import evenly_spaced_samples
from vlp_jax.data.target import Target, TargetConfig
from vlp_jax.data.target_kinds import ClassesConfig, rows_of_texts
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import ConfigError, DataError

MOST_SAMPLES = 500_000  # of the training data, at most, that are read to find classes
LOOKED_AT = 1_000  # at most, that are checked for targets where classes are known
Stored = Mapping[str, Mapping[str, Any]]  # what `Targets.to_json` returns


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a config by name, and the classes of those that have classes.

    The object can be pickled into worker processes. A text target is not yet an array:
    `TargetConfig.encoded` makes one for a whole batch.
    """

    specs: dict[str, TargetConfig]
    classes: dict[str, tuple[str, ...]]

    def of(self, name: str, metadata: Mapping[str, Any]) -> Target:
        """The target `name` of a sample with the given metadata.

        Returns: int32 [] for a class, float32 [C] for scores, float32 [] for a number; a string for
          a text, empty where there is none.
        """
        return self.specs[name].read(metadata, self.places.get(name, {}))

    def given(self, name: str, metadata: Mapping[str, Any]) -> bool:
        """Whether a sample with the given metadata has the target `name`."""
        return self.specs[name].is_given(self.of(name, metadata))

    def credits(self, name: str, metadata: Mapping[str, Any]) -> np.ndarray:
        """The credit of each class of the target `name` as an answer for a sample, float32 [C]."""
        return self.specs[name].credits(self.of(name, metadata), self.places[name])

    @functools.cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """The index of each class among the classes of its target."""
        return {
            name: {value: place for place, value in enumerate(values)}
            for name, values in self.classes.items()
        }

    def to_json(self) -> dict[str, Any]:
        """What is stored with a checkpoint: the target's declaration and its classes, by name."""
        return {
            name: {"target": to_tree(self.specs[name]), "classes": list(values)}
            for name, values in self.classes.items()
        }


def ranked_answers(
    name: str, texts: Sequence[str], tokenizer: Tokenizer, length: int
) -> np.ndarray:
    """`rows_of_texts` of the answers to the target `name` that an evaluation ranks.

    A warning names answers that have the same tokens, because the evaluation cannot distinguish
    them.
    """
    rows, seen = rows_of_texts(texts, tokenizer, length), {}
    firsts = [seen.setdefault(row.tobytes(), text) for text, row in zip(texts, rows, strict=True)]
    alike = [pair for pair in zip(firsts, texts, strict=True) if pair[0] != pair[1]]
    if alike:
        (first, other), more = alike[0], f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        notice(
            f"data warning: data.targets.{name}: {first!r} and {other!r}{more} are the same "
            "tokens, and an evaluation counts either as wrong; `canonicalize` as in data.text "
            f"may make them one, a length of more than {length} keep them apart"
        )
    return rows


def find_targets(
    specs: Mapping[str, TargetConfig], train: Sequence[Source], stored: Stored | None = None
) -> Targets:
    """The targets of a config with their classes.

    The classes of a target are the stored ones, if its declaration is unchanged; otherwise those
    that the config names; otherwise the most frequent values of the training data.

    Args:
      specs: the targets of the config by name.
      train: training sources. At most MOST_SAMPLES samples are read. Of two values with the same
        count, the first in alphabetical order comes first.
      stored: what `Targets.to_json` returned, from a checkpoint.

    Raises:
      ConfigError: if `classes` in the config is more than the number of classes.
      DataError: if the training data lack the field.
    """
    classes, unknown = {}, {}
    for name, spec in specs.items():
        kept = (stored or {}).get(name)
        if kept is not None and kept["target"] == to_tree(spec):
            classes[name] = tuple(kept["classes"])
        elif spec.finds_classes:
            unknown[name] = spec
        elif named := spec.named_classes(name):
            classes[name] = named
    return Targets(dict(specs), classes | dict(most_frequent(unknown, train) if unknown else ()))


def named_targets(specs: Mapping[str, TargetConfig]) -> Targets:
    """The targets of a config with the classes that it names itself.

    Raises: as `TargetConfig.named_classes`.
    """
    classes = {name: spec.named_classes(name) for name, spec in specs.items()}
    return Targets(dict(specs), {name: values for name, values in classes.items() if values})


def check_given(targets: Targets, train: Sequence[Source]) -> None:
    """Checks that the training data have the targets whose classes were not found in them.

    These are texts, numbers and named classes. A misspelled field would otherwise only show as a
    loss of 0. Of more than LOOKED_AT samples only a subset is checked, and a missing target is then
    a warning.

    Raises:
      DataError: if no sample has the target.
    """
    wanting = [name for name, spec in targets.specs.items() if not spec.finds_classes]
    fields: set[str] = set()
    for sample in evenly_spaced_samples(train, LOOKED_AT) if wanting else ():
        fields.update(sample.metadata)
        wanting = [name for name in wanting if not targets.given(name, sample.metadata)]
        if not wanting:
            return
    for name in wanting if fields else ():
        spec, count = targets.specs[name], sum(map(len, train))
        looked_at = "no sample" if count <= LOOKED_AT else f"none of {LOOKED_AT} samples"
        text = (
            f"{', '.join(source.spec for source in train)}: {looked_at} has {spec.wanted} in "
            f"the field {spec.field!r} of data.targets.{name}.field; fields: "
            f"{', '.join(sorted(fields))}"
        )
        if count <= LOOKED_AT:
            raise DataError(text)
        notice(f"data warning: {text}")


def most_frequent(
    specs: Mapping[str, ClassesConfig], train: Sequence[Source]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, classes) of each target, from the training data.

    Raises:
      ConfigError, DataError: as `find_targets`.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in specs}
    fields: set[str] = set()
    for sample in evenly_spaced_samples(train, MOST_SAMPLES):
        fields.update(sample.metadata)
        for name, spec in specs.items():
            counts[name].update(spec.values(sample.metadata))
    for name, spec in specs.items():
        if not counts[name]:
            known = ", ".join(sorted(fields)) or "none"
            raise DataError(
                f"{', '.join(source.spec for source in train)}: no sample has text or "
                f"a whole number in the field {spec.field!r} of "
                f"data.targets.{name}.field; fields: {known}"
            )
        if len(counts[name]) < spec.outputs:
            raise ConfigError(
                f"data.targets.{name}.classes: is {spec.classes}, and {spec.field!r} "
                f"has {len(counts[name])} values in the training data; set it to "
                "that, or less"
            )
        order = sorted(counts[name].items(), key=lambda item: (-item[1], item[0]))
        yield name, tuple(value for value, _ in order[: spec.classes])
