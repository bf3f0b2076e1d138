"""The evaluators of a config, opened once and run any number of times."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources.registry import Source, open_source
from vlp_jax.distributed.exchange import check_all_agree
from vlp_jax.errors import DataError, EvaluationError
from vlp_jax.evaluators.answers import ANSWER_METRICS, answers
from vlp_jax.evaluators.captioning import CAPTION_METRICS, captioning
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.evaluation_set import EvaluationSet, class_descriptions
from vlp_jax.evaluators.matching import MATCHING_METRICS, matching
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.prompts import Classes, own_class_field, report_shared_names, zero_shot_classes
from vlp_jax.evaluators.readable import BAD_EXAMPLES, decodable_set, left_out, readable_set
from vlp_jax.evaluators.retrieval import RETRIEVAL_METRICS, retrieval
from vlp_jax.evaluators.supervised import (
    CLASSIFICATION_METRICS,
    LABEL_METRICS,
    REGRESSION_METRICS,
    Predict,
    SupervisedHead,
    check_supervised,
    head_of,
    several_labels,
    supervised_metrics,
)
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.evaluators.zero_shot import ZERO_SHOT_METRICS, zero_shot
from vlp_jax.models.decoder.generation import BeamSearch

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

TASK_METRICS = {"retrieval": RETRIEVAL_METRICS, "zero_shot": ZERO_SHOT_METRICS, "matching": MATCHING_METRICS,
                "captions": CAPTION_METRICS, "classification": CLASSIFICATION_METRICS, "regression": REGRESSION_METRICS,
                "answers": ANSWER_METRICS}
PAIRED = {"matching", "classification", "regression", "answers"}  # tasks on pairs of an image and a text
LOOKED_AT = 100  # most samples of a training source that are tried to find a readable one
Descriptions = Mapping[str, Mapping[str, Sequence[str]]]  # {class field: {class: training captions}}


class EvaluationInterrupted(Exception):
    """A stop signal arrived between two batches of an evaluation."""


def nothing() -> None:
    """The default callback between two batches."""


def evaluate_set(data: EvaluationSet, spec: EvaluatorConfig, predictor: Predictor, variables: Any,
                 descriptions: Descriptions, threads: int, between: Callable[[], None] = nothing,
                 text_generator: TextGenerator | None = None, heads: Mapping[str, SupervisedHead] | None = None
                 ) -> dict[str, float | str]:
    """The metrics of `spec.tasks` on one set, and texts to read.

    Each image and each distinct caption is embedded once.

    Args:
      data: the set.
      spec: the config of the evaluator.
      predictor: the model's towers.
      variables: the model's variables.
      descriptions: training captions by class field and class.
      threads: threads that decode images.
      between: called before each batch, equally often in all processes; it may raise
        EvaluationInterrupted.
      text_generator: for the task `captions`.
      heads: for `classification`, `regression` and `answers`, by the name of the objective.
    Raises:
      EvaluationError: embeddings are not finite.
      DataError: the set lacks what a task needs.
    """
    def embed_texts(texts: Sequence[str]) -> np.ndarray:
        return predictor.texts(variables, paced(texts, spec.batch_size, between), spec.batch_size)

    def asked_of(predictor: Predictor, data: EvaluationSet = data) -> Predict:
        def ask(pairs: Sequence[tuple[int, str]]) -> np.ndarray:
            rows = data.pairs(predictor.preprocessor, threads, pairs)
            return predictor.pairs(variables, paced(rows, spec.batch_size, between), spec.batch_size)

        return ask

    classes = check_set(data, spec)
    by_sample = data.by_sample  # for tasks with a question about each sample, even if samples share an image
    results = {}
    if "captions" in spec.tasks:
        results |= captioning(data, text_generator, variables, spec.batch_size, threads,
                              lambda pairs: paced(pairs, spec.batch_size, between), beam_search_of(spec))
    try:
        if "matching" in spec.tasks:
            results |= matching(asked_of(predictor), data)
        results |= supervised_metrics(by_sample, spec, heads, lambda predictor: asked_of(predictor, by_sample))
        if "answers" in spec.tasks:
            head = head_of("answers", spec, heads)
            results |= answers(asked_of(head.writer(beam_search_of(spec)), by_sample), by_sample, head)
        if {"retrieval", "zero_shot"} & {*spec.tasks}:
            pixels = paced(data.pixels(predictor.preprocessor, threads), spec.batch_size, between)
            images = predictor.images(variables, pixels, spec.batch_size)
        if "retrieval" in spec.tasks:
            data.report_repeated()
            results |= retrieval(images, embed_texts(data.captions), data, merge_equal_captions=spec.merge_equal_captions)
        if classes is not None:
            results |= zero_shot(images, classes.truth, classes.names, embed_texts, classes.templates, classes.words,
                                 descriptions.get(classes.field, {}))
    except ValueError as error:
        raise EvaluationError(f"{data.source.spec}: {error}") from error
    return results


def beam_search_of(spec: EvaluatorConfig) -> BeamSearch:
    """How an evaluator's captions and answers are generated."""
    return BeamSearch(num_beams=spec.num_beams, length_penalty=spec.length_penalty, early_stopping=spec.early_stopping)


def check_set(data: EvaluationSet, spec: EvaluatorConfig, where: str = "") -> Classes | None:
    """Checks that a set has the classes and captions that its tasks need.

    Args:
      data: the set.
      spec: the config of the evaluator.
      where: prefix of the evaluator's settings, for messages.
    Returns: the classes of zero-shot classification, if that is one of the tasks.
    Raises:
      DataError: the set lacks classes or captions.
      ConfigError: as `zero_shot_classes`.
    """
    for task in sorted({"retrieval", "matching", "captions"} & {*spec.tasks}):
        data.require_captions(task)
    return zero_shot_classes(data, spec, where) if "zero_shot" in spec.tasks else None


