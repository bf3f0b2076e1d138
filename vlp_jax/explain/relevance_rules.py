"""Rules by which relevance passes through attention (Chefer et al. 2021, "Generic
Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers").

A relevance matrix of streams s and q, float64 [B, N, M], holds for each token of s how relevant
each token of q is to it. It begins as the identity of a stream with itself, and as zeros of two.
"""

from collections.abc import Mapping

import numpy as np

Relevance = dict[tuple[str, str], np.ndarray]


def averaged(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The mean over heads of the positive part of gradient times weight (equation 5): [B, H, N, M]
    -> [B, N, M]."""
    return np.maximum(weights * gradients, 0.0).mean(axis=1)


def normalised(relevance: np.ndarray) -> np.ndarray:
    """A stream's relevance to itself with rows of sum 1 next to the identity (equations 8 and 9);
    rows of zeros stay so."""
    identity = np.eye(relevance.shape[-1])
    rest = relevance - identity
    total = rest.sum(axis=-1, keepdims=True)
    return np.divide(rest, total, out=np.zeros_like(rest), where=total > 0) + identity


def self_attention(relevance: Relevance, stream: str, weights: np.ndarray) -> Relevance:
    """Self-attention of a stream (equations 6 and 7): R += A R, of all matrices of the stream.

    Args:
      relevance: the matrices before.
      stream: its name.
      weights: A [B, N, N], as of `averaged`.
    """
    return relevance | {
        (own, other): matrix + weights @ matrix
        for (own, other), matrix in relevance.items()
        if own == stream
    }


def cross_attention(
    relevance: Relevance,
    stream: str,
    memory: str,
    weights: np.ndarray,
    before: Mapping[tuple[str, str], np.ndarray],
    seen: np.ndarray | None = None,
) -> Relevance:
    """Attention of a stream s to a memory q (equations 10 and 11): R_sq += R'_ss^T A R'_qq and
    R_ss += A R_qs, R' being normalised.

    Args:
      relevance: the matrices before.
      stream, memory: s and q.
      weights: A [B, N, M].
      before: the matrices of the memory's tokens as they were when s read them.
      seen: R'_qq where the memory's tokens are not those of q; None: it is normalised from
        `before`.
    """
    inner = normalised(before[memory, memory]) if seen is None else seen
    own = normalised(relevance[stream, stream]).swapaxes(1, 2)
    crossed = relevance[stream, memory] + own @ (weights @ inner)
    found = relevance | {(stream, memory): crossed}
    if (memory, stream) in before:
        found[stream, stream] = relevance[stream, stream] + weights @ before[memory, stream]
    return found


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The relevance of streams that are concatenated into one: block diagonal, [B, N, N]."""
    sizes = [part.shape[1] for part in parts]
    whole = np.zeros((len(parts[0]), sum(sizes), sum(sizes)))
    begin = 0
    for part, size in zip(parts, sizes, strict=True):
        whole[:, begin : begin + size, begin : begin + size] = part
        begin += size
    return whole


def identity_of(count: int, batch: int) -> np.ndarray:
    """The identity [B, count, count]."""
    return np.tile(np.eye(count), (batch, 1, 1))
