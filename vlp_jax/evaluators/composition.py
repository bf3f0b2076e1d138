"""Compositional choice: captions that differ in who does what to whom.

One image with a true and false captions, as in SugarCrepe (Hsieh et al. 2023) and ARO (Yuksekgonul
et al. 2023); or two images and two captions of the same words, as in Winoground (Thrush et al.
2022).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlp_jax.data.sources.columns import pick
from vlp_jax.errors import DataError
from vlp_jax.evaluators.pair_scores import PairScorer, embedding_scorer, matching_scorer
from vlp_jax.evaluators.requirements import lacks_embeddings, lacks_head
from vlp_jax.evaluators.task import TaskConfig

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

CHOICE_METRICS = ("composition_samples", "composition_accuracy", "composition_chance")
PAIR_METRICS = (
    "composition_pairs",
    "composition_text_score",
    "composition_image_score",
    "composition_group_score",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompositionTaskConfig(TaskConfig):
    """How often the true caption of an image scores higher than false ones."""

    # Metadata field, with dots as in targets, of the false caption or captions of a sample.
    negatives: str = "negative"
    # Metadata field of a number or text that two samples share: Winoground's protocol, where each
    # of the two has one caption, the false one of the other. None: by `negatives`.
    pairs: str | None = None
    # metadata field, for each of whose values the metrics are also returned, such as the kind of
    # the change
    subset: str | None = None
    scores_from: Literal["embedding", "matching"] = "embedding"

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings, or one with a matching head."""
        if self.scores_from == "matching":
            return lacks_head(experiment, "matching")
        return lacks_embeddings(experiment)

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """A message about false captions that are not read."""
        if self.pairs is not None and self.negatives != CompositionTaskConfig().negatives:
            yield f"{name('negatives')}: has no effect with pairs={self.pairs!r}"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `CHOICE_METRICS`, or with `pairs` those in `PAIR_METRICS`."""
        return CHOICE_METRICS if self.pairs is None else PAIR_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every sample has a caption and what it is compared with.

        Raises: DataError where something is missing.
        """
        data = context.data.by_sample
        data.require_captions(self.kind)
        if self.scores_from == "matching":
            data.check_graphs(context.predictor.preprocessor)
        if self.pairs is None:
            false_captions(data, self.negatives, f"{where}negatives")
        else:
            paired_samples(data, self.pairs, f"{where}pairs")
        if self.subset is not None:
            data.labels(self.subset, f"{where}subset")

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The metrics, also for each value of the field `subset`."""
        data = context.data.by_sample
        scorer = {"embedding": embedding_scorer, "matching": matching_scorer}[self.scores_from]
        score = scorer(context, data)
        if self.pairs is None:
            right, chance = choices(data, false_captions(data, self.negatives), score)
            columns = [right, chance]
            names, samples = CHOICE_METRICS, np.arange(len(data))
        else:
            numbers = paired_samples(data, self.pairs)
            columns = [*winoground(data, numbers, score)]
            names, samples = PAIR_METRICS, numbers[:, 0]
        results = summary(names, columns, "")
        if self.subset is not None:
            values, labels = data.labels(self.subset, "subset")
            for place, value in enumerate(values):
                rows = labels[samples] == place
                if rows.any():
                    results |= summary(names, [column[rows] for column in columns], f"/{value}")
        return results


def summary(names: Sequence[str], columns: Sequence[np.ndarray], suffix: str) -> dict[str, float]:
    """The number of rows, and the mean of each column, under these names."""
    values = (len(columns[0]), *(float(column.mean()) for column in columns))
    return {f"{name}{suffix}": value for name, value in zip(names, values, strict=True)}


def first_caption(data: "EvaluationSet", number: int) -> str:
    """The first caption of a sample."""
    return data.captions[data.captions_of_image[number][0]]


def choices(
    data: "EvaluationSet", negatives: Sequence[Sequence[str]], score: PairScorer
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the first caption of each sample scores higher than all of its false captions.

    A tie counts as an error.

    Returns: bool [N], and the probability that a random choice is correct, float64 [N].
    """
    asked = [
        (number, text)
        for number, false in enumerate(negatives)
        for text in (first_caption(data, number), *false)
    ]
    ends = np.cumsum([1 + len(false) for false in negatives])
    groups = np.split(score(asked), ends[:-1])
    return (
        np.array([group[0] > group[1:].max() for group in groups]),
        np.array([1 / len(group) for group in groups]),
    )


def winoground(
    data: "EvaluationSet", numbers: np.ndarray, score: PairScorer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Winoground's text, image and group score of pairs of samples (Thrush et al. 2022, section 3).

    Text score: each image fits its own caption better than the other caption. Image score: each
    caption fits its own image better than the other image. Group score: both. A tie counts as an
    error.

    Args:
      data: the set.
      numbers: int [P, 2], the two samples of each pair.
      score: of an image and a text.
    Returns: (text, image, group), each bool [P].
    """
    asked = [
        (int(image), first_caption(data, int(caption)))
        for pair in numbers
        for image in pair
        for caption in pair
    ]
    scores = score(asked).reshape(-1, 2, 2)  # pair, image, caption
    own = np.einsum("pii->pi", scores)
    text = (own > np.stack([scores[:, 0, 1], scores[:, 1, 0]], axis=1)).all(axis=1)
    image = (own > np.stack([scores[:, 1, 0], scores[:, 0, 1]], axis=1)).all(axis=1)
    return text, image, text & image


def false_captions(
    data: "EvaluationSet", field: str, setting: str = "negatives"
) -> list[tuple[str, ...]]:
    """The false captions of each sample.

    Raises:
      DataError: a sample has none, or its true caption is among them.
    """
    found = []
    for number, metadata in enumerate(data.metadata):
        texts = texts_in(pick(metadata, field))
        if not texts:
            raise DataError(
                f"{data.keys[number]}: composition needs one or several false captions in the "
                f"metadata field {field!r} ({setting}), {data.found(number, field)}"
            )
        if first_caption(data, number) in texts:
            raise DataError(
                f"{data.keys[number]}: a false caption in the metadata field {field!r} "
                f"({setting}) is the caption itself: {first_caption(data, number)!r}"
            )
        found.append(texts)
    return found


def texts_in(value: Any) -> tuple[str, ...]:
    """The texts of a metadata value, a text or a list of them; none for other values."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return ()
    return tuple(text.strip() for text in texts if text.strip())


def paired_samples(data: "EvaluationSet", field: str, setting: str = "pairs") -> np.ndarray:
    """The two samples of each value of a metadata field, int [P, 2], in order of appearance.

    Raises:
      DataError: a sample lacks the field, or not exactly two share its value.
    """
    names, labels = data.labels(field, setting)
    groups: dict[int, list[int]] = {}
    for number, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(number)
    for label, numbers in groups.items():
        if len(numbers) != 2:
            raise DataError(
                f"{data.keys[numbers[0]]}: {len(numbers)} samples have {names[label]!r} in the "
                f"metadata field {field!r} ({setting}); Winoground's scores are of two each"
            )
    return np.array([*groups.values()])
