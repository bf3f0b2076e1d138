"""Targets of supervised objectives: from a sample's metadata to an array of a batch.

A sample has no target where its metadata lack the field, where the field is empty, or where its
value is none of the classes. Its row is then -1 for a class, zeros for scores and NaN for a number.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.config.parse import to_tree
from vlp_jax.data.notifications import notice
from vlp_jax.data.samples import Source
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.columns import pick
from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.data.subsample import evenly_spaced_samples
from vlp_jax.data.target_kinds import ClassesConfig, NumberTargetConfig, TargetConfig, number_of_classes
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.data.text.vqa_answers import vqa_scores
from vlp_jax.errors import ConfigError, DataError

MOST_SAMPLES = 500_000  # of the training data, at most, that are read to find classes
LOOKED_AT = 1_000  # at most, that are checked for targets where classes are known
SURROGATE = re.compile("[\ud800-\udfff]")
Stored = Mapping[str, Mapping[str, Any]]  # what `Targets.to_json` returns


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a config by name, and the classes of those that have classes.

    The object can be pickled into worker processes. A text target is not yet an array:
    `rows_of_texts` makes one for a whole batch.
    """

    specs: dict[str, TargetConfig]
    classes: dict[str, tuple[str, ...]]

    def of(self, name: str, metadata: Mapping[str, Any]) -> np.ndarray | str:
        """The target `name` of a sample with the given metadata.

        Returns: int32 [] for a class, float32 [C] for scores, float32 [] for a number; a string for
          a text, empty where there is none.
        """
        spec = self.specs[name]
        if spec.kind == "number":
            return number_in(metadata, spec)
        values = values_in(metadata, spec)
        if spec.kind == "text":
            return Counter(values).most_common(1)[0][0] if values else ""
        places = [self.places[name].get(value, -1) for value in values]
        if spec.kind == "class":
            return np.int32(places[0] if len(places) == 1 else -1)
        return scores_of(places, number_of_classes(spec), spec.agreeing)

    def given(self, name: str, metadata: Mapping[str, Any]) -> bool:
        """Whether a sample with the given metadata has the target `name`."""
        found, kind = self.of(name, metadata), self.specs[name].kind
        if kind == "number":
            return bool(np.isfinite(found))
        return bool(found) if kind == "text" else bool((found >= 0) if kind == "class" else (found > 0).any())

    @functools.cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """The index of each class among the classes of its target."""
        return {name: {value: place for place, value in enumerate(values)} for name, values in self.classes.items()}

    def to_json(self) -> dict[str, Any]:
        """What is stored with a checkpoint: the target's declaration and its classes, by name."""
        return {name: {"target": to_tree(self.specs[name]), "classes": list(values)} for name, values in self.classes.items()}


