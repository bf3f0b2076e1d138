"""How well an image and a text fit, by their embeddings or by the matching head."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.evaluators.pair_encoder import PairScores

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet

# (index of an image, text) pairs -> float64 [N], higher for pairs that fit better
PairScorer = Callable[[Sequence[tuple[int, str]]], np.ndarray]


def matching_scorer(context: "TaskContext", data: "EvaluationSet") -> PairScorer:
    """The logit of "match" of the matching head, as in ALBEF's Retrieval.py."""
    encoder = context.predictor.pair_encoder
    match = (
        context.ask(context.predictor, data)
        if encoder is None
        else PairScores(context, data, encoder)
    )
    return lambda pairs: finite(match(pairs)[:, 1].astype(np.float64))


def embedding_scorer(context: "TaskContext", data: "EvaluationSet") -> PairScorer:
    """The inner product of the embeddings."""

    def score(pairs: Sequence[tuple[int, str]]) -> np.ndarray:
        images, places = context.features(data).astype(np.float64), {}
        for _, text in pairs:
            places.setdefault(text, len(places))
        texts = context.embed_texts(list(places)).astype(np.float64)
        rows = np.array([number for number, _ in pairs])
        columns = np.array([places[text] for _, text in pairs])
        # rounded, so that equal embeddings tie whatever the order of the sum
        return finite(np.einsum("ne,ne->n", images[rows], texts[columns]).astype(np.float32))

    return score


def finite(scores: np.ndarray) -> np.ndarray:
    """`scores`, float64.

    Raises:
      ValueError: scores are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores of pairs are not finite")
    return scores.astype(np.float64)
