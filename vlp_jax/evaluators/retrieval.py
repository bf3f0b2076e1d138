"""Image-text retrieval as in COCO and CLIP_benchmark, or over the distinct captions of a set."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.evaluators.requirements import lacks_embeddings
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.metrics.ranking import chance_at_1, ranks, recall_at

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

RETRIEVAL_METRICS = (
    "images",
    "texts",
    *(
        f"{way}_{metric}"
        for way in ("text_to_image", "image_to_text")
        for metric in ("recall@1", "recall@5", "recall@10", "median_rank", "mean_rank", "chance@1")
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalTaskConfig(TaskConfig):
    """Image-text retrieval in both directions."""

    # True: equal captions are one text, and any image that has it is correct. False: each caption
    # is a text of its own, and only its own image is correct, the protocol of COCO and
    # CLIP_benchmark.
    merge_equal_captions: bool = False

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings of images and captions."""
        return lacks_embeddings(experiment)

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `RETRIEVAL_METRICS`."""
        return RETRIEVAL_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption.

        Raises: DataError where one has none.
        """
        context.data.require_captions(self.kind)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The recalls in both directions.

        Images stored more than once are counted on the terminal.
        """
        context.data.report_repeated()
        texts = context.embed_texts(context.data.captions)
        return retrieval(
            context.images, texts, context.data, merge_equal_captions=self.merge_equal_captions
        )


def retrieval(
    images: np.ndarray,
    texts: np.ndarray,
    data: "EvaluationSet",
    *,
    merge_equal_captions: bool = True,
) -> dict[str, float]:
    """Recall@1, 5, 10, median and mean rank in both directions.

    Image to text counts a hit if any caption of the image is among the first k. Ties count against
    the model, except those of equal captions with `merge_equal_captions=False`.

    Args:
      images: [N, E] embeddings of the set's images.
      texts: [C, E] embeddings of its distinct captions.
      data: the set.
      merge_equal_captions: True: equal captions are one text, and any image that has it is a hit.
        False: each caption of each image is a text of its own, and only its own image is a hit, as
        in COCO's retrieval and CLIP_benchmark. Equal captions are ranked in the order of the set.
    Raises:
      ValueError: embeddings are not finite.
    """
    pairs = text_pairs(data, merge_equal_captions)
    texts = texts[pairs.captions]
    results: dict[str, float] = {"images": len(images), "texts": len(texts)}
    for name, queries, candidates, positives, same in (
        ("text_to_image", texts, images, pairs.images_of_text, None),
        ("image_to_text", images, texts, pairs.texts_of_image, pairs.alike),
    ):
        order = ranks(queries, candidates, positives, alike=same)
        results |= {f"{name}_recall@{k}": recall_at(order, k) for k in (1, 5, 10)}
        results[f"{name}_median_rank"] = float(np.median(order))
        results[f"{name}_mean_rank"] = float(order.mean())
        results[f"{name}_chance@1"] = chance_at_1(positives, len(candidates))
    return results


@dataclasses.dataclass(frozen=True)
class TextPairs:
    """The texts of a retrieval, and which images and texts belong together.

    Attributes:
      captions: int [T], the caption of each text, an index into `EvaluationSet.captions`.
      texts_of_image: for each image, indices of its texts.
      images_of_text: for each text, indices of its images.
      alike: as `alike` of `metrics.ranking.ranks` for the texts; None where all are different.
    """

    captions: np.ndarray
    texts_of_image: Sequence[Sequence[int]]
    images_of_text: Sequence[Sequence[int]]
    alike: np.ndarray | None


def text_pairs(data: "EvaluationSet", merge_equal_captions: bool) -> TextPairs:
    """The texts of a set: its distinct captions, or each caption of each image by itself."""
    owned = data.captions_of_image
    if merge_equal_captions:
        distinct = np.arange(len(data.images_of_caption))
        return TextPairs(distinct, owned, data.images_of_caption, None)
    captions = np.array([caption for own in owned for caption in own])
    ends = np.cumsum([len(own) for own in owned])
    texts = [range(end - len(own), end) for own, end in zip(owned, ends, strict=True)]
    images = [[image] for image, own in enumerate(owned) for _ in own]
    return TextPairs(captions, texts, images, captions)
