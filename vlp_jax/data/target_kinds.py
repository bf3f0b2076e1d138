"""Kinds of targets, and their keys in `data.targets`."""

import dataclasses
from typing import ClassVar, Literal

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.data.text.canonicalize import CHANGES_OF_TEXT


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

    @property
    def several_labels(self) -> bool:
        """Whether each of several classes of a sample is either fully true or not."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesConfig(TargetConfig):
    """Fields of targets with classes: the most frequent values of the training data, or named ones."""

    classes: int | None = between(None, 2)  # number of classes; required, except with `names`
    names: tuple[str, ...] = ()  # the classes themselves
    file: str | None = None  # or a text file with one class per line; the first `classes` are used
    canonicalize: tuple[Literal[CHANGES_OF_TEXT], ...] = ()  # of the values, as for captions in data.text; VQA: ("vqa_answer",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTargetConfig(ClassesConfig):
    """One of several classes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoresTargetConfig(ClassesConfig):
    """A score of every class by the number of annotators who gave it (Antol et al. 2015).

    The scores are those of VQA's official evaluation: of ten annotators, one, two, three and more
    give the scores 0.3, 0.6, 0.9 and 1. The field holds the answers of all.
    """

    agreeing: int = between(3, 1)  # number of others with the same answer for a score of 1; 1: every given answer

    @property
    def several_labels(self) -> bool:
        """Whether one annotator suffices for the full score.

        Partial scores belong to answers: there are thousands of them, and one is to be given.
        """
        return self.agreeing == 1


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
