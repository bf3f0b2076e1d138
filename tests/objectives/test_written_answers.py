"""Answers that the decoder writes: against a loop without a cache, and against all texts that there
are."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_answers import DECODERS, batch, config_of, log_p, logits_of, started

from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh, replicated
from vlp_jax.sharding.rules import build_layout

# LENGTH: of the target, so that LENGTH - 1 tokens are written
V, START, END, PADDING, LENGTH = 6, 1, 2, 0, 5
TARGET = dict(kind="text", field="answer", classes=5, length=LENGTH)
# seeds by which answers differ, some of them short
DRAWN = {"transformer": (6, 1.0), "lstm": (15, 2.0), "gru": (17, 1.0)}
EVERY_TEXT = np.array(list(itertools.product(range(V), repeat=LENGTH - 1)), np.int32)
each_decoder = pytest.mark.parametrize(
    "decoder", ["transformer", "lstm", pytest.param("gru", marks=pytest.mark.slow)]
)


@functools.cache
def model_of(decoder):
    spec = DECODERS[decoder] | (dict(tied=False) if decoder == "transformer" else {})
    module, variables = started(config_of(spec, target=TARGET, vocab_size=V))
    seed, kernels = DRAWN[decoder]
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        std = {"bias": 0.1, "scale": 0.0, "kernel": kernels}.get(path[-1].key, 1.0)
        return jnp.asarray(
            std * rng.normal(size=leaf.shape) + (path[-1].key == "scale"), leaf.dtype
        )

    return module, jax.tree_util.tree_map_with_path(draw, variables)


def given_batch():
    given = batch()
    return {**given, "text": given["text"] % V, "image": given["image"] / np.float32(255)}


def search_of(num_beams):
    """The rule whose scores are plain log-probabilities."""
    return BeamSearch(num_beams=num_beams, length_penalty=0.0, early_stopping="never")


@functools.cache
def writer(decoder, num_beams):
    module, variables = model_of(decoder)
    search = search_of(num_beams)
    return jax.jit(
        lambda given: module.apply(
            variables, "answer", given, START, END, PADDING, search, method="write_answers"
        )
    )


def written(decoder, given, num_beams=1):
    return np.asarray(writer(decoder, num_beams)(given))


def cut(text):
    """Up to the first END, with PADDING behind it."""
    ends = np.flatnonzero(text == END)
    return (
        tuple(text)
        if not ends.size
        else (*text[: ends[0] + 1], *[PADDING] * (len(text) - ends[0] - 1))
    )


def every_total(decoder, given):
    """[{text: log p}], float64, of every text that can be written, for each row; teacher-forced."""
    module, variables = model_of(decoder)

    def logits(module, texts):
        fused = module.encode(given, {"fused"}, False)["fused"]
        model, inner = module.model.clone(parent=None), module.model.variables
        rows = len(fused.tokens)
        return jax.lax.map(
            lambda ids: model.apply(inner, fused, jnp.tile(ids, (rows, 1)), method="answer"), texts
        )

    texts = np.concatenate([np.full((len(EVERY_TEXT), 1), START), EVERY_TEXT], axis=1).astype(
        np.int32
    )
    found = log_p(
        np.asarray(
            jax.jit(lambda texts: module.apply(variables, texts, method=logits))(texts), np.float64
        )
    )
    # [texts, rows, LENGTH - 1]
    gains = np.take_along_axis(found[:, :, :-1], EVERY_TEXT[:, None, :, None], axis=-1)[..., 0]
    before = np.cumsum(EVERY_TEXT == END, axis=1) - (EVERY_TEXT == END)
    sums = np.where((before == 0)[:, None], gains, 0.0).sum(axis=-1)
    return [
        dict(zip(map(cut, EVERY_TEXT), sums[:, row], strict=True)) for row in range(sums.shape[1])
    ]


@pytest.mark.full
@each_decoder
def test_the_likeliest_words_are_those_of_a_loop_that_reads_the_whole_text_before_each(decoder):
    given, (module, variables) = given_batch(), model_of(decoder)
    found, rows = written(decoder, given), len(given["text"])
    text = np.full((rows, LENGTH), PADDING, np.int32)
    text[:, 0] = START
    for place in range(LENGTH - 1):
        logits = logits_of(module, variables, {**given, "image": given["image"] * 255.0}, text)[
            :, place
        ]
        ended = (text[:, 1:] == END).any(axis=1)
        text[:, place + 1] = np.where(ended, PADDING, logits.argmax(axis=-1))
    np.testing.assert_array_equal(found, text[:, 1:])
    assert (
        found.shape == (rows, LENGTH - 1)
        and len(np.unique(found, axis=0)) > 3
        and (found[:, :-1] == END).any()
    )


@pytest.mark.full
@each_decoder
def test_a_narrow_beam_finds_a_text_and_as_many_beams_as_beginnings_find_the_likeliest(decoder):
    given = given_batch()
    totals, one, two, all_of_them = (
        every_total(decoder, given),
        *(written(decoder, given, num_beams) for num_beams in (1, 2, V**3)),
    )
    improved = 0
    for row, known in enumerate(totals):
        best = max(known.values())
        assert known[tuple(all_of_them[row])] == pytest.approx(best, abs=1e-5)
        for text in (one[row], two[row]):
            assert known[tuple(text)] <= best + 1e-6
        improved += known[tuple(all_of_them[row])] > known[tuple(one[row])] + 1e-3
    assert improved > 0


@pytest.mark.full
@each_decoder
def test_neither_what_stands_in_the_padding_of_a_text_nor_other_rows_change_an_answer(decoder):
    given = given_batch()
    found, mask = written(decoder, given), given["text_mask"]
    assert (~mask).any()
    hidden = (given["text"] + 1 + np.arange(mask.size).reshape(mask.shape) % (V - 1)) % V
    np.testing.assert_array_equal(
        written(decoder, given | {"text": np.where(mask, given["text"], hidden).astype(np.int32)}),
        found,
    )
    shown = written(
        decoder, given | {"text": np.where(mask, hidden, given["text"]).astype(np.int32)}
    )
    assert (shown != found).any()  # of what is no padding it does
    backwards = {name: rows[::-1] for name, rows in given.items()}
    np.testing.assert_array_equal(written(decoder, backwards), found[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("decoder", ["transformer", "lstm"])
def test_over_a_mesh_the_answers_are_those_of_one_device(decoder, num_beams):
    given, (module, variables) = given_batch(), model_of(decoder)

    def write(variables, given):
        return module.apply(
            variables,
            "answer",
            given,
            START,
            END,
            PADDING,
            search_of(num_beams),
            method="write_answers",
        )

    spec = MeshConfig(data=4, fsdp=2, replicate_below=0)
    mesh = build_mesh(spec)
    with layout_in_use(build_layout(spec, mesh)):
        placed = (
            jax.device_put(variables, replicated(mesh)),
            jax.device_put(given, batch_sharding(mesh)),
        )
        found = jax.jit(write, out_shardings=replicated(mesh))(*placed)
    np.testing.assert_array_equal(found, written(decoder, given, num_beams))
