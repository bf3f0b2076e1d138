"""Generation against exhaustive enumeration and closed frequencies."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.models.generation import beam_search, greedy, keep_top_k, keep_top_p, sample

V, LENGTH, END, PADDING, START = 4, 4, 1, 0, 2
RNG = np.random.default_rng(5)
HISTORY = jnp.asarray(2.0 * RNG.normal(size=(V + 1,) * 5), jnp.float32)  # log-weights by what came before; V: nothing yet


def step(state, tokens):
    """A model that knows its last three tokens: state [B, 3] int32; logits [B, V]."""
    state = jnp.concatenate([state[:, 1:], tokens[:, None]], axis=1)
    return HISTORY[state[:, 0], state[:, 1], state[:, 2], 0, :V], state


def fresh(rows):
    return jnp.full((rows, 3), V, jnp.int32)


def enumerated(penalty):
    """{score: tokens} of every text of up to LENGTH tokens that ends, or has LENGTH, in float64."""
    texts = {}
    for text in itertools.product(range(V), repeat=LENGTH):
        text = text[:text.index(END) + 1] if END in text else text
        state, total = [V, V, START], 0.0
        for token in text:
            logits = np.asarray(HISTORY, np.float64)[*state][0, :V]
            total += logits[token] - np.log(np.exp(logits).sum())
            state = [*state[1:], token]
        texts[text] = total / len(text)**penalty
    return sorted(texts.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beam_search_finds_the_best_texts_of_all(penalty):
    beams = 64 if penalty else 40
    run = jax.jit(lambda: beam_search(step, fresh(2), jnp.full(2, START), LENGTH, END, PADDING, beams,
                                      lambda state, rows: state[rows], penalty))
    texts, scores = run()
    expected = enumerated(penalty)[:5]
    for row in range(2):
        np.testing.assert_allclose(scores[row, :5], [score for _, score in expected], rtol=1e-5)
        for found, (text, _) in zip(np.asarray(texts[row]), expected, strict=False):
            assert tuple(found) == text + (PADDING,) * (LENGTH - len(text))


def test_a_beam_of_one_is_greedy_and_nothing_stands_behind_the_end():
    starts = jnp.asarray([0, 1, 2, 3])
    expected = jax.jit(lambda: greedy(step, fresh(4), starts, 8, END, PADDING))()
    found, _ = jax.jit(lambda: beam_search(step, fresh(4), starts, 8, END, PADDING, 1, lambda state, rows: state[rows]))()
    np.testing.assert_array_equal(found[:, 0], expected)
    ended = np.cumsum(np.asarray(expected) == END, axis=1) - (np.asarray(expected) == END)
    assert ended.any() and (np.asarray(expected)[ended > 0] == PADDING).all()


def test_top_k_and_top_p_keep_the_likeliest():
    probabilities = np.array([[0.5, 0.1, 0.15, 0.25], [0.05, 0.9, 0.03, 0.02]])
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))
    np.testing.assert_array_equal(keep_top_k(logits, 2) > -1e3, [[1, 0, 0, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(keep_top_p(logits, 0.74) > -1e3, [[1, 0, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(keep_top_p(logits, 0.76) > -1e3, [[1, 0, 1, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(keep_top_p(logits, 0.0) > -1e3, [[1, 0, 0, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize(("choice", "kept"), [({}, [0, 1, 2, 3]), ({"top_k": 2}, [0, 3]), ({"top_p": 0.76}, [0, 2, 3]),
                                              ({"temperature": 0.5, "top_k": 3}, [0, 2, 3])])
def test_draws_have_the_renormalised_frequencies_of_what_is_allowed(choice, kept):
    probabilities, rows, count = np.array([0.5, 0.1, 0.15, 0.25]), 2000, 4
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))

    def same(state, tokens):
        return jnp.broadcast_to(logits, (rows, 4)), state

    drawn = np.asarray(jax.jit(lambda: sample(same, None, jnp.zeros(rows), count, 9, 9, jax.random.key(0), **choice))())
    expected = np.where(np.isin(range(4), kept), probabilities, 0)**(1 / choice.get("temperature", 1.0))
    expected = expected / expected.sum()
    found = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    assert (found[expected == 0] == 0).all()
    assert (np.abs(found - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / drawn.size) + 1e-12).all(), (found, expected)
