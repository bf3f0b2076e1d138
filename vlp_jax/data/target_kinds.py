"""Kinds of targets."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.data.sources.class_files import lines_of
from vlp_jax.data.sources.columns import pick
from vlp_jax.data.sources.filesystem import read_file
from vlp_jax.data.target import Places, TargetConfig
from vlp_jax.data.text.canonicalize import ChangeOfText, canonicalize
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.data.text.vqa_answers import vqa_scores
from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesConfig(TargetConfig):
    """Fields of targets with classes: the most frequent values of the training data, or named
    ones."""

    wanted: ClassVar[str] = "one of the classes"

    classes: int | None = between(None, 2)  # number of classes; required, except with `names`
    names: tuple[str, ...] = ()  # the classes themselves
    file: str | None = None  # or a text file with one class per line; the first `classes` are used
    # of the values, as for captions in data.text; VQA: ("vqa_answer",)
    canonicalize: tuple[ChangeOfText, ...] = ()

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`file`, where the classes are given as `names`."""
        return {"file": "with `names`"} if self.names else {}

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Messages about a missing or contradictory number of classes, and about names given
        twice."""
        yield from super().validate(where, experiment)
        if self.classes is None and not self.names:
            yield (
                f"{where}.classes: is missing; set how many there are (it must be known before "
                "data are read), or give names"
            )
        if self.names and self.classes not in (None, len(self.names)):
            yield (
                f"{where}.classes: is {self.classes}, and there are {len(self.names)} names; "
                "leave one of the two out"
            )
        if len(set(self.names)) < len(self.names):
            yield f"{where}.names: names a class twice"

    def values(self, metadata: Mapping[str, Any]) -> list[str]:
        """The values of the field, one or several, as canonicalized texts.

        Values that are empty, or neither a text nor a whole number, are left out. So are texts with
        half of a surrogate pair, which no tokenizer accepts.
        """
        held = pick(metadata, self.field)
        values = held if isinstance(held, list | tuple | np.ndarray) else [held]
        values = [
            int(value)
            if isinstance(value, float | np.floating) and float(value).is_integer()
            else value
            for value in values
        ]
        said = [
            canonicalize(str(value), self.canonicalize)
            for value in values
            if isinstance(value, str | int | np.integer)
        ]
        return [value for value in said if value.strip() and not SURROGATE.search(value)]

    def places_of(self, metadata: Mapping[str, Any], places: Places) -> list[int]:
        """The index of each value among the classes; -1 for a value that is no class."""
        return [places.get(value, -1) for value in self.values(metadata)]

    def has_value(self, metadata: Mapping[str, Any]) -> bool:
        """Whether there is any value, be it a class or not."""
        return bool(self.values(metadata))

    def credits(self, found: Any, places: Places) -> np.ndarray:
        """1 for the class with the index `found`, 0 for all others."""
        return (np.arange(len(places)) == found).astype(np.float32)

    def named_classes(self, name: str) -> tuple[str, ...]:
        """The classes in `names`, or the first `classes` lines of `file`, canonicalized; () where
        the data decide.

        Raises:
          ConfigError: the file has too few lines, or a class is named twice after canonicalization.
          DataError: the file cannot be read, or is not UTF-8.
        """
        names: Sequence[str] = self.names
        if not names and not self.file:
            return ()
        if self.file and not names:
            lines = lines_of(read_file(self.file), f"data.targets.{name}.file: {self.file}")
            names = [line for line in lines if line.strip()][: self.classes]
        classes = tuple(canonicalize(line, self.canonicalize) for line in names)
        if len(classes) < self.outputs:
            raise ConfigError(
                f"data.targets.{name}.classes: is {self.classes}, and {self.file} "
                f"names {len(classes)}; set it to that, or less"
            )
        twice = [value for value, count in Counter(classes).items() if count > 1]
        if twice:
            raise ConfigError(f"data.targets.{name}: names the class {twice[0]!r} twice")
        return classes

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.classes or len(self.names)

    @property
    def finds_classes(self) -> bool:
        """Whether the classes are the most frequent values of the training data."""
        return not (self.names or self.file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTargetConfig(ClassesConfig):
    """One of several classes."""

    @property
    def one_class(self) -> bool:
        """True."""
        return True

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about a single name, which leaves no choice."""
        yield from super().validate(where, experiment)
        if self.outputs == 1:
            yield f"{where}.names: names one class, which is no choice; name two or more"

    def read(self, metadata: Mapping[str, Any], places: Places) -> np.int32:
        """int32 []: the index of the class."""
        found = self.places_of(metadata, places)
        return np.int32(found[0] if len(found) == 1 else -1)

    def is_given(self, found: np.int32) -> bool:
        """Whether the index is that of a class, not -1."""
        return bool(found >= 0)

    def array(self, rows: int) -> tuple[tuple[int, ...], type]:
        """The index of one class per example, int32 [rows]."""
        return (rows,), np.int32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoresTargetConfig(ClassesConfig):
    """A score of every class by the number of annotators who gave it (Antol et al. 2015).

    The scores are those of VQA's official evaluation: of ten annotators, one, two, three and more
    give the scores 0.3, 0.6, 0.9 and 1. The field holds the answers of all.
    """

    # number of others with the same answer for a score of 1; 1: every given answer
    agreeing: int = between(3, 1)

    def read(self, metadata: Mapping[str, Any], places: Places) -> np.ndarray:
        """float32 [C]: the score of every class by the number of annotators that gave it
        (`vqa_scores`)."""
        scores = np.zeros(self.outputs, np.float32)
        for place, score in vqa_scores(self.places_of(metadata, places), self.agreeing).items():
            if place >= 0:
                scores[place] = score
        return scores

    def is_given(self, found: np.ndarray) -> bool:
        """Whether any class has a score above 0."""
        return bool((found > 0).any())

    def array(self, rows: int) -> tuple[tuple[int, ...], type]:
        """The score of each class per example, float32 [rows, C]."""
        return (rows, self.outputs), np.float32

    def credits(self, found: np.ndarray, places: Places) -> np.ndarray:
        """The scores themselves."""
        return found

    @property
    def several_labels(self) -> bool:
        """Whether one annotator suffices for the full score.

        Partial scores belong to answers: there are thousands of them, and one is to be given.
        """
        return self.agreeing == 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberTargetConfig(TargetConfig):
    """A number, standardised: minus `mean`, divided by `std`."""

    wanted: ClassVar[str] = "a number"

    mean: float = 0.0
    std: float = between(1.0, 1e-30)

    def read(self, metadata: Mapping[str, Any], places: Places) -> np.float32:
        """float32 []: (value - mean) / std of the number in the field, or in its text; NaN where
        there is none."""
        held = pick(metadata, self.field)
        try:
            value = float(held) if isinstance(held, str | int | float | np.number) else np.nan
        except (ValueError, OverflowError):
            value = np.nan
        with np.errstate(over="ignore"):
            number = np.float32((value - self.mean) / self.std)
        return number if np.isfinite(number) else np.float32(np.nan)

    def is_given(self, found: np.float32) -> bool:
        """Whether the number is finite."""
        return bool(np.isfinite(found))

    def has_value(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the field has a finite number; there are no other values."""
        return self.is_given(self.read(metadata, {}))

    def array(self, rows: int) -> tuple[tuple[int, ...], type]:
        """One standardised number per example, float32 [rows]."""
        return (rows,), np.float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTargetConfig(ClassesConfig):
    """A text to generate; of several, the most frequent.

    Its classes are the answers that an evaluation ranks.
    """

    wanted: ClassVar[str] = "a text"

    # in tokens, with start and end; longer texts lose their last tokens
    length: int = between(8, 3)

    def read(self, metadata: Mapping[str, Any], places: Places) -> str:
        """The text, empty where there is none; it is no array before `encoded`."""
        values = self.values(metadata)
        return Counter(values).most_common(1)[0][0] if values else ""

    def is_given(self, found: str) -> bool:
        """Whether the text is not empty."""
        return bool(found)

    def array(self, rows: int) -> tuple[tuple[int, ...], type]:
        """The token ids of one text per example, int32 [rows, length]."""
        return (rows, self.length), np.int32

    def encoded(self, found: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
        """int32 [B, length], as `rows_of_texts`."""
        return rows_of_texts(found.tolist(), tokenizer, self.length)

    def credits(self, found: str, places: Places) -> np.ndarray:
        """1 for the class that is spelt as the text, 0 for all others."""
        return super().credits(places.get(found, -1), places)


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
