"""What supervised objectives are to tell of a sample: from its metadata to an array of a batch.

A sample has no target where its metadata lack the field, hold nothing there, or a value that is none of the classes. Its row says
so: -1 for a class, zeros for scores, NaN for a number.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.config import schema
from vlp_jax.config.parse import to_tree
from vlp_jax.config.targets import number_of_classes
from vlp_jax.data.notifications import notice
from vlp_jax.data.samples import Source
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.columns import pick
from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.data.subsample import evenly_spaced_samples
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.data.text.vqa_answers import vqa_scores
from vlp_jax.errors import ConfigError, DataError

MOST_SAMPLES = 500_000  # of the training data that are read to find classes
LOOKED_AT = 1_000  # of them, for whether there is anything to tell where classes are known
SURROGATE = re.compile("[\ud800-\udfff]")
Stored = Mapping[str, Mapping[str, Any]]  # what `Targets.to_json` gives


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a config by name, and the classes of those that have some. Pickles into worker processes.

    A text is no array yet: `rows_of_texts` makes them of a whole batch.
    """

    specs: dict[str, schema.AnyTarget]
    classes: dict[str, tuple[str, ...]]

    def of(self, name: str, metadata: Mapping[str, Any]) -> np.ndarray | str:
        """The target `name` of a sample with such metadata: int32 [] of a class, float32 [C] of scores, float32 [] of a number, a
        text, empty where there is none."""
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
        """Whether a sample with such metadata has the target `name`."""
        found, kind = self.of(name, metadata), self.specs[name].kind
        if kind == "number":
            return bool(np.isfinite(found))
        return bool(found) if kind == "text" else bool((found >= 0) if kind == "class" else (found > 0).any())

    @functools.cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """The place of each class among the others of its target."""
        return {name: {value: place for place, value in enumerate(values)} for name, values in self.classes.items()}

    def to_json(self) -> dict[str, Any]:
        """All that is kept with a checkpoint."""
        return {name: {"target": to_tree(self.specs[name]), "classes": list(values)} for name, values in self.classes.items()}


def rows_of_texts(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """int32 [N, length]: the first tokens of each text, between start and end token, -1 behind them and where there is no text."""
    spec = dataclasses.replace(tokenizer.spec, truncation_side="right")  # what a reply begins with, whatever is left of a history
    ids, mask, _ = dataclasses.replace(tokenizer, spec=spec, length=length)(texts)
    given = np.array([bool(text) for text in texts])[:, None]
    return np.where(mask & given, ids, -1).astype(np.int32)


def ranked_answers(name: str, texts: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    """`rows_of_texts` of the answers to the target `name` that an evaluation ranks. Answers of the same tokens, which it
    cannot tell apart, are said."""
    rows, seen = rows_of_texts(texts, tokenizer, length), {}
    firsts = [seen.setdefault(row.tobytes(), text) for text, row in zip(texts, rows, strict=True)]
    alike = [pair for pair in zip(firsts, texts, strict=True) if pair[0] != pair[1]]
    if alike:
        (first, other), more = alike[0], f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        notice(f"data warning: data.targets.{name}: {first!r} and {other!r}{more} are the same tokens, and an evaluation counts "
               f"either as wrong; `canonicalize` as in data.text may make them one, a length of more than {length} tell them apart")
    return rows


def scores_of(places: Sequence[int], classes: int, agreeing: int) -> np.ndarray:
    """The score of every class by how many annotators gave it (`vqa_score`). places: of each annotator's answer, -1 for one that is
    no class. Returns: float32 [C]."""
    scores = np.zeros(classes, np.float32)
    for place, score in vqa_scores(places, agreeing).items():
        if place >= 0:
            scores[place] = score
    return scores


def values_in(metadata: Mapping[str, Any], spec: schema.Classes) -> list[str]:
    """The values that a field of metadata holds, one or several; those that are empty, or no text and no whole number, are left
    out. Half a surrogate pair is no text: no tokenizer takes it."""
    held = pick(metadata, spec.field)
    values = held if isinstance(held, list | tuple | np.ndarray) else [held]
    values = [int(value) if isinstance(value, float | np.floating) and float(value).is_integer() else value for value in values]
    said = [canonicalize(str(value), spec.canonicalize) for value in values if isinstance(value, str | int | np.integer)]
    return [value for value in said if value.strip() and not SURROGATE.search(value)]


def number_in(metadata: Mapping[str, Any], spec: schema.NumberTarget) -> np.ndarray:
    """float32 []: the number in a field of metadata, or in its text, less the mean, divided by the deviation; NaN for none."""
    held = pick(metadata, spec.field)
    try:
        value = float(held) if isinstance(held, str | int | float | np.number) else np.nan
    except (ValueError, OverflowError):
        value = np.nan
    with np.errstate(over="ignore"):
        number = np.float32((value - spec.mean) / spec.std)
    return number if np.isfinite(number) else np.float32(np.nan)


def find_targets(specs: Mapping[str, schema.AnyTarget], train: Sequence[Source], stored: Stored | None = None) -> Targets:
    """The classes that the config names; those stored for the same targets; or else the most frequent values of the training data,
    of which at most MOST_SAMPLES are read, the first in the alphabet first where two are as frequent.

    Raises: ConfigError for more classes than there are; DataError for training data without the field.
    """
    classes, unknown = {}, {}
    for name, spec in specs.items():
        kept = (stored or {}).get(name)
        if kept is not None and kept["target"] == to_tree(spec):
            classes[name] = tuple(kept["classes"])
        elif isinstance(spec, schema.Classes) and (spec.names or spec.file):
            classes[name] = named_classes(name, spec)
        elif isinstance(spec, schema.Classes):
            unknown[name] = spec
    return Targets(dict(specs), classes | dict(most_frequent(unknown, train) if unknown else ()))


def check_given(targets: Targets, train: Sequence[Source]) -> None:
    """Raises: DataError where no sample of the training data has a target whose classes were not found in them: a misspelled field
    would be a loss of 0, and nothing else. Of more than LOOKED_AT samples some are looked at, and it is only said."""
    wanting = [name for name, spec in targets.specs.items() if not isinstance(spec, schema.Classes) or spec.names or spec.file]
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


def named_classes(name: str, spec: schema.Classes) -> tuple[str, ...]:
    """The classes in the config, or in the file that it names. Raises: ConfigError for too few, or for one that stands twice."""
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


def most_frequent(specs: Mapping[str, schema.Classes], train: Sequence[Source]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, classes) of each target. Raises: as `find_targets`."""
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