def rows_of_texts(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """Token ids of target texts.

    Args:
      texts: N texts; an empty one is a missing target.
      tokenizer: the model's tokenizer.
      length: number of token positions.

    Returns: [N, length], int32: the first tokens of each text, between start and end token; -1
      after them, and everywhere in the row of a missing text.
    """
    spec = dataclasses.replace(tokenizer.spec, truncation_side="right")  # a reply keeps its start
    ids, mask, _ = dataclasses.replace(tokenizer, spec=spec, length=length)(texts)
    given = np.array([bool(text) for text in texts])[:, None]
    return np.where(mask & given, ids, -1).astype(np.int32)


def ranked_answers(name: str, texts: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """`rows_of_texts` of the answers to the target `name` that an evaluation ranks.

    A warning names answers that have the same tokens, because the evaluation cannot distinguish
    them.
    """
    rows, seen = rows_of_texts(texts, tokenizer, length), {}
    firsts = [seen.setdefault(row.tobytes(), text) for text, row in zip(texts, rows, strict=True)]
    alike = [pair for pair in zip(firsts, texts, strict=True) if pair[0] != pair[1]]
    if alike:
        (first, other), more = alike[0], f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        notice(f"data warning: data.targets.{name}: {first!r} and {other!r}{more} are the same tokens, and an evaluation counts "
               f"either as wrong; `canonicalize` as in data.text may make them one, a length of more than {length} keep them apart")
    return rows


def scores_of(places: Sequence[int], classes: int, agreeing: int) -> np.ndarray:
    """The score of every class by the number of annotators that gave it (`vqa_score`).

    Args:
      places: class index of each annotator's answer; -1 for an answer that is no class.
      classes: number of classes C.
      agreeing: number of agreeing annotators that make a full score.

    Returns: [C], float32.
    """
    scores = np.zeros(classes, np.float32)
    for place, score in vqa_scores(places, agreeing).items():
        if place >= 0:
            scores[place] = score
    return scores


def values_in(metadata: Mapping[str, Any], spec: ClassesConfig) -> list[str]:
    """The values of a metadata field, one or several, as canonicalized texts.

    Values that are empty, or neither a text nor a whole number, are left out. So are texts with
    half of a surrogate pair, which no tokenizer accepts.
    """
    held = pick(metadata, spec.field)
    values = held if isinstance(held, list | tuple | np.ndarray) else [held]
    values = [int(value) if isinstance(value, float | np.floating) and float(value).is_integer() else value for value in values]
    said = [canonicalize(str(value), spec.canonicalize) for value in values if isinstance(value, str | int | np.integer)]
    return [value for value in said if value.strip() and not SURROGATE.search(value)]


def number_in(metadata: Mapping[str, Any], spec: NumberTargetConfig) -> np.ndarray:
    """The standardised number in a metadata field, or in the text of the field.

    Returns: float32 []: (value - mean) / std; NaN where there is no number.
    """
    held = pick(metadata, spec.field)
    try:
        value = float(held) if isinstance(held, str | int | float | np.number) else np.nan
    except (ValueError, OverflowError):
        value = np.nan
    with np.errstate(over="ignore"):
        number = np.float32((value - spec.mean) / spec.std)
    return number if np.isfinite(number) else np.float32(np.nan)


def find_targets(specs: Mapping[str, TargetConfig], train: Sequence[Source], stored: Stored | None = None) -> Targets:
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
        elif isinstance(spec, ClassesConfig) and (spec.names or spec.file):
            classes[name] = named_classes(name, spec)
        elif isinstance(spec, ClassesConfig):
            unknown[name] = spec
    return Targets(dict(specs), classes | dict(most_frequent(unknown, train) if unknown else ()))


def check_given(targets: Targets, train: Sequence[Source]) -> None:
    """Checks that the training data have the targets whose classes were not found in them.

    These are texts, numbers and named classes. A misspelled field would otherwise only show as a
    loss of 0. Of more than LOOKED_AT samples only a subset is checked, and a missing target is then
    a warning.

    Raises:
      DataError: if no sample has the target.
    """
    wanting = [name for name, spec in targets.specs.items() if not isinstance(spec, ClassesConfig) or spec.names or spec.file]
    fields: set[str] = set()
    for sample in evenly_spaced_samples(train, LOOKED_AT) if wanting else ():
        fields.update(sample.metadata)
        wanting = [name for name in wanting if not targets.given(name, sample.metadata)]
        if not wanting:
            return
    for name in wanting if fields else ():
        spec, count = targets.specs[name], sum(map(len, train))
        wanted = {"number": "a number", "text": "a text"}.get(spec.kind, "one of the classes")
        looked_at = "no sample" if count <= LOOKED_AT else f"none of {LOOKED_AT} samples"
        text = (f"{', '.join(source.spec for source in train)}: {looked_at} has {wanted} in the field {spec.field!r} of "
                f"data.targets.{name}.field; fields: {', '.join(sorted(fields))}")
        if count <= LOOKED_AT:
            raise DataError(text)
        notice(f"data warning: {text}")


def named_classes(name: str, spec: ClassesConfig) -> tuple[str, ...]:
    """The classes listed in the config, or in the file that it names.

    Raises:
      ConfigError: if there are too few classes, or if one is named twice.
    """
    where = f"data.targets.{name}.file: {spec.file}"
    names = spec.names or [line for line in lines_of(read_file(spec.file), where) if line.strip()][:spec.classes]
    classes = tuple(canonicalize(line, spec.canonicalize) for line in names)
    if len(classes) < number_of_classes(spec):
        raise ConfigError(f"data.targets.{name}.classes: is {spec.classes}, and {spec.file} names {len(classes)}; set it to that, "
                          "or less")
    twice = [value for value, count in Counter(classes).items() if count > 1]
    if twice:
        raise ConfigError(f"data.targets.{name}: names the class {twice[0]!r} twice")
    return classes


def most_frequent(specs: Mapping[str, ClassesConfig], train: Sequence[Source]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, classes) of each target, from the training data.

    Raises:
      ConfigError, DataError: as `find_targets`.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in specs}
    fields: set[str] = set()
    for sample in evenly_spaced_samples(train, MOST_SAMPLES):
        fields.update(sample.metadata)
        for name, spec in specs.items():
            counts[name].update(values_in(sample.metadata, spec))
    for name, spec in specs.items():
        if not counts[name]:
            known = ", ".join(sorted(fields)) or "none"
            raise DataError(f"{', '.join(source.spec for source in train)}: no sample has text or a whole number in the field "
                            f"{spec.field!r} of data.targets.{name}.field; fields: {known}")
        if len(counts[name]) < spec.classes:
            raise ConfigError(f"data.targets.{name}.classes: is {spec.classes}, and {spec.field!r} has {len(counts[name])} values "
                              "in the training data; set it to that, or less")
        order = sorted(counts[name].items(), key=lambda item: (-item[1], item[0]))
        yield name, tuple(value for value, _ in order[:spec.classes])
