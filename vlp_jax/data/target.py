"""The base of all kinds of targets.

A sample has no target where its metadata lack the field, where the field is empty, or where its
value is none of the classes. Its row is then -1 for a class, zeros for scores and NaN for a number.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.data.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# of one sample; each kind reads one of these types, and its methods take that
Target = np.ndarray | np.generic | str
Places = Mapping[str, int]  # the index of each class among the classes of a target


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig(Component):
    """A target to predict, from a sample's metadata. An empty value is no target."""

    kinds: ClassVar[Kinds] = Kinds(
        {
            "class": "vlp_jax.data.target_kinds:ClassTargetConfig",
            "scores": "vlp_jax.data.target_kinds:ScoresTargetConfig",
            "number": "vlp_jax.data.target_kinds:NumberTargetConfig",
            "text": "vlp_jax.data.target_kinds:TextTargetConfig",
        }
    )
    wanted: ClassVar[str]  # what a sample with a target has in the field, in words

    field: str = ""  # of the metadata; a dot selects a nested one: answers.answer. Required

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Messages about a missing field, and about a target that no objective predicts."""
        yield from super().validate(where, experiment)
        if not self.field:
            yield f"{where}.field: is missing; name the field of the metadata that holds it"
        name = where.removeprefix("data.targets.")
        if not any(objective.target == name for objective in experiment.objectives.values()):
            yield f"{where}: has no effect without an objective that has target={name!r}"

    def read(self, metadata: Mapping[str, Any], places: Places) -> Target:
        """The target of a sample with the given metadata; `places` are those of its classes."""
        raise NotImplementedError

    def is_given(self, found: Any) -> bool:
        """Whether a result of `read` is a target."""
        raise NotImplementedError

    def has_value(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the field has a value, even if it is none of the classes."""
        raise NotImplementedError

    def array(self, rows: int) -> tuple[tuple[int, ...], type]:
        """(shape, dtype) of the targets of `rows` examples in a batch."""
        raise NotImplementedError

    def encoded(self, found: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
        """Results of `read` for the rows of a batch, as the array of a batch."""
        return found

    def credits(self, found: Any, places: Places) -> np.ndarray:
        """The credit of each class as an answer where `found` is the target, float32 [C]."""
        raise NotImplementedError

    def named_classes(self, name: str) -> tuple[str, ...]:
        """The classes that are known without the data; `name` is the target's, for messages.

        Raises:
          ConfigError: there are too few classes, or one is named twice.
        """
        return ()

    @property
    def outputs(self) -> int:
        """The number of classes, or 1."""
        return 1

    @property
    def finds_classes(self) -> bool:
        """Whether the classes are found in the training data."""
        return False

    @property
    def one_class(self) -> bool:
        """Whether a sample has exactly one class."""
        return False

    @property
    def several_labels(self) -> bool:
        """Whether each of several classes of a sample is either fully true or not."""
        return False
