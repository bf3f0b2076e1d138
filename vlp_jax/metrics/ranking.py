"""Retrieval metrics. Ties always count against the model."""

from collections.abc import Sequence

import numpy as np


def similarities(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Inner products [Q, C], float32, of [Q, E] and [C, E]. Multiplied in float64 and then rounded: in float32 the matrix
    product rounds equal candidates differently by their place, and what should tie does not."""
    return (queries.astype(np.float64) @ candidates.astype(np.float64).T).astype(np.float32)


def ranks(queries: np.ndarray, candidates: np.ndarray, positives: Sequence[Sequence[int]], rows: int = 1024,
          alike: Sequence[int] | None = None) -> np.ndarray:
    """The rank, from 1, of each query's best positive among the candidates.

    queries: [Q, E], candidates: [C, E]; compared by `similarities`. positives: for each query the indices of its
      candidates, at least one. A candidate that is no positive stands before a positive of the same similarity; a query's
      other positives stand in nobody's way.
    alike: a number of each candidate [C]; those with the same one are the same thing several times, tie of necessity, and are
      ranked in their order instead, as a stable sort has them. None: no two are.
    Returns: int64 [Q]. rows: how many queries are compared at a time.
    Raises: ValueError for a query without positives, and for embeddings that are not finite.
    """
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ValueError("embeddings are not finite")
    result = np.empty(len(queries), np.int64)
    alike = None if alike is None else np.asarray(alike)
    for start in range(0, len(queries), rows):
        for row, scores in enumerate(similarities(queries[start:start + rows], candidates), start=start):
            own = np.unique(np.asarray(positives[row], np.int64))
            if not own.size:
                raise ValueError(f"query {row} has no positive")
            best = scores[own].max()
            result[row] = 1 + (scores >= best).sum() - (scores[own] >= best).sum()
            if alike is not None:
                result[row] -= max(later_alike(place, own, alike) for place in own[scores[own] == best])
    return result


def later_alike(place: int, own: np.ndarray, alike: np.ndarray) -> int:
    """How many candidates behind a positive are the same thing, and no positives themselves."""
    same = np.flatnonzero(alike[place + 1:] == alike[place]) + place + 1
    return len(same) - np.isin(same, own).sum()


def recall_at(ranks_of_queries: np.ndarray, k: int) -> float:
    """The fraction of queries with a positive among the first k."""
    return float((ranks_of_queries <= k).mean())


def chance_at_1(positives: Sequence[Sequence[int]], candidates: int) -> float:
    """Recall@1 of a random order: the mean over queries of positives / candidates."""
    return float(np.mean([len(set(own)) for own in positives]) / candidates)
