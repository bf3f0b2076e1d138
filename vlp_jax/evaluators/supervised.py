"""Parts that are shared by the tasks on the head of a supervised objective."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlp_jax.data.targets import Targets
from vlp_jax.errors import DataError
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.requirements import kinds_with_head, lacks_head
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.models.decoder.generation import BeamSearch

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

# (index of a sample, its text) -> float [N, outputs]
Predict = Callable[[Sequence[tuple[int, str]]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class SupervisedHead:
    """The head of a supervised objective and the target that it predicts.

    Attributes:
      tasks: the tasks that the head is for (see `ObjectiveConfig.tasks`).
      predictor: its `pairs` runs the head.
      target: name of the target.
      targets: all targets of the config.
      writer: for a head that generates answers, `writer(search)`, whose `pairs` returns the tokens
        of an answer to each pair, int32 [N, L].
    """

    tasks: tuple[str, ...]
    predictor: Predictor
    target: str
    targets: Targets
    writer: Callable[[BeamSearch], Predictor] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedTaskConfig(TaskConfig):
    """Fields shared by the tasks on the head of a supervised objective, about each sample of a
    set."""

    # the task for which the objectives have the head, as they name it in `tasks`
    head: ClassVar[str]

    objective: str | None = None  # the objective with the head; None: the first with such a head

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective with the head of this task."""
        return lacks_head(experiment, self.head)

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """A message about an `objective` that is none with this head."""
        possible = [
            key for key, objective in experiment.objectives.items() if self.head in objective.tasks
        ]
        if self.objective is not None and self.objective not in possible:
            yield (
                f"{name('objective')}: {self.objective!r} is no objective of kind "
                f"{kinds_with_head(self.head)} (there are: {', '.join(possible) or 'none'})"
            )

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every sample has a value in the target's field, and the boxes and parses
        where they are read.

        Raises: DataError where they are missing.
        """
        data = context.data.by_sample
        require_targets(data, self.head_of(context.heads))
        data.check_graphs(context.predictor.preprocessor)

    def head_of(self, heads: Mapping[str, Any]) -> Any:
        """The head, or the objective, that the task names, or the first that it can use; None where
        there is none."""
        able = (one for one in heads.values() if self.head in one.tasks)
        return heads.get(self.objective) if self.objective else next(able, None)


def first_texts(data: "EvaluationSet") -> list[tuple[int, str]]:
    """The index of each sample with its first text, or an empty one where it has only a class."""
    return [
        (number, data.captions[texts[0]] if texts else "")
        for number, texts in enumerate(data.captions_of_image)
    ]


def require_targets(data: "EvaluationSet", head: SupervisedHead) -> None:
    """Checks that every sample has a value in the target's field.

    Raises:
      DataError: a sample has none.
    """
    for number, metadata in enumerate(data.metadata):
        if not head.targets.specs[head.target].has_value(metadata):
            missing(data, number, head)


def missing(data: "EvaluationSet", number: int, head: SupervisedHead) -> None:
    """Raises the DataError that names a sample without a target."""
    spec = head.targets.specs[head.target]
    raise DataError(
        f"{data.source.spec}: {data.source[int(number)].key}: an evaluation needs a "
        f"{spec.kind} in the metadata field {spec.field!r} "
        f"(data.targets.{head.target}), {data.found(int(number), spec.field)}"
    )
