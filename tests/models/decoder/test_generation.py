"""Generation against exhaustive enumeration and closed frequencies."""

import ast
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.models.decoder.generation import (
    BeamSearch,
    beam_search,
    greedy,
    keep_top_k,
    keep_top_p,
    sample,
)

V, LENGTH, END, PADDING, START = 4, 4, 1, 0, 2
RNG = np.random.default_rng(5)
# log-weights by what came before; V: nothing yet
HISTORY = jnp.asarray(2.0 * RNG.normal(size=(V + 1,) * 5), jnp.float32)


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
        text = text[: text.index(END) + 1] if END in text else text
        state, total = [V, V, START], 0.0
        for token in text:
            logits = np.asarray(HISTORY, np.float64)[*state][0, :V]
            total += logits[token] - np.log(np.exp(logits).sum())
            state = [*state[1:], token]
        texts[text] = total / len(text) ** penalty
    return sorted(texts.items(), key=lambda item: -item[1])


def run_beams(length, **search):
    """Texts and scores for two rows that begin with START."""
    return jax.jit(
        lambda: beam_search(
            step,
            fresh(2),
            jnp.full(2, START),
            length,
            END,
            PADDING,
            BeamSearch(**search),
            lambda state, rows: state[rows],
        )
    )()


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beam_search_finds_the_best_texts_of_all(penalty):
    texts, scores = run_beams(LENGTH, num_beams=64, length_penalty=penalty, early_stopping="never")
    expected = enumerated(penalty)[:5]
    for row in range(2):
        np.testing.assert_allclose(scores[row, :5], [score for _, score in expected], rtol=1e-5)
        for found, (text, _) in zip(np.asarray(texts[row]), expected, strict=False):
            assert tuple(found) == text + (PADDING,) * (LENGTH - len(text))


GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden/beam_search.npz")
CASES = sorted(
    name.removeprefix("texts_").rsplit("_", 2)[0]
    for name in GOLDEN.files
    if name.startswith("texts_")
)


@pytest.mark.variants
@pytest.mark.parametrize("case", sorted(set(CASES)))
def test_beam_search_is_that_of_transformers_with_few_beams_and_long_texts(case):
    """Golden: tests/golden/make_beam_search.py.

    Each row has a table of its own; in some an unfinished text overtakes.
    """
    num_beams, length = map(int, case.split("_"))
    tables = jnp.asarray(GOLDEN["tables"])
    rows, unknown = len(tables), tables.shape[1] - 1

    def look_up(state, tokens):
        row, past = state
        past = jnp.concatenate([past[:, 1:], tokens[:, None]], axis=1)
        return tables[row, past[:, 0], past[:, 1], past[:, 2]], (row, past)

    state = jnp.arange(rows), jnp.full((rows, 3), unknown)

    def run(search):
        return beam_search(
            look_up,
            state,
            jnp.full(rows, unknown),
            length,
            1,
            0,
            search,
            lambda state, rows: (state[0][rows], state[1][rows]),
        )

    run = jax.jit(run, static_argnums=0)
    for name in (
        name.removeprefix("texts_") for name in GOLDEN.files if name.startswith(f"texts_{case}_")
    ):
        penalty, early = name.split("_")[2:]
        # all of them for one size: each is compiled
        if penalty != "0.6" and (num_beams, length) != (3, 12):
            continue
        search = BeamSearch(
            num_beams=num_beams,
            length_penalty=float(penalty),
            early_stopping=ast.literal_eval(early if early in ("True", "False") else repr(early)),
        )
        texts, scores = run(search)
        np.testing.assert_array_equal(texts, GOLDEN[f"texts_{name}"], err_msg=name)
        np.testing.assert_allclose(scores, GOLDEN[f"scores_{name}"], rtol=1e-5, err_msg=name)


def test_a_finished_text_that_unfinished_ones_overtake_is_not_forgotten():
    """The end is the likeliest first token.

    After the second, both unfinished beams are better for their length; then every token is as
    unlikely, and the best text of all, by exhaustive search, is the shortest.
    """
    first = np.log([1e-9, 0.36, 0.33, 0.31, *[1e-9] * 4])
    second = np.log([1e-9, 1e-9, 0.5, 0.5, *[1e-9] * 4])
    tables = np.stack([first, second, np.full(8, -np.log(8)), np.full(8, -np.log(8))])
    length = len(tables)

    def look_up(state, tokens):
        return jnp.asarray(tables, jnp.float32)[state], state + 1

    texts, scores = jax.jit(
        lambda: beam_search(
            look_up,
            jnp.zeros(1, jnp.int32),
            jnp.zeros(1),
            length,
            END,
            PADDING,
            BeamSearch(num_beams=2, early_stopping="never"),
            lambda state, rows: state[rows],
        )
    )()

    def total(text):
        return tables[np.arange(len(text)), list(text)].sum() / len(text)

    assert total((2, 3)) > total((END,))
    every = {
        text[: text.index(END) + 1] if END in text else text
        for text in itertools.product(range(8), repeat=length)
    }
    best = max(every, key=total)
    assert best == (END,) and tuple(np.asarray(texts)[0, 0]) == best + (PADDING,) * (length - 1)
    np.testing.assert_allclose(scores[0, 0], total(best), rtol=1e-5)


def test_a_beam_of_one_is_greedy_and_nothing_stands_behind_the_end():
    starts = jnp.asarray([0, 1, 2, 3])
    expected = jax.jit(lambda: greedy(step, fresh(4), starts, 8, END, PADDING))()
    search = BeamSearch(early_stopping=True)
    found, _ = jax.jit(
        lambda: beam_search(
            step, fresh(4), starts, 8, END, PADDING, search, lambda state, rows: state[rows]
        )
    )()
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


@pytest.mark.variants
@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 3]),
        ({"top_p": 0.76}, [0, 2, 3]),
        ({"temperature": 0.5, "top_k": 3}, [0, 2, 3]),
    ],
)
def test_draws_have_the_renormalised_frequencies_of_what_is_allowed(choice, kept):
    probabilities, rows, count = np.array([0.5, 0.1, 0.15, 0.25]), 2000, 4
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))

    def same(state, tokens):
        return jnp.broadcast_to(logits, (rows, 4)), state

    drawn = np.asarray(
        jax.jit(
            lambda: sample(same, None, jnp.zeros(rows), count, 9, 9, jax.random.key(0), **choice)
        )()
    )
    expected = np.where(np.isin(range(4), kept), probabilities, 0) ** (
        1 / choice.get("temperature", 1.0)
    )
    expected = expected / expected.sum()
    found = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    assert (found[expected == 0] == 0).all()
    assert (
        np.abs(found - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / drawn.size) + 1e-12
    ).all(), (found, expected)
