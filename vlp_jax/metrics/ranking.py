"""Retrieval metrics. Ties always count against the model."""

from collections.abc import Sequence

import numpy as np

HELD = 2**26  # similarities in memory at a time, 256 MiB
COLUMNS = 8192  # candidates that are compared at a time


def similarities(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Inner products of queries and candidates.

    They are computed in float64 and then rounded. In float32, the matrix product rounds equal
    candidates differently depending on their position, so that exact ties would be lost.

    Args:
      queries: [Q, E].
      candidates: [C, E].

    Returns: [Q, C], float32.
    """
    exact = queries.astype(np.float64)
    scores = np.empty((len(queries), len(candidates)), np.float32)
    for start in range(0, len(candidates), COLUMNS):
        columns = slice(start, start + COLUMNS)
        scores[:, columns] = exact @ candidates[columns].astype(np.float64).T
    return scores


def ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    positives: Sequence[Sequence[int]],
    rows: int | None = None,
    alike: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """The rank, from 1, of each query's best positive among the candidates.

    A candidate that is not a positive ranks before a positive with the same similarity. The other
    positives of a query do not affect its rank.

    Args:
      queries: [Q, E], compared with the candidates by `similarities`.
      candidates: [C, E].
      positives: for each query the indices of its candidates, at least one.
      rows: number of queries that are compared at a time. Default: so many that their similarities
        take 256 MiB.
      alike: [C], a number for each candidate. Candidates with the same number are copies of one
        thing and tie necessarily; they are ranked in their order, as by a stable sort. None: there
        are no copies.

    Returns: [Q], int64.

    Raises:
      ValueError: if a query has no positives, or if embeddings are not finite.
    """
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ValueError("embeddings are not finite")
    result = np.empty(len(queries), np.int64)
    rows = rows or max(1, HELD // max(len(candidates), 1))
    copies = None if alike is None else np.asarray(alike)
    for start in range(0, len(queries), rows):
        for row, scores in enumerate(
            similarities(queries[start : start + rows], candidates), start=start
        ):
            own = np.unique(np.asarray(positives[row], np.int64))
            if not own.size:
                raise ValueError(f"query {row} has no positive")
            result[row] = best_rank(scores, own, copies)
    return result


def best_rank(scores: np.ndarray, own: np.ndarray, copies: np.ndarray | None = None) -> int:
    """The rank, from 1, of the best positive of one query (see `ranks`).

    Args:
      scores: [C], float, of the candidates.
      own: int, indices of the positives, each once, at least one.
      copies: [C], as `alike` of `ranks`.
    """
    best = scores[own].max()
    rank = 1 + (scores >= best).sum() - (scores[own] >= best).sum()
    if copies is not None:
        rank -= max(later_alike(place, own, copies) for place in own[scores[own] == best])
    return int(rank)


def later_alike(place: int, own: np.ndarray, alike: np.ndarray) -> int:
    """The number of candidates after a positive that are copies of it and not positives
    themselves."""
    same = np.flatnonzero(alike[place + 1 :] == alike[place]) + place + 1
    return len(same) - np.isin(same, own).sum()


def recall_at(ranks_of_queries: np.ndarray, k: int) -> float:
    """The fraction of queries with a positive among the first k."""
    return float((ranks_of_queries <= k).mean())


def chance_at_1(positives: Sequence[Sequence[int]], candidates: int) -> float:
    """Recall@1 of a random order: the mean over queries of positives / candidates."""
    return float(np.mean([len(set(own)) for own in positives]) / candidates)
