"""Linear probe: logistic regression on frozen features (Radford et al. 2021, appendix A.3)."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.fields import between, positive
from vlp_jax.evaluators.logistic_regression import SEARCH_TOLERANCE, best_penalty, fit
from vlp_jax.evaluators.probe import Labelled, ProbeTaskConfig
from vlp_jax.metrics.classification import accuracy, majority, top_k_accuracy
from vlp_jax.metrics.per_class import class_scores, confusion_matrix, predicted_classes

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

LINEAR_PROBE_METRICS = tuple(
    f"linear_probe_{name}"
    for name in ("classes", "majority", "accuracy", "top_5", "mean_per_class_recall", "penalty")
)
HELD_OUT = 5  # every fifth training image, in a random order, where there is no validation set


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbeTaskConfig(ProbeTaskConfig):
    """Accuracy of logistic regression on the features of a training set."""

    # The source by whose accuracy the L2 penalty is chosen; None: a fifth of the training set. The
    # classifier is then fitted on both.
    validation: str | None = None
    penalty: float | None = positive(None)  # the L2 penalty, 1 / C; None: chosen
    iterations: int = between(1000, 1)  # most iterations of L-BFGS

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """Also a message about a validation set that is not used."""
        yield from super().problems(name, experiment)
        if self.penalty is not None and self.validation is not None:
            yield f"{name('validation')}: has no effect with a given penalty"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `LINEAR_PROBE_METRICS`."""
        return LINEAR_PROBE_METRICS

    @property
    def other_sources(self) -> tuple[str, ...]:
        """The training and the validation set."""
        return super().other_sources + (() if self.validation is None else (self.validation,))

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The `LINEAR_PROBE_METRICS` of the evaluation set."""
        train, validation = self.learned_from(context, self.train), None
        if self.validation is not None:
            validation = self.learned_from(context, self.validation)
        classes = len(self.names(context))
        return linear_probe(
            train,
            self.tested(context),
            classes,
            validation=validation,
            penalty=self.penalty,
            iterations=self.iterations,
        )


def linear_probe(
    train: Labelled,
    test: Labelled,
    classes: int,
    *,
    validation: Labelled | None = None,
    penalty: float | None = None,
    iterations: int = 1000,
) -> dict[str, float]:
    """Metrics of logistic regression fitted on a training set.

    Args:
      train: the training set.
      test: the evaluation set.
      classes: number of classes.
      validation: the set by whose accuracy the penalty is chosen; None: a fifth of `train`, drawn
        with a fixed seed.
      penalty: the L2 penalty; None: `best_penalty`.
      iterations: most iterations of L-BFGS.
    Returns: the `LINEAR_PROBE_METRICS`, with the penalty used.
    """
    if penalty is None:
        fitted, chosen_by = (train, validation) if validation else split_off(train)

        def score(tried: float) -> float:
            model = fit(
                fitted.features,
                fitted.labels,
                classes,
                tried,
                iterations=iterations,
                tolerance=SEARCH_TOLERANCE,
            )
            return accuracy(model.scores(chosen_by.features), chosen_by.labels)

        penalty = best_penalty(score)
        train = train if validation is None else both(train, validation)
    model = fit(train.features, train.labels, classes, penalty, iterations=iterations)
    scores = model.scores(test.features)
    confusion = confusion_matrix(predicted_classes(scores, test.labels), test.labels, classes)
    values = (
        classes,
        majority(test.labels),
        accuracy(scores, test.labels),
        top_k_accuracy(scores, test.labels, 5),
        class_scores(confusion).mean_per_class_recall,
        penalty,
    )
    return dict(zip(LINEAR_PROBE_METRICS, values, strict=True))


def split_off(data: Labelled, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Four fifths of a set, and one fifth, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(data.labels))
    held = np.zeros(len(order), bool)
    held[order[::HELD_OUT]] = True
    return (
        Labelled(data.features[~held], data.labels[~held]),
        Labelled(data.features[held], data.labels[held]),
    )


def both(first: Labelled, second: Labelled) -> Labelled:
    """Two sets as one."""
    return Labelled(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.labels, second.labels]),
    )
