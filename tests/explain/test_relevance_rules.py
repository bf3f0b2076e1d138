"""The rules of relevance, against the equations of Chefer et al. 2021 written out with indices."""

import numpy as np
import pytest

from vlp_jax.explain.relevance_rules import (
    averaged,
    cross_attention,
    identity_of,
    joined,
    normalised,
    self_attention,
)
from vlp_jax.explain.rollout import rollout

RNG = np.random.default_rng(0)
TEXT, IMAGE, HEADS = 3, 4, 2


def drawn(*shape):
    return RNG.random(shape)


def product(first, second):
    """A matrix product by its definition."""
    rows, columns = len(first), len(second[0])
    return np.array(
        [
            [sum(first[i][k] * second[k][j] for k in range(len(second))) for j in range(columns)]
            for i in range(rows)
        ]
    )


def test_attention_is_averaged_over_heads_without_negative_contributions():
    weights, gradients = drawn(1, HEADS, TEXT, IMAGE), RNG.normal(size=(1, HEADS, TEXT, IMAGE))
    expected = [
        [
            sum(max(weights[0, h, i, j] * gradients[0, h, i, j], 0) for h in range(HEADS)) / HEADS
            for j in range(IMAGE)
        ]
        for i in range(TEXT)
    ]
    np.testing.assert_allclose(averaged(weights, gradients)[0], expected, rtol=1e-12)


def test_rows_have_sum_one_next_to_the_identity_and_zero_rows_stay():
    relevance = np.eye(TEXT) + drawn(TEXT, TEXT)
    relevance[1] = np.eye(TEXT)[1]
    found = normalised(relevance[None])[0]
    rest = relevance - np.eye(TEXT)
    for row in (0, 2):
        np.testing.assert_allclose(
            found[row], rest[row] / rest[row].sum() + np.eye(TEXT)[row], rtol=1e-12
        )
    assert found[1].tolist() == [0.0, 1.0, 0.0]


def test_self_attention_adds_to_all_matrices_of_the_stream():
    own, other, weights = drawn(TEXT, TEXT), drawn(TEXT, IMAGE), drawn(TEXT, TEXT)
    image = drawn(IMAGE, IMAGE)
    relevance = {
        ("text", "text"): own[None],
        ("text", "image"): other[None],
        ("image", "image"): image[None],
    }
    found = self_attention(relevance, "text", weights[None])
    np.testing.assert_allclose(found["text", "text"][0], own + product(weights, own))
    np.testing.assert_allclose(found["text", "image"][0], other + product(weights, other))
    assert found["image", "image"] is relevance["image", "image"]


def test_cross_attention_is_that_of_the_equations():
    text, image = np.eye(TEXT) + drawn(TEXT, TEXT), np.eye(IMAGE) + drawn(IMAGE, IMAGE)
    crossed, back, weights = drawn(TEXT, IMAGE), drawn(IMAGE, TEXT), drawn(TEXT, IMAGE)
    relevance = {
        ("text", "text"): text[None],
        ("image", "image"): image[None],
        ("text", "image"): crossed[None],
        ("image", "text"): back[None],
    }
    found = cross_attention(relevance, "text", "image", weights[None], relevance)

    def bar(matrix):
        rest = matrix - np.eye(len(matrix))
        return rest / rest.sum(axis=1, keepdims=True) + np.eye(len(matrix))

    eleven = crossed + product(bar(text).T, product(weights, bar(image)))
    np.testing.assert_allclose(found["text", "image"][0], eleven, rtol=1e-12)
    np.testing.assert_allclose(found["text", "text"][0], text + product(weights, back), rtol=1e-12)


def test_streams_that_are_concatenated_are_blocks():
    found = joined([identity_of(1, 2), np.full((2, 2, 2), 3.0)])
    assert found[1].tolist() == [[1, 0, 0], [0, 3, 3], [0, 3, 3]]


def test_rollout_is_the_product_of_averages_with_the_identity():
    layers = [drawn(TEXT, TEXT) for _ in range(3)]
    layers = [layer / layer.sum(axis=1, keepdims=True) for layer in layers]
    expected = np.eye(TEXT)
    for layer in layers:
        expected = product((layer + np.eye(TEXT)) / 2, expected)
    found = rollout([layer[None] for layer in layers])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_one_layer_of_rollout_keeps_the_order_of_attention(seed):
    weights = np.random.default_rng(seed).dirichlet(np.ones(TEXT), size=TEXT)
    others = rollout([weights[None]])[0][0, 1:]
    assert np.argsort(others).tolist() == np.argsort(weights[0, 1:]).tolist()
