"""The base of all tasks of evaluators."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.data.samples import Source

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Component):
    """What is measured of an evaluation set."""

    kinds: ClassVar[Kinds] = Kinds(
        {
            "retrieval": "vlp_jax.evaluators.retrieval:RetrievalTaskConfig",
            "zero_shot": "vlp_jax.evaluators.zero_shot:ZeroShotTaskConfig",
            "matching": "vlp_jax.evaluators.matching:MatchingTaskConfig",
            "captions": "vlp_jax.evaluators.captioning:CaptionsTaskConfig",
            "classification": "vlp_jax.evaluators.classification:ClassificationTaskConfig",
            "regression": "vlp_jax.evaluators.regression:RegressionTaskConfig",
            "answers": "vlp_jax.evaluators.answers:AnswersTaskConfig",
            "linear_probe": "vlp_jax.evaluators.linear_probe:LinearProbeTaskConfig",
            "knn": "vlp_jax.evaluators.nearest_neighbours:NearestNeighboursTaskConfig",
            "few_shot": "vlp_jax.evaluators.few_shot:FewShotTaskConfig",
            "rerank": "vlp_jax.evaluators.rerank:RerankTaskConfig",
            "composition": "vlp_jax.evaluators.composition:CompositionTaskConfig",
            "segmentation": "vlp_jax.evaluators.segmentation:SegmentationTaskConfig",
            "grounding": "vlp_jax.evaluators.grounding:GroundingTaskConfig",
            "perplexity": "vlp_jax.evaluators.perplexity:PerplexityTaskConfig",
            "embedding_geometry": "vlp_jax.evaluators.embedding_geometry:GeometryTaskConfig",
        }
    )

    def lacks(self, experiment: "Experiment") -> str | None:
        """What the experiment would have to train for this task and does not; None where it trains
        all of it."""
        raise NotImplementedError

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names of the metrics that `run` returns for a model of the experiment."""
        raise NotImplementedError

    def run(self, context: "TaskContext") -> Mapping[str, float | str]:
        """The metrics of a set, and texts to read.

        Raises:
          ValueError: what the model returns is not finite.
          DataError: as `check`.
        """
        raise NotImplementedError

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks, before anything is computed, that a set has what the task reads.

        Args:
          context: the set, the preprocessor and the heads; variables are not needed.
          where: prefix of the task's settings, for messages.
        Raises:
          DataError: the set lacks something.
          ConfigError: as `check_files`.
        """

    def check_files(self, name: Callable[[str], str]) -> None:
        """Checks the files that the settings name.

        Args:
          name: returns the name of a setting in messages.
        Raises:
          ConfigError: a file cannot be read, or holds something else.
        """

    def described(self, train: Sequence[Source]) -> Mapping[str, int]:
        """{class field: number of captions per class} of the training captions that the task
        compares images with."""
        return {}

    def untrained(self, name: str, experiment: "Experiment") -> Iterator[str]:
        """A message where the experiment lacks what the task needs; `name` is the key or flag of
        the tasks."""
        # that there are none is a message of its own
        need = self.lacks(experiment) if experiment.objectives else None
        if need is not None:
            possible = [
                kind for kind, task in self.kinds.items() if task().lacks(experiment) is None
            ]
            yield (
                f"{name}: {self.kind!r} needs {need}, and there is none; possible: "
                f"{', '.join(possible) or 'no task'}"
            )

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """Messages about settings that do not fit the experiment; `name` as in `check_files`."""
        return iter(())

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Messages about what the experiment does not train for the task, and about settings that
        do not fit it."""
        yield from super().validate(where, experiment)
        yield from self.untrained(where.rpartition(".")[0], experiment)
        yield from self.problems(lambda key: f"{where}.{key}", experiment)
