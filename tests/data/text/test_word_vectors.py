"""Word vectors in the text formats of GloVe and word2vec: what is read, what is refused, and where
it goes."""

import dataclasses

import jax
import numpy as np
import pytest

from vlp_jax.config import load_config
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.data.text.train_tokenizer import KINDS, train_tokenizer
from vlp_jax.data.text.word_vectors import read_vectors, vectors_of_tokens, words_of
from vlp_jax.errors import ConfigError
from vlp_jax.models.text.recurrent import BagOfWordsConfig, GruConfig
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.objectives.masked_autoencoder import MaskedAutoencoderConfig
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.build import build_run

GLOVE = (
    "the 0.5 -1 2e-1\n. . . 1 2 3\ncat 4 5 6 \ncat 7 8 9\nan at name@domain.com 1 1 1\n7 1 2 3\n"
)
WORD2VEC = "3 3\n</s> 0 0 0\nthe 1 2 3\ncafé 4 5 6\n"


def written(tmp_path, text):
    file = tmp_path / "vectors.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def test_glove_s_format_is_read_with_words_that_hold_blanks_and_the_first_of_two(tmp_path):
    found = read_vectors(written(tmp_path, GLOVE), {"the", "cat", ". . .", "7", "absent"}, 3)
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "the": [0.5, -1.0, np.float32(0.2)],
        ". . .": [1, 2, 3],
        "cat": [4, 5, 6],
        "7": [1, 2, 3],
    }
    assert all(vector.dtype == np.float32 for vector in found.values())


def test_word2vec_s_format_begins_with_its_size(tmp_path):
    found = read_vectors(written(tmp_path, WORD2VEC), {"the", "café", "3"}, 3)
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "the": [1, 2, 3],
        "café": [4, 5, 6],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2\n", "has vectors of 2 numbers, and the tower's words are 3 wide"),
        ("the 1 2 3 4\n", "has vectors of 4 numbers, and the tower's words are 3 wide"),
        ("5 4\nthe 1 2 3 4\n", "has vectors of 4 numbers, and the tower's words are 3 wide"),
        (
            "the\t1\t2\t3\n",
            "vectors.txt:1: expected a word and 3 numbers, one blank in front of each, "
            "got 'the\\t1\\t2\\t3'",
        ),
        (
            "the  1  2  3\n",
            "vectors.txt:1: expected a word and 3 numbers, one blank in front of each, "
            "got 'the  1  2  3'",
        ),
        ("the 1 2 3\ncat 1 2\n", "vectors.txt:2: expected a word and 3 numbers, got 2"),
        ("the 1 2 3\ncat 1 2 3 4\n", "vectors.txt:2: expected a word and 3 numbers, got 4"),
        ("the 1 2 3\ncat 1 x 3\n", "vectors.txt:2: could not convert string to float: 'x'"),
        ("the 1 2 3\ncat 1 nan 3\n", "vectors.txt:2: holds a number that is not finite"),
        (b"the 1 2 3\n\xff\xfe 1 2 3\n", "vectors.txt:2: is not UTF-8"),
        (b"the 1 2 3\n" + b"0" * (1 << 20), "vectors.txt:2: a line of more than 1048576 bytes"),
        (
            "hello\n",
            "vectors.txt:1: expected a word and 3 numbers, one blank in front of each, got 'hello'",
        ),
    ],
)
def test_what_is_no_file_of_vectors_is_said_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match="model.text.word_vectors") as caught:
        read_vectors(written(tmp_path, text), {"the", "cat"}, 3)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=f"model.text.word_vectors: {tmp_path}/none.txt cannot be read: No such file",
    ):
        read_vectors(f"{tmp_path}/none.txt", {"the"}, 3)


TEXTS = ["the red cat sat on a mat", "the café was red", "a cat and a dog sat there"] * 20


