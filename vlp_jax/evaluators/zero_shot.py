"""Zero-shot classification (Radford et al. 2021, section 3.1).

The class of an image is the one whose texts are nearest.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlp_jax.config.fields import between, section
from vlp_jax.config.problems import Problems
from vlp_jax.data.samples import SampleError, Source
from vlp_jax.evaluators.multi_label import MULTI_LABEL_METRICS, multi_label, several_classes
from vlp_jax.evaluators.prompts import (
    names_in,
    own_class_field,
    report_shared_names,
    templates_of,
    zero_shot_classes,
)
from vlp_jax.evaluators.requirements import lacks_embeddings
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.metrics.classification import accuracy, majority, top_k_accuracy
from vlp_jax.metrics.per_class import class_scores, confusion_matrix, predicted_classes
from vlp_jax.metrics.ranking import similarities

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

LOOKED_AT = 100  # most samples of a training source that are tried to find a readable one
ZERO_SHOT_METRICS = (
    "classes",
    "majority",
    "zero_shot_accuracy",
    "zero_shot_top_5",
    "zero_shot_mean_per_class_recall",
    "zero_shot_f1_macro",
    "zero_shot_accuracy_descriptions",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotTaskConfig(TaskConfig):
    """Classification of images by prompts."""

    # metadata field of the class, with dots as in targets; None: the source's own
    class_field: str | None = None
    # prompts, with {} for the class; "imagenet": CLIP's 80; or a file with one per line
    templates: tuple[str, ...] = ("{}",)
    # Better names for each class, by class; or the names of classes 0, 1 and so on; or "imagenet"
    # for its 1,000; or a file with one per line.
    class_names: dict[str, tuple[str, ...]] | tuple[str, ...] = section(dict)
    # images have a list of classes each; the mean average precision is measured
    multi_label: bool = False
    captions_per_class: int = between(400, 0)  # by descriptions: training captions kept per class

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings of images and captions."""
        return lacks_embeddings(experiment)

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `ZERO_SHOT_METRICS`, or with `multi_label` in `MULTI_LABEL_METRICS`."""
        return MULTI_LABEL_METRICS if self.multi_label else ZERO_SHOT_METRICS

    def check_files(self, name: Callable[[str], str]) -> None:
        """Reads the files of `templates` and `class_names`.

        Raises: ConfigError, or ConfigErrors where both are invalid.
        """
        problems = Problems()
        with problems.noted():
            templates_of(name("templates"), self.templates)
        with problems.noted():
            names_in(name("class_names"), self.class_names)
        problems.report()

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Finds the classes, and reports those that share a name.

        Raises: as `zero_shot_classes` and `several_classes`.
        """
        if self.multi_label:
            several_classes(context.data, self, where)
            return
        report_shared_names(context.data, zero_shot_classes(context.data, self, where).field, where)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The accuracies with prompts, and with class descriptions from the training data where
        there are any."""
        if self.multi_label:
            classes, truth = several_classes(context.data, self)
            return multi_label(
                context.images,
                truth,
                classes,
                lambda texts: class_means(texts, context.embed_texts),
            )
        classes = zero_shot_classes(context.data, self)
        return zero_shot(
            context.images,
            classes.truth,
            classes.names,
            context.embed_texts,
            classes.templates,
            classes.words,
            context.descriptions.get(classes.field, {}),
        )

    def described(self, train: Sequence[Source]) -> Mapping[str, int]:
        """The class field, set or found in the first samples, with `captions_per_class`; {} where
        that is 0."""
        field = self.class_field or next(
            (own for own in map(own_class_field, first_metadata(train)) if own), None
        )
        return (
            {field: self.captions_per_class}
            if field is not None and self.captions_per_class and not self.multi_label
            else {}
        )


def zero_shot(
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    embed_texts: Callable[[list[str]], np.ndarray],
    templates: Sequence[str],
    class_names: Mapping[str, Sequence[str]],
    descriptions: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Zero-shot accuracy.

    A class is represented by the mean of its texts' embeddings, scaled to length 1.

    Args:
      images: [N, E] embeddings.
      labels: int [N], indices into `names`.
      names: class names.
      embed_texts: captions -> [M, E] unit vectors.
      templates: prompts with `{}` for the class.
      class_names: words to use in prompts instead of the class name, one after another.
      descriptions: training captions by class; their accuracy is left out unless every class has
        some.
    Returns:
      classes: number of classes.
      majority: accuracy of the most frequent class.
      zero_shot_accuracy: accuracy by prompts.
      zero_shot_top_5: how often the true class is among the five nearest.
      zero_shot_mean_per_class_recall, zero_shot_f1_macro: means over the classes, by
        `ClassScores`.
      zero_shot_accuracy_descriptions: accuracy by training captions.
    """
    prompts = {
        name: [
            template.format(word)
            for word in class_names.get(name, (name,))
            for template in templates
        ]
        for name in names
    }
    scores = similarities(images, class_means(prompts, embed_texts))
    of_classes = class_scores(
        confusion_matrix(predicted_classes(scores, labels), labels, len(names))
    )
    results: dict[str, float] = {
        "classes": len(names),
        "majority": majority(labels),
        "zero_shot_accuracy": accuracy(scores, labels),
        "zero_shot_top_5": top_k_accuracy(scores, labels, 5),
        "zero_shot_mean_per_class_recall": of_classes.mean_per_class_recall,
        "zero_shot_f1_macro": of_classes.f1_macro,
    }
    if all(descriptions.get(name) for name in names):
        means = class_means({name: descriptions[name] for name in names}, embed_texts)
        results["zero_shot_accuracy_descriptions"] = accuracy(similarities(images, means), labels)
    return results


def class_means(
    texts: Mapping[str, Sequence[str]], embed_texts: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """{class: texts} -> unit vectors float64 [C, E], in the order of the mapping."""
    embedded = embed_texts([text for group in texts.values() for text in group])
    ends = np.cumsum([len(group) for group in texts.values()])
    means = np.stack(
        [part.mean(axis=0, dtype=np.float64) for part in np.split(embedded, ends[:-1])]
    )
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def first_metadata(sources: Sequence[Source]) -> Iterator[Mapping[str, Any]]:
    """The metadata of the first readable sample of each source."""
    for source in sources:
        for index in range(min(len(source), LOOKED_AT)):
            with contextlib.suppress(SampleError):
                yield source[index].metadata
                break
