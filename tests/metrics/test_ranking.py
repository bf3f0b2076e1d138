"""Ranks and recall on cases worked out by hand."""

import numpy as np
import pytest

from vlp_jax.metrics.classification import accuracy, majority
from vlp_jax.metrics.ranking import chance_at_1, ranks, recall_at


def test_a_tie_counts_against_the_model():
    queries, candidates = np.ones((2, 1), np.float32), np.array([[1.0], [1.0], [0.5]], np.float32)
    np.testing.assert_array_equal(ranks(queries, candidates, [[0], [2]]), [2, 3])


def test_other_positives_stand_in_nobodys_way():
    queries, candidates = np.ones((1, 1), np.float32), np.array([[3.0], [3.0], [2.0], [1.0]], np.float32)
    order = ranks(queries, candidates, [[0, 1]])
    assert (recall_at(order, 1), chance_at_1([[0, 1]], 4)) == (1.0, 0.5)


def test_embeddings_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="not finite"):
        ranks(np.full((1, 2), np.nan), np.ones((1, 2)), [[0]])


def test_accuracy_needs_a_strict_winner():
    scores, labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), np.array([0, 0, 1])
    assert accuracy(scores, labels) == pytest.approx(2 / 3)
    assert majority(labels) == pytest.approx(2 / 3)
