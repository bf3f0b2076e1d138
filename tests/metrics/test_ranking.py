"""Ranks and recall against a slow rewriting of their definition, and on cases worked out by
hand."""

import numpy as np
import pytest

from vlp_jax.metrics.ranking import chance_at_1, ranks, recall_at, similarities


def ranks_by_definition(queries, candidates, positives):
    """One place behind every candidate that is no positive and is at least as similar as the
    query's best positive."""
    result = []
    for query, own in zip(queries, positives, strict=True):
        scores = [float(np.dot(query, candidate)) for candidate in candidates]
        best = max(scores[j] for j in own)
        result.append(1 + sum(score >= best for j, score in enumerate(scores) if j not in own))
    return result


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_ranks_are_what_the_definition_says_with_many_ties_and_several_positives(seed, rows):
    rng = np.random.default_rng(seed)
    # small integers tie exactly
    queries, candidates = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (25, 40))
    positives = [rng.choice(40, rng.integers(1, 5), replace=False).tolist() for _ in queries]
    expected = ranks_by_definition(queries, candidates, positives)
    np.testing.assert_array_equal(ranks(queries, candidates, positives, rows), expected)


def test_a_tie_counts_against_the_model():
    queries, candidates = np.ones((2, 1), np.float32), np.array([[1.0], [1.0], [0.5]], np.float32)
    np.testing.assert_array_equal(ranks(queries, candidates, [[0], [2]]), [2, 3])


@pytest.mark.parametrize("count", [100, 1690, 1693])
@pytest.mark.parametrize("dim", [64, 192, 513])
def test_a_collapsed_model_ranks_last_however_the_matrix_product_rounds(count, dim):
    vector = np.random.default_rng(0).normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    queries, candidates = np.tile(vector, (70, 1)), np.tile(vector, (count, 1))
    order = ranks(queries, candidates, [[i] for i in range(70)])
    assert set(order) == {count}
    assert len(np.unique(similarities(queries, candidates))) == 1


def test_other_positives_stand_in_nobodys_way():
    queries, candidates = (
        np.ones((1, 1), np.float32),
        np.array([[3.0], [3.0], [2.0], [1.0]], np.float32),
    )
    order = ranks(queries, candidates, [[0, 1]])
    assert (recall_at(order, 1), chance_at_1([[0, 1]], 4)) == (1.0, 0.5)
    np.testing.assert_array_equal(ranks(queries, candidates, [[2, 3]]), [3])


def test_a_positive_named_twice_counts_once():
    queries, candidates = np.ones((1, 1), np.float32), np.array([[1.0], [2.0], [0.0]], np.float32)
    np.testing.assert_array_equal(ranks(queries, candidates, [[0, 0]]), [2])
    assert chance_at_1([[0, 0]], 3) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["queries", "candidates"])
def test_embeddings_that_are_not_finite_are_an_error(side, value):
    arrays = {"queries": np.ones((3, 2), np.float32), "candidates": np.ones((4, 2), np.float32)}
    arrays[side][1, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        ranks(**arrays, positives=[[0]] * 3)


def test_a_query_without_positives_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="query 2 has no positive"):
        ranks(np.ones((3, 2)), np.ones((4, 2)), [[0], [1], []], rows=2)


def test_recall_counts_ranks_up_to_k():
    order = np.array([1, 2, 5, 6, 11])
    assert [recall_at(order, k) for k in (1, 5, 10)] == [0.2, 0.6, 0.8]


def test_chance_is_what_random_embeddings_reach():
    rng = np.random.default_rng(0)
    positives = [rng.choice(6, rng.integers(1, 4), replace=False).tolist() for _ in range(3000)]
    order = [ranks(rng.normal(size=(1, 4)), rng.normal(size=(6, 4)), [own])[0] for own in positives]
    # four standard deviations
    assert abs(recall_at(np.array(order), 1) - chance_at_1(positives, 6)) < 0.035
