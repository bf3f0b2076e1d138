"""Image-text retrieval over the distinct captions of a set."""

import numpy as np

from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.metrics.ranking import chance_at_1, ranks, recall_at

RETRIEVAL_METRICS = ("images", "texts", *(f"{way}_{metric}" for way in ("text_to_image", "image_to_text")
                                          for metric in ("recall@1", "recall@5", "recall@10", "median_rank", "chance@1")))


def retrieval(images: np.ndarray, texts: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Recall@1, 5, 10 and median rank both ways.

    images: [N, E] embeddings of the set's pictures; texts: [C, E] of its distinct captions.
    Text to image: a hit if any picture bearing the caption is among the first k. Image to text: if any caption of the
    picture is. Ties count against. Raises: ValueError for embeddings that are not finite.
    """
    results: dict[str, float] = {"images": len(images), "texts": len(texts)}
    directions = (("text_to_image", texts, images, data.images_of_caption),
                  ("image_to_text", images, texts, data.captions_of_image))
    for name, queries, candidates, positives in directions:
        order = ranks(queries, candidates, positives)
        results |= {f"{name}_recall@{k}": recall_at(order, k) for k in (1, 5, 10)}
        results[f"{name}_median_rank"] = float(np.median(order))
        results[f"{name}_chance@1"] = chance_at_1(positives, len(candidates))
    return results
