"""Where words begin in tokens: every kind of vocabulary, against the words of the text itself."""

import json
import pathlib

import numpy as np
import pytest
import tokenizers

from vlp_jax.config import base, to_config
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.data.text.train_tokenizer import KINDS, train_tokenizer
from vlp_jax.errors import ConfigError

TEXTS = [
    "grinning face with smiling eyes",
    "a",
    "redhead astronaut beside an unbelievably long caterpillar",
    "zzyzx qwerty moon",
]
GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/clip_tokens.json").read_text())


def trained(kind, folder):
    """A small vocabulary of a kind, so that most words are of several tokens."""
    size = {"bpe": 300, "wordpiece": 80, "sentencepiece": 290}[kind]
    path = folder / ("tokenizer.model" if kind == "sentencepiece" else "tokenizer.json")
    path.write_bytes(train_tokenizer(TEXTS * 3, size, kind))
    names = KINDS[kind]
    return load_tokenizer(
        TextConfig(
            tokenizer=str(path),
            start_token=names.start,
            end_token=names.end,
            padding_token=names.padding,
        ),
        64,
        400,
    )


def clip(folder):
    (folder / "vocab.json").write_text(json.dumps(GOLDEN["vocabulary"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *GOLDEN["merges"], ""]))
    return load_tokenizer(
        TextConfig(
            tokenizer=str(folder),
            start_token="<|startoftext|>",
            end_token="<|endoftext|>",
            padding_token="<|endoftext|>",
        ),
        64,
        49_408,
    )


def gpt2(folder):
    """Byte-level without a blank in front of a text, whose first word has no mark then."""
    library = tokenizers.Tokenizer.from_str(train_tokenizer(TEXTS * 3, 300).decode())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    (folder / "tokenizer.json").write_text(library.to_str())
    return load_tokenizer(TextConfig(tokenizer=str(folder / "tokenizer.json")), 64, 400)


MAKERS = {"clip": clip, "gpt2": gpt2} | {
    kind: lambda folder, kind=kind: trained(kind, folder) for kind in KINDS
}


@pytest.mark.parametrize("kind", MAKERS)
def test_tokens_from_one_beginning_to_the_next_are_the_words_of_the_text(kind, tmp_path):
    tokenizer = MAKERS[kind](tmp_path)
    ids, mask, truncated = tokenizer(TEXTS)
    starts = tokenizer.word_start(ids)
    assert starts.dtype == bool and not truncated.any()
    several = 0
    for text, row, visible, start in zip(TEXTS, ids, mask, starts, strict=True):
        row, start = row[visible], start[visible]
        assert start[[0, 1, -1]].all()  # the start token, the first word, the end token
        groups = np.split(row[1:-1], np.flatnonzero(start[1:-1])[1:])
        assert [
            tokenizer.backend.decode(group.tolist()).removesuffix("</w>").strip()
            for group in groups
        ] == text.split()
        several += sum(len(group) > 1 for group in groups)
    assert several > 5


def test_punctuation_is_a_word_in_word_piece_and_part_of_one_where_blanks_are_marked(tmp_path):
    for kind, expected in (("wordpiece", 4), ("bpe", 2)):
        path = tmp_path / f"{kind}.json"
        path.write_bytes(train_tokenizer(["a red-hot face, smiling"] * 3, 280, kind))
        tokenizer = load_tokenizer(
            TextConfig(
                tokenizer=str(path),
                start_token=None,
                end_token=None,
                padding_token=KINDS[kind].padding,
            ),
            32,
            400,
        )
        ids, mask, _ = tokenizer(["red-hot a"])
        assert tokenizer.word_start(ids)[mask].sum() == expected


def test_the_embedded_tokenizer_s_rows_say_where_words_begin_only_where_they_are_asked_for():
    config = base()
    config.update(
        steps=1,
        objectives=dict(
            words=dict(kind="masked_language", mask_id=7, whole_words=True, with_image=False)
        ),
    )
    config.data.train.source = "synthetic:64"
    config.model.image.image_size, config.model.text.vocab_size = 32, 4096
    config = to_config(config.to_dict())
    parts = (
        open_mixture(config.data.train),
        Preprocessor.from_config(config),
        config.data.augmentation,
        0,
    )
    plain, asked = (
        TrainRows(*parts).batch(range(5)),
        TrainRows(*parts, inputs=("word_start",)).batch(range(5)),
    )
    assert set(asked) - set(plain) == {"word_start"}
    for name, value in plain.items():
        np.testing.assert_array_equal(asked[name], value)
    np.testing.assert_array_equal(asked["word_start"], parts[1].tokenizer.word_start(asked["text"]))


def test_whole_words_of_a_vocabulary_that_marks_none_are_a_config_error(tmp_path):
    words = {"<pad>": 0, "<start>": 1, "<end>": 2, "?": 3, "a": 4}
    (tmp_path / "tokenizer.json").write_text(
        tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?")).to_str()
    )
    config = base()
    config.update(
        steps=1,
        objectives=dict(
            words=dict(kind="masked_language", mask_id=3, whole_words=True, with_image=False)
        ),
    )
    config.data.text.tokenizer = str(tmp_path / "tokenizer.json")
    with pytest.raises(
        ConfigError,
        match="data.text.tokenizer: its vocabulary has no mark .* set whole_words=False",
    ):
        Preprocessor.from_config(to_config(config.to_dict()))
