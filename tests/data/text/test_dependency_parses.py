"""Edges between tokens from a parse of words: against the words that the tokenizers library counts,
and every pair of tokens."""

import numpy as np
import pytest
import tokenizers

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.text.dependency_parses import DependenciesConfig, parses_in
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.data.text.train_tokenizer import KINDS, train_tokenizer

SPEC = DependenciesConfig(field="d")
TEXTS = ["an unbelievably long caterpillar smiling", "a red-hot face, smiling", "caterpillar"]
PARSES = [[[3, 0], [2, 1], [3, 2], [3, 4]], [[5, 0], [5, 1], [1, 3]], []]


def preprocessor_of(kind, folder, length):
    """A vocabulary so small that most words are of several tokens."""
    path = folder / ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json")
    path.write_bytes(
        train_tokenizer(TEXTS * 3, {"bpe": 275, "wordpiece": 60, "sentencepiece": 285}[kind], kind)
    )
    names = KINDS[kind]
    text = TextConfig(
        tokenizer=str(path),
        start_token=names.start,
        end_token=names.end,
        padding_token=names.padding,
    )
    return Preprocessor(
        8, ImagesConfig(), load_tokenizer(text, length, 400), dependencies=SPEC
    ), path


def rows(texts, parses):
    return [
        {"text": text, "parse": parses_in("k", {"d": parse}, [text], SPEC)[text]}
        for text, parse in zip(texts, parses, strict=True)
    ]


@pytest.mark.parametrize("length", [40, 9])
def test_pieces_of_a_word_hear_each_other_and_those_of_its_head(length, tmp_path):
    preprocessor, path = preprocessor_of("wordpiece", tmp_path, length)
    library = tokenizers.Tokenizer.from_file(str(path))
    made = preprocessor.words_of(rows(TEXTS, PARSES))
    edges, mask = made["word_edges"], made["text_mask"]
    assert (
        edges.shape == (3, length, length)
        and edges.dtype == bool
        and made["truncated"].any() == (length == 9)
    )
    several = 0
    for row, (text, parse) in enumerate(zip(TEXTS, PARSES, strict=True)):
        words = library.encode(text, add_special_tokens=False).word_ids[: length - 2]
        several += len(words) - len(set(words))
        joined = {frozenset(pair) for pair in parse} | {frozenset([word]) for word in words}
        expected = np.zeros((length, length), bool)
        for i, one in enumerate(words):
            for j, other in enumerate(words):
                expected[1 + i, 1 + j] = frozenset([one, other]) in joined
        np.testing.assert_array_equal(edges[row], expected)
        assert mask[row].sum() == len(words) + 2  # start and end token have no edges
    assert several > 5


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_counted_by_every_kind_of_vocabulary(kind, tmp_path):
    """The second word hears the fourth: the tokens that do are those that the text has more with
    these two words."""
    preprocessor, _ = preprocessor_of(kind, tmp_path, 48)
    words = TEXTS[0].split()
    edges = preprocessor.words_of(rows([TEXTS[0]], [[[3, 1]]]))["word_edges"][0]
    sizes = np.diff(
        [
            0,
            *(
                preprocessor.words_of(rows([" ".join(words[:count])], [[]]))["text_mask"].sum() - 2
                for count in range(1, 6)
            ),
        ]
    )
    places = np.repeat(np.arange(5), sizes)
    near = np.eye(5, dtype=bool)
    near[1, 3] = near[3, 1] = True
    expected = np.zeros_like(edges)
    expected[1 : 1 + len(places), 1 : 1 + len(places)] = near[np.ix_(places, places)]
    assert sizes.max() > 1
    np.testing.assert_array_equal(edges, expected)


def test_a_sample_has_a_parse_for_each_caption_or_of_a_single_one_the_list_itself_or_none():
    pairs, other = [[0, 1], [2, 1]], [[4, 0]]
    for held in (pairs, [pairs], np.array(pairs), np.array([pairs])):
        np.testing.assert_array_equal(parses_in("k", {"d": held}, ["a"], SPEC)["a"], pairs)
    for held in (None, [], [[]], [None]):
        assert parses_in("k", {"d": held}, ["a"], SPEC)["a"].shape == (0, 2)
    assert parses_in("k", {}, ["a", "b"], SPEC).keys() == {"a", "b"}
    found = parses_in(
        "k",
        {"x": [{"d": pairs}, {"d": None}, {"d": other}]},
        ["a", "b", "c"],
        DependenciesConfig(field="x.d"),
    )
    assert [found[name].tolist() for name in "abc"] == [pairs, [], other]
    np.testing.assert_array_equal(
        parses_in("k", {"d": [[[0, 1]], [[1, 0]]]}, ["a", "b"], SPEC)["b"], [[1, 0]]
    )


@pytest.mark.parametrize(
    "held",
    [
        [[0, -1]],
        [[0, 1.0]],
        [[0, 1.5]],
        [[0, 1, 2]],
        [[0]],
        [[0, 1], [2]],
        [["a", "b"]],
        [[0, None]],
        [[True, False]],
        7,
        "0 1",
        [3],
        {"a": 1},
        [[[0, 1]], [[0, 1]]],
        [[0, 10**400]],
    ],
)
def test_what_is_no_parse_is_a_bad_sample(held):
    with pytest.raises(
        SampleError, match="its d (holds|is no list with a parse for each of its 1 captions)"
    ) as error:
        parses_in("k", {"d": held}, ["a"], SPEC)
    assert error.value.reason == Reason.WRONG_DEPENDENCIES
    with pytest.raises(
        SampleError, match="each of its 3 captions, where a repeated caption counts once"
    ):
        parses_in("k", {"d": [[[0, 1]], [[0, 1]]]}, ["a", "b", "c"], SPEC)
