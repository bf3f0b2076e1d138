"""The evaluators of a config, opened once and run as often as asked."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.config import schema
from vlp_jax.data.sources import Source, open_source
from vlp_jax.errors import EvaluationError
from vlp_jax.evaluators.embedder import Embedder
from vlp_jax.evaluators.evaluation_set import EvaluationSet, class_descriptions
from vlp_jax.evaluators.retrieval import RETRIEVAL_METRICS, retrieval
from vlp_jax.evaluators.zero_shot import ZERO_SHOT_METRICS, zero_shot

TASK_METRICS = {"retrieval": RETRIEVAL_METRICS, "zero_shot": ZERO_SHOT_METRICS}
Descriptions = Mapping[str, Mapping[str, Sequence[str]]]  # {class field: {class: training captions}}


def evaluate_set(data: EvaluationSet, spec: schema.Evaluator, embedder: Embedder, variables: Any,
                 descriptions: Descriptions, threads: int) -> dict[str, float]:
    """The metrics of `spec.tasks` on one set. Each picture and each distinct caption is embedded once.

    Raises: EvaluationError for embeddings that are not finite; DataError for a set that lacks what a task needs.
    """
    labels = data.labels(spec.class_field) if "zero_shot" in spec.tasks else None
    embed_texts = functools.partial(embedder.texts, variables, batch_size=spec.batch_size)
    images = embedder.images(variables, data.pixels(embedder.preprocessor, threads), spec.batch_size)
    results = {}
    try:
        if "retrieval" in spec.tasks:
            results |= retrieval(images, embed_texts(data.captions), data)
        if labels is not None:
            names, truth = labels
            results |= zero_shot(images, truth, names, embed_texts, spec.templates, spec.class_names,
                                 descriptions.get(spec.class_field, {}))
    except ValueError as error:
        raise EvaluationError(f"{data.source.spec}: {error}") from error
    return results


class EvaluationSuite:
    """All evaluation sets of an experiment. `run(...)` gives metrics named `EVALUATOR/metric`."""

    def __init__(self, specs: Mapping[str, schema.Evaluator], embedder: Embedder, descriptions: Descriptions, threads: int):
        self.specs, self.embedder, self.descriptions, self.threads = specs, embedder, descriptions, threads
        self.sets = {name: EvaluationSet(open_source(spec.source)) for name, spec in specs.items()}

    def due(self, step: int, last_step: int) -> list[str]:
        """Names of the evaluators that run after this step."""
        return [name for name, spec in self.specs.items()
                if step == last_step or (spec.every_steps is not None and step % spec.every_steps == 0)]

    def run(self, names: Sequence[str], variables: Any) -> dict[str, float]:
        """Metrics of the named evaluators."""
        results = {}
        for name in names:
            metrics = evaluate_set(self.sets[name], self.specs[name], self.embedder, variables, self.descriptions, self.threads)
            results |= {f"{name}/{key}": value for key, value in metrics.items()}
        return results


def metric_names(specs: Mapping[str, schema.Evaluator]) -> list[str]:
    """Every name that `EvaluationSuite.run` can give for these evaluators."""
    return [f"{name}/{metric}" for name, spec in specs.items() for task in spec.tasks for metric in TASK_METRICS[task]]


def collect_descriptions(specs: Mapping[str, schema.Evaluator], train: Sequence[Source]) -> dict[str, dict[str, list[str]]]:
    """Training captions by class for every class field that a zero-shot evaluator uses; stored with the checkpoint."""
    wanted: dict[str, int] = {}
    for spec in specs.values():
        if "zero_shot" in spec.tasks and spec.captions_per_class:
            wanted[spec.class_field] = max(wanted.get(spec.class_field, 0), spec.captions_per_class)
    return {field: class_descriptions(train, field, count) for field, count in wanted.items()}