def trained(kind, folder):
    """A tokenizer of a kind that learned TEXTS."""
    file = folder / ("vocabulary.model" if kind == "sentencepiece" else "vocabulary.json")
    file.write_bytes(
        train_tokenizer(TEXTS, {"bpe": 300, "wordpiece": 70, "sentencepiece": 280}[kind], kind)
    )
    special = dict(
        start_token=KINDS[kind].start, end_token=KINDS[kind].end, padding_token=KINDS[kind].padding
    )
    return load_tokenizer(TextConfig(tokenizer=str(file), **special), 12, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_a_vocabulary_are_the_tokens_that_texts_of_one_word_have(tmp_path, kind):
    tokenizer = trained(kind, tmp_path)
    words = words_of(tokenizer)
    ids = {word: tokenizer.backend.encode([word])[0] for text in TEXTS for word in text.split()}
    whole = {
        (word if kind != "wordpiece" else word.replace("é", "e")): one[0]
        for word, one in ids.items()
        if len(one) == 1
    }
    assert len(whole) >= 2 and {word: words.get(word) for word in whole} == whole
    assert not {
        tokenizer.spec.start_token,
        tokenizer.spec.end_token,
        tokenizer.spec.padding_token,
    } & set(words)


def test_tokens_get_the_vector_of_their_word_as_written_or_in_lower_case_and_others_none(tmp_path):
    tokenizer = trained("wordpiece", tmp_path)
    file = written(tmp_path, "red 1 2 3\nzebra 4 5 6\n")
    found = vectors_of_tokens(file, tokenizer, 80, 3, 0.0)
    assert found.vectors.shape == (80, 3) and found.found.sum() == 1
    np.testing.assert_array_equal(found.vectors[words_of(tokenizer)["red"]], [1, 2, 3])
    assert np.count_nonzero(found.vectors) == 3
    with pytest.raises(
        ConfigError,
        match=r"has 1 of the \d+ words .* less than "
        r"model.text.word_overlap=0.5",
    ):
        vectors_of_tokens(file, tokenizer, 80, 3, 0.5)


TOWERS = {
    "gru": GruConfig(vocab_size=4096, length=8, width=8, embedding_width=4),
    "bag": BagOfWordsConfig(vocab_size=4096, length=8, width=4),
    "transformer": TextTransformerConfig(
        preset="Ti", width=4, depth=1, heads=1, mlp_dim=4, vocab_size=4096, length=8
    ),
}


def experiment(**changes):
    config = load_config("configs/clip_emoji.py:smoke")
    return dataclasses.replace(
        config,
        evaluators={},
        ema=0.9,
        mesh=MeshConfig(data=1, fsdp=8, replicate_below=64),
        **changes,
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", TOWERS)
def test_the_text_tower_s_embeddings_begin_with_them(tmp_path, kind):
    config, tower = experiment(), TOWERS[kind]
    file = written(tmp_path, "red 1 2 3 4\ncat 5 6 7 8\n")
    states = {}
    for vectors in (None, file):
        text = dataclasses.replace(
            tower, word_vectors=vectors, word_overlap=0.0 if vectors else 0.5
        )
        run = build_run(
            dataclasses.replace(config, model=dataclasses.replace(config.model, text=text))
        )
        states[vectors] = jax.device_get(run.initial_state())
    words = words_of(run.preprocessor.tokenizer)
    plain, begun = (
        np.array(states[name].params["model"]["text"]["tokens"]["embedding"])
        for name in (None, file)
    )
    changed = {words["red"]: [1, 2, 3, 4], words["cat"]: [5, 6, 7, 8]}
    for number, vector in changed.items():
        np.testing.assert_array_equal(begun[number], vector)
        begun[number] = plain[number]
    np.testing.assert_array_equal(begun, plain)
    np.testing.assert_array_equal(
        states[file].ema["model"]["text"]["tokens"]["embedding"][words["red"]], [1, 2, 3, 4]
    )


def test_vectors_for_a_text_tower_that_nothing_reads_are_refused(tmp_path):
    config = experiment(
        objectives=dict(
            mae=MaskedAutoencoderConfig(decoder_width=8, decoder_depth=1, decoder_heads=2)
        )
    )
    text = dataclasses.replace(TOWERS["bag"], word_vectors=written(tmp_path, "red 1 2 3 4\n"))
    with pytest.raises(ConfigError, match="model.text.word_vectors: has no effect with objectives"):
        build_run(dataclasses.replace(config, model=dataclasses.replace(config.model, text=text)))
