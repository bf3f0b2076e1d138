"""Does the matching head know which text belongs to a picture? On a set's pairs, and as many that do not belong together."""

from collections.abc import Callable, Sequence

import numpy as np

from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.metrics.classification import majority, precision_recall_f1

MATCHING_METRICS = ("matching_pairs", "matching_accuracy", "matching_positive_rate", "matching_precision", "matching_recall",
                    "matching_f1", "matching_majority_accuracy", "matching_always_yes_f1")


def held_out_pairs(captions_of_image: Sequence[Sequence[int]], images_of_caption: Sequence[Sequence[int]],
                   seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(caption, belongs), int and bool [N, 2]: the first caption of each of N pictures, and one drawn from those that no picture
    bears which shares a caption with this one; -1 where there is none."""
    rng, count = np.random.default_rng(seed), len(images_of_caption)
    pairs = np.full((len(captions_of_image), 2), -1)
    for image, own in enumerate(captions_of_image):
        pairs[image, 0] = own[0]
        related = {caption for mine in own for other in images_of_caption[mine] for caption in captions_of_image[other]}
        others = np.setdiff1d(np.arange(count), sorted(related))
        if others.size:
            pairs[image, 1] = rng.choice(others)
    return pairs, np.broadcast_to([True, False], pairs.shape)


def matching(match: Callable[[Sequence[tuple[int, str]]], np.ndarray], data: EvaluationSet) -> dict[str, float]:
    """How well pairs that belong together are told from pairs that do not, and what it takes to be better than no look at them:

    matching_pairs: how many there are; matching_positive_rate: how many of these belong together.
    matching_accuracy: how many are told right; matching_majority_accuracy: by the better of always yes and always no.
    matching_precision, matching_recall, matching_f1: of the answer that a pair belongs together. Always no has 0 of all three;
      always yes has the positive rate, 1, and matching_always_yes_f1.

    match: (index of a picture, caption) pairs -> float [N, 2], the scores that they do not and that they do belong together.
    A tie counts against: it is taken for the wrong answer. Raises: ValueError for scores that are not finite.
    """
    captions, belongs = held_out_pairs(data.captions_of_image, data.images_of_caption)
    images, columns = np.nonzero(captions >= 0)
    truth = belongs[images, columns]
    scores = match([(int(image), data.captions[caption]) for image, caption in zip(images, captions[images, columns], strict=True)])
    if not np.isfinite(scores).all():
        raise ValueError("matching scores are not finite")
    answers = np.where(truth, scores[:, 1] > scores[:, 0], scores[:, 1] >= scores[:, 0])
    values = (len(truth), float((answers == truth).mean()), float(truth.mean()), *precision_recall_f1(answers, truth),
              majority(truth), precision_recall_f1(np.ones_like(truth), truth)[2])
    return dict(zip(MATCHING_METRICS, values, strict=True))
