"""The `evaluators` section of a config."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vlp_jax.config.fields import between, section
from vlp_jax.config.section import Section
from vlp_jax.evaluators.task import TaskConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


# the metric of each evaluator for the number of samples that were left out
BAD_EXAMPLES = "bad_examples"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(Section):
    """An evaluation set and its metrics. The name of the entry is the prefix of the metrics."""

    source: str = "embedded:emoji/val_vendor"
    # A task without a `kind` is of the kind that its name is; a sequence of kinds is the tasks with
    # their defaults: ("retrieval", "zero_shot").
    tasks: dict[str, TaskConfig] = section(lambda: {"retrieval": TaskConfig.of("retrieval")})
    every_steps: int | None = between(None, 1)  # None: after the last step only
    batch_size: int = between(256, 1)

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """A message about each kind of task that occurs twice, whose metrics would have the same
        names."""
        yield from super().validate(where, experiment)
        for kind, count in Counter(task.kind for task in self.tasks.values()).items():
            if count > 1:
                yield (
                    f"{where}.tasks: {count} are of kind {kind!r}, whose metrics have the same "
                    "names; make two evaluators"
                )


def metric_names(evaluators: Mapping[str, EvaluatorConfig], experiment: "Experiment") -> list[str]:
    """Every name that `EvaluationSuite.run` can return for these evaluators of an experiment."""
    return [
        f"{name}/{metric}"
        for name, spec in evaluators.items()
        for metric in (
            *(metric for task in spec.tasks.values() for metric in task.metric_names(experiment)),
            BAD_EXAMPLES,
        )
    ]