def paced(items: Iterable, batch_size: int, between: Callable[[], None]) -> Iterator:
    """The items, with a call of `between` before the first of each batch."""
    for number, item in enumerate(items):
        if number % batch_size == 0:
            between()
        yield item


def evaluate_readable(data: EvaluationSet, spec: EvaluatorConfig, predictor: Predictor, variables: Any,
                      descriptions: Descriptions, threads: int, between: Callable[[], None] = nothing,
                      **options: Any) -> tuple[EvaluationSet, dict[str, float | str]]:
    """`evaluate_set` on the samples that can be decoded, and `bad_examples`, the number of samples left out.

    Returns: the evaluated set and its metrics.
    """
    def measure(data: EvaluationSet) -> dict[str, float | str]:
        return evaluate_set(data, spec, predictor, variables, descriptions, threads, between, **options)

    try:
        results = measure(data)
    except SampleError as error:
        good = decodable_set(data, predictor.preprocessor, threads, lambda numbers: paced(numbers, spec.batch_size, between))
        if good is data:  # the sample is bad for another reason
            raise DataError(f"{data.source.spec}: {error.key}: {error.message} ({error.reason})") from error
        data, results = good, measure(good)
    return data, results | {BAD_EXAMPLES: left_out(data)}


class EvaluationSuite:
    """All evaluation sets of an experiment.

    `run` returns metrics named `EVALUATOR/metric`, and texts under such names.
    """

    def __init__(self, specs: Mapping[str, EvaluatorConfig], predictor: Predictor, descriptions: Descriptions, threads: int,
                 text_generator: TextGenerator | None = None, heads: Mapping[str, SupervisedHead] | None = None):
        self.text_generator, self.heads = text_generator, heads
        self.specs, self.predictor, self.descriptions, self.threads = specs, predictor, descriptions, threads
        self.sets = {name: readable_set(open_source(spec.source), threads) for name, spec in specs.items()}
        check_all_agree("evaluation set", {name: len(data) for name, data in self.sets.items()})
        for name, spec in specs.items():
            classes = check_set(self.sets[name], spec, f"evaluators.{name}.")
            if classes is not None:
                report_shared_names(name, self.sets[name], classes.field)
            check_supervised(self.sets[name].by_sample, spec, heads)
            if PAIRED & {*spec.tasks}:
                self.sets[name].by_sample.check_graphs(predictor.preprocessor)

    def due(self, step: int, last_step: int) -> list[str]:
        """Names of the evaluators that run after this step."""
        return [name for name, spec in self.specs.items()
                if step == last_step or (spec.every_steps is not None and step % spec.every_steps == 0)]

    def run(self, names: Sequence[str], variables: Any, between: Callable[[], None] = nothing) -> dict[str, float | str]:
        """Metrics of the named evaluators.

        If `between`, which is called before each batch, raises EvaluationInterrupted, only those of
        the finished evaluators.
        """
        results = {}
        with contextlib.suppress(EvaluationInterrupted):
            for name in names:
                self.sets[name], metrics = evaluate_readable(
                    self.sets[name], self.specs[name], self.predictor, variables, self.descriptions, self.threads, between,
                    text_generator=self.text_generator, heads=self.heads)
                results |= {f"{name}/{key}": value for key, value in metrics.items()}
        return results

    def missing(self, names: Sequence[str], row: Mapping[str, Any]) -> list[str]:
        """The named evaluators without any metric in `row`."""
        return [name for name in names if not any(key.startswith(f"{name}/") for key in row)]


def metric_names(config: "Experiment") -> list[str]:
    """Every name that `EvaluationSuite.run` can return for a config.

    The tasks and objectives of its evaluators are already checked.
    """
    return [f"{name}/{metric}" for name, spec in config.evaluators.items() for task in spec.tasks
            for metric in (*TASK_METRICS[task], *label_metrics(task, spec, config))] + [
                f"{name}/{BAD_EXAMPLES}" for name in config.evaluators]


def label_metrics(task: str, spec: EvaluatorConfig, config: "Experiment") -> tuple[str, ...]:
    """The additional metrics of a task whose target has `several_labels`."""
    if task != "classification":
        return ()
    asked = head_of(task, spec, config.objectives)
    return LABEL_METRICS if several_labels(config.data.targets[asked.target]) else ()


def collect_descriptions(specs: Mapping[str, EvaluatorConfig], train: Sequence[Source]) -> dict[str, dict[str, list[str]]]:
    """Training captions by class, for every class field that a zero-shot evaluator uses.

    They are stored with the checkpoint.
    """
    wanted: dict[str, int] = {}
    for spec in specs.values():
        if "zero_shot" in spec.tasks and spec.captions_per_class:
            field = spec.class_field or next((own for own in map(own_class_field, first_metadata(train)) if own), None)
            if field is not None:
                wanted[field] = max(wanted.get(field, 0), spec.captions_per_class)
    return {field: class_descriptions(train, field, count) for field, count in wanted.items()}


def first_metadata(sources: Sequence[Source]) -> Iterator[Mapping[str, Any]]:
    """The metadata of the first readable sample of each source."""
    for source in sources:
        for index in range(min(len(source), LOOKED_AT)):
            with contextlib.suppress(SampleError):
                yield source[index].metadata
                break
