"""Kinds of targets, and their keys in `data.targets`."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.data.text.canonicalize import CHANGES_OF_TEXT

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig(Component):
    """A target to predict, from a sample's metadata. An empty value is no target."""

    kinds: ClassVar[Kinds] = Kinds({
        "class": "vlp_jax.data.target_kinds:ClassTargetConfig",
        "scores": "vlp_jax.data.target_kinds:ScoresTargetConfig",
        "number": "vlp_jax.data.target_kinds:NumberTargetConfig",
        "text": "vlp_jax.data.target_kinds:TextTargetConfig",
    })

    field: str = ""  # of the metadata; a dot selects a nested one: answers.answer. Required

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        yield from super().validate(where, experiment)
        if not self.field:
            yield f"{where}.field: is missing; name the field of the metadata that holds it"
        name = where.removeprefix("data.targets.")
        if not any(objective.target == name for objective in experiment.objectives.values()):
            yield f"{where}: has no effect without an objective that has target={name!r}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesConfig(TargetConfig):
    """Fields of targets with classes: the most frequent values of the training data, or named ones."""

    classes: int | None = between(None, 2)  # number of classes; required, except with `names`
    names: tuple[str, ...] = ()  # the classes themselves
    file: str | None = None  # or a text file with one class per line; the first `classes` are used
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # of the values, as for captions in data.text; VQA: ("vqa_answer",)

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        return {"file": "with `names`"} if self.names else {}

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        yield from super().validate(where, experiment)
        if self.classes is None and not self.names:
            yield f"{where}.classes: is missing; set how many there are (it must be known before data are read), or give names"
        if self.names and self.classes not in (None, len(self.names)):
            yield f"{where}.classes: is {self.classes}, and there are {len(self.names)} names; leave one of the two out"
        if len(set(self.names)) < len(self.names):
            yield f"{where}.names: names a class twice"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTargetConfig(ClassesConfig):
    """One of several classes."""

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        yield from super().validate(where, experiment)
        if number_of_classes(self) == 1:
            yield f"{where}.names: names one class, which is no choice; name two or more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoresTargetConfig(ClassesConfig):
    """A score of every class by the number of annotators who gave it (Antol et al. 2015).

    The scores are those of VQA's official evaluation: of ten annotators, one, two, three and more
    give the scores 0.3, 0.6, 0.9 and 1. The field holds the answers of all.
    """

    agreeing: int = between(3, 1)  # number of others with the same answer for a score of 1; 1: every given answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberTargetConfig(TargetConfig):
    """A number, standardised: minus `mean`, divided by `std`."""

    mean: float = 0.0
    std: float = between(1.0, 1e-30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTargetConfig(ClassesConfig):
    """A text to generate; of several, the most frequent. Its classes are the answers that an evaluation ranks."""

    length: int = between(8, 3)  # in tokens, with start and end; longer texts lose their last tokens


def number_of_classes(target: TargetConfig) -> int:
    """The number of classes of a target; 1 for a number."""
    return (target.classes or len(target.names)) if isinstance(target, ClassesConfig) else 1
