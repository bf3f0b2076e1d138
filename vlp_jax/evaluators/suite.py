"""The evaluators of a config, opened once and run any number of times."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources.registry import Source, open_source
from vlp_jax.distributed.exchange import check_all_agree
from vlp_jax.errors import DataError, EvaluationError
from vlp_jax.evaluators.config import BAD_EXAMPLES, EvaluatorConfig
from vlp_jax.evaluators.context import Descriptions, TaskContext, nothing
from vlp_jax.evaluators.evaluation_set import EvaluationSet, class_descriptions
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.readable import decodable_set, left_out, readable_set
from vlp_jax.evaluators.supervised import SupervisedHead
from vlp_jax.evaluators.text_generator import TextGenerator


class EvaluationInterrupted(Exception):
    """A stop signal arrived between two batches of an evaluation."""


def evaluate_set(spec: EvaluatorConfig, context: TaskContext) -> dict[str, float | str]:
    """The metrics of the tasks of an evaluator on one set, and texts to read.

    Raises:
      EvaluationError: what the model returns is not finite.
      DataError: the set lacks what a task needs.
    """
    results: dict[str, float | str] = {}
    try:
        for task in spec.tasks.values():
            task.check(context)
        for task in spec.tasks.values():
            results |= task.run(context)
    except ValueError as error:
        raise EvaluationError(f"{context.data.source.spec}: {error}") from error
    return results


def evaluate_readable(
    spec: EvaluatorConfig, context: TaskContext
) -> tuple[EvaluationSet, dict[str, float | str]]:
    """`evaluate_set` on the samples that can be decoded, and `bad_examples`, the number of samples
    left out.

    Returns: the evaluated set and its metrics.
    """
    data = context.data
    try:
        results = evaluate_set(spec, context)
    except SampleError as error:
        good = decodable_set(data, context.predictor.preprocessor, context.threads, context.paced)
        if good is data:  # the sample is bad for another reason
            raise DataError(
                f"{data.source.spec}: {error.key}: {error.message} ({error.reason})"
            ) from error
        data, results = good, evaluate_set(spec, dataclasses.replace(context, data=good))
    return data, results | {BAD_EXAMPLES: left_out(data)}


class EvaluationSuite:
    """All evaluation sets of an experiment.

    `run` returns metrics named `EVALUATOR/metric`, and texts under such names.
    """

    def __init__(
        self,
        specs: Mapping[str, EvaluatorConfig],
        predictor: Predictor,
        descriptions: Descriptions,
        threads: int,
        text_generator: TextGenerator | None = None,
        heads: Mapping[str, SupervisedHead] | None = None,
    ):
        self.text_generator, self.heads = text_generator, heads or {}
        self.specs, self.predictor, self.descriptions, self.threads = (
            specs,
            predictor,
            descriptions,
            threads,
        )
        self.others: dict[str, EvaluationSet] = {}  # opened once for all runs
        self.sets = {
            name: readable_set(open_source(spec.source), threads) for name, spec in specs.items()
        }
        check_all_agree("evaluation set", {name: len(data) for name, data in self.sets.items()})
        for name, spec in specs.items():
            for entry, task in spec.tasks.items():
                task.check(self.context(name), f"evaluators.{name}.tasks.{entry}.")

    def context(
        self, name: str, variables: Any = None, between: Callable[[], None] = nothing
    ) -> TaskContext:
        """What the tasks of an evaluator share."""
        return TaskContext(
            self.sets[name],
            self.predictor,
            variables,
            self.specs[name].batch_size,
            self.threads,
            self.text_generator,
            self.heads,
            self.descriptions,
            between,
            self.others,
        )

    def due(self, step: int, last_step: int) -> list[str]:
        """Names of the evaluators that run after this step."""
        return [
            name
            for name, spec in self.specs.items()
            if step == last_step or (spec.every_steps is not None and step % spec.every_steps == 0)
        ]

    def run(
        self, names: Sequence[str], variables: Any, between: Callable[[], None] = nothing
    ) -> dict[str, float | str]:
        """Metrics of the named evaluators.

        If `between`, which is called before each batch, raises EvaluationInterrupted, only those of
        the finished evaluators.
        """
        results = {}
        with contextlib.suppress(EvaluationInterrupted):
            for name in names:
                self.sets[name], metrics = evaluate_readable(
                    self.specs[name], self.context(name, variables, between)
                )
                results |= {f"{name}/{key}": value for key, value in metrics.items()}
        return results

    def missing(self, names: Sequence[str], row: Mapping[str, Any]) -> list[str]:
        """The named evaluators without any metric in `row`."""
        return [name for name in names if not any(key.startswith(f"{name}/") for key in row)]


class TrainingDescriptions(Mapping[str, dict[str, list[str]]]):
    """`collect_descriptions` of the training set, read at the first use: no update needs it."""

    def __init__(self, specs: Mapping[str, EvaluatorConfig], train: Sequence[Source]):
        self.specs, self.train = specs, train

    @functools.cached_property
    def found(self) -> dict[str, dict[str, list[str]]]:
        """The descriptions."""
        return collect_descriptions(self.specs, self.train)

    def __getitem__(self, field: str) -> dict[str, list[str]]:
        return self.found[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def collect_descriptions(
    specs: Mapping[str, EvaluatorConfig], train: Sequence[Source]
) -> dict[str, dict[str, list[str]]]:
    """Training captions by class, for every class field by which a task compares images with them.

    They are stored with the checkpoint.
    """
    wanted: dict[str, int] = {}
    for task in (task for spec in specs.values() for task in spec.tasks.values()):
        for field, count in task.described(train).items():
            wanted[field] = max(wanted.get(field, 0), count)
    return {field: class_descriptions(train, field, count) for field, count in wanted.items()}
