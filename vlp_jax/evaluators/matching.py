"""Evaluation of the matching head on the pairs of a set and as many negative pairs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.evaluators.requirements import lacks_head
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.metrics.classification import majority, precision_recall_f1

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

MATCHING_METRICS = (
    "matching_pairs",
    "matching_accuracy",
    "matching_positive_rate",
    "matching_precision",
    "matching_recall",
    "matching_f1",
    "matching_majority_accuracy",
    "matching_always_yes_f1",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingTaskConfig(TaskConfig):
    """The matching head on the pairs of a set and as many negative pairs."""

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective with a matching head."""
        return lacks_head(experiment, "matching")

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `MATCHING_METRICS`."""
        return MATCHING_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption, and the boxes and parses where they are read.

        Raises: DataError where they are missing.
        """
        context.data.require_captions(self.kind)
        context.data.by_sample.check_graphs(context.predictor.preprocessor)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The metrics of the head's classification of true and negative pairs."""
        return matching(context.ask(context.predictor, context.data), context.data)


def held_out_pairs(
    captions_of_image: Sequence[Sequence[int]],
    images_of_caption: Sequence[Sequence[int]],
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A positive and a negative caption of each image.

    The positive one is the first caption of the image. The negative one is drawn from the captions
    that belong to no image which shares a caption with this one.

    Args:
      captions_of_image: for each image, indices of its captions.
      images_of_caption: for each caption, indices of its images.
      seed: of the draw.
    Returns: (caption, belongs), int and bool [N, 2]; the caption is -1 where there is no negative
      one.
    """
    rng, count = np.random.default_rng(seed), len(images_of_caption)
    pairs = np.full((len(captions_of_image), 2), -1)
    for image, own in enumerate(captions_of_image):
        pairs[image, 0] = own[0]
        related = {
            caption
            for mine in own
            for other in images_of_caption[mine]
            for caption in captions_of_image[other]
        }
        others = np.setdiff1d(np.arange(count), sorted(related))
        if others.size:
            pairs[image, 1] = rng.choice(others)
    return pairs, np.broadcast_to([True, False], pairs.shape)


def matching(
    match: Callable[[Sequence[tuple[int, str]]], np.ndarray], data: "EvaluationSet"
) -> dict[str, float]:
    """Metrics of the classification of pairs as positive or negative, with baselines that ignore
    the pair.

    Args:
      match: (index of an image, caption) pairs -> float [N, 2], scores of the negative and of the
        positive answer. A tie counts as an error.
      data: the set.
    Returns:
      matching_pairs: number of pairs.
      matching_positive_rate: fraction of positive pairs.
      matching_accuracy: fraction of correct answers.
      matching_majority_accuracy: accuracy of the better of always yes and always no.
      matching_precision, matching_recall, matching_f1: of the positive answer. Always no has 0 in
        all three; always yes has the positive rate, 1, and matching_always_yes_f1.
    Raises:
      ValueError: scores are not finite.
    """
    captions, belongs = held_out_pairs(data.captions_of_image, data.images_of_caption)
    images, columns = np.nonzero(captions >= 0)
    truth = belongs[images, columns]
    scores = match(
        [
            (int(image), data.captions[caption])
            for image, caption in zip(images, captions[images, columns], strict=True)
        ]
    )
    if not np.isfinite(scores).all():
        raise ValueError("matching scores are not finite")
    answers = np.where(truth, scores[:, 1] > scores[:, 0], scores[:, 1] >= scores[:, 0])
    values = (
        len(truth),
        float((answers == truth).mean()),
        float(truth.mean()),
        *precision_recall_f1(answers, truth),
        majority(truth),
        precision_recall_f1(np.ones_like(truth), truth)[2],
    )
    return dict(zip(MATCHING_METRICS, values, strict=True))
