"""Retrieval whose first candidates are ranked again by the matching head.

The protocol is that of ALBEF (Li et al. 2021, section 3.1; `evaluation` in its Retrieval.py): the
`candidates` nearest embeddings of each query are scored by the matching head. BLIP (Li et al. 2022)
adds the similarity of the embeddings to the score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.evaluators.pair_scores import PairScorer, matching_scorer
from vlp_jax.evaluators.requirements import lacks_embeddings, lacks_head
from vlp_jax.evaluators.retrieval import TextPairs, text_pairs
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.metrics.ranking import HELD, best_rank, ranks, recall_at, similarities

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

WAYS = ("text_to_image", "image_to_text")
RERANK_METRICS = tuple(
    f"rerank_{way}_{metric}{when}"
    for way in WAYS
    for when in ("", "_before")
    for metric in ("recall@1", "recall@5", "recall@10")
) + tuple(f"rerank_{way}_found" for way in WAYS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RerankTaskConfig(TaskConfig):
    """Image-text retrieval before and after the matching head ranks the first candidates again."""

    # Number of candidates of each query; 256 for COCO and 128 for Flickr30k in ALBEF (`k_test`).
    # The fusion and the matching head run on each pair of a query and a candidate.
    candidates: int = between(16, 1)
    # BLIP's score, similarity + matching logit; False: ALBEF's, the matching logit
    add_similarity: bool = False

    def lacks(self, experiment: "Experiment") -> str | None:
        """Objectives that train the embeddings, and one with a matching head."""
        return lacks_embeddings(experiment) or lacks_head(experiment, "matching")

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `RERANK_METRICS`."""
        return RERANK_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption, and the boxes and parses where they are read.

        Raises: DataError where they are missing.
        """
        context.data.require_captions(self.kind)
        context.data.by_sample.check_graphs(context.predictor.preprocessor)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The recalls in both directions, before and after."""
        texts = context.embed_texts(context.data.captions)
        return rerank(
            context.images,
            texts,
            context.data.captions,
            text_pairs(context.data, merge_equal_captions=False),
            matching_scorer(context, context.data),
            candidates=self.candidates,
            add_similarity=self.add_similarity,
        )


def rerank(
    images: np.ndarray,
    captions: np.ndarray,
    words: Sequence[str],
    pairs: TextPairs,
    score: PairScorer,
    *,
    candidates: int,
    add_similarity: bool,
) -> dict[str, float]:
    """Recalls in both directions before and after the first candidates are ranked again.

    A candidate behind the first ones keeps its rank. Ties count against the model, except those of
    equal captions (see `metrics.ranking.ranks`).

    Args:
      images: [N, E] embeddings.
      captions: [C, E] embeddings of the distinct captions.
      words: the distinct captions.
      pairs: the texts, and which belong to which image.
      score: the matching head.
      candidates: number of first candidates.
      add_similarity: whether the similarity is added to the score.
    Returns: the `RERANK_METRICS`: "found" is the fraction of queries with a positive among the
      first candidates, the limit of any recall after, where k is at most `candidates`.
    Raises:
      ValueError: embeddings or scores are not finite.
    """
    texts = captions[pairs.captions]
    before = {
        "text_to_image": ranks(texts, images, pairs.images_of_text),
        "image_to_text": ranks(images, texts, pairs.texts_of_image, alike=pairs.alike),
    }
    first = {
        "text_to_image": nearest(texts, images, candidates),
        "image_to_text": nearest(images, texts, candidates),
    }
    asked = {
        "text_to_image": [
            (int(image), int(pairs.captions[text]))
            for text, row in enumerate(first["text_to_image"][0])
            for image in row
        ],
        "image_to_text": [
            (image, int(pairs.captions[text]))
            for image, row in enumerate(first["image_to_text"][0])
            for text in row
        ],
    }
    distinct = sorted({*asked["text_to_image"], *asked["image_to_text"]})
    scores = score([(image, words[caption]) for image, caption in distinct])
    of_pair = dict(zip(distinct, scores, strict=True))
    results: dict[str, float] = {}
    for way, positives, alike in (
        ("text_to_image", pairs.images_of_text, None),
        ("image_to_text", pairs.texts_of_image, pairs.alike),
    ):
        rows, close = first[way]
        matched = np.array([of_pair[pair] for pair in asked[way]]).reshape(rows.shape)
        total = matched + close if add_similarity else matched
        after, found = ranked_again(rows, total, positives, before[way], alike)
        for when, order in (("", after), ("_before", before[way])):
            results |= {f"rerank_{way}_recall@{k}{when}": recall_at(order, k) for k in (1, 5, 10)}
        results[f"rerank_{way}_found"] = found
    return results


def ranked_again(
    rows: np.ndarray,
    scores: np.ndarray,
    positives: Sequence[Sequence[int]],
    before: np.ndarray,
    alike: np.ndarray | None,
) -> tuple[np.ndarray, float]:
    """The rank of each query's best positive by the scores of its first candidates.

    Args:
      rows: int [Q, K], the candidates.
      scores: [Q, K], their scores.
      positives: for each query the indices of its positives.
      before: int [Q], the ranks of queries without a positive among the candidates, above K.
      alike: as of `ranks`, for all candidates.
    Returns: int [Q], and the fraction of queries with a positive among the candidates.
    """
    after, found = np.maximum(before, rows.shape[1] + 1), 0
    for query, (row, of_query) in enumerate(zip(rows, scores, strict=True)):
        order = np.argsort(row)  # copies are ranked in the order of the set, not of similarity
        own = np.flatnonzero(np.isin(row[order], positives[query]))
        if own.size:
            copies = None if alike is None else alike[row[order]]
            after[query], found = best_rank(of_query[order], own, copies), found + 1
    return after, found / len(rows)


def nearest(
    queries: np.ndarray, candidates: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar candidates of each query; of equal ones the first.

    Args:
      queries: [Q, E].
      candidates: [C, E].
      count: number K; at most C are returned.
    Returns: indices int [Q, K] and similarities float32 [Q, K], descending.
    """
    rows = max(1, HELD // len(candidates))
    found = []
    for start in range(0, len(queries), rows):
        scores = similarities(queries[start : start + rows], candidates)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        found.append((order, np.take_along_axis(scores, order, axis=1)))
    orders, values = zip(*found, strict=True)
    return np.concatenate(orders), np.concatenate(values)
