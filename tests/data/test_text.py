"""The tokenizer: rows of fixed length, what a mask shows, and the errors of a vocabulary that does not fit."""

import json
import pickle

import numpy as np
import pytest
import tokenizers

from vlp_jax.config.schema import Text
from vlp_jax.data.text import Tokenizer, load_tokenizer
from vlp_jax.data.vocabulary import train_tokenizer
from vlp_jax.errors import ConfigError

WORDS = {"<pad>": 0, "<start>": 1, "<end>": 2, "?": 3, "a": 4, "red": 5, "big": 6, "heart": 7, "Red": 8}
PAD, START, END = 0, 1, 2


def words(vocabulary=None):
    """A tokenizer.json whose tokens are words, so that ids can be written by hand."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary or WORDS, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str()


def tokenizer(length=6, **spec):
    return Tokenizer(words(), Text(**spec), length)


def ids_of(text, **options):
    return tokenizer(**options)([text])[0][0].tolist()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(words())
    return str(path)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [START, 4, 7, END, PAD, PAD]),
        ({"start_token": None}, [4, 7, END, PAD, PAD, PAD]),
        ({"end_token": None}, [START, 4, 7, PAD, PAD, PAD]),
        ({"start_token": None, "end_token": None}, [4, 7, PAD, PAD, PAD, PAD]),
        ({"padding_token": "<end>"}, [START, 4, 7, END, END, END]),
    ],
)
def test_a_row_is_start_caption_end_and_padding(spec, expected):
    assert ids_of("a heart", **spec) == expected


def test_a_batch_has_a_row_a_caption_and_fixed_types():
    ids, mask, truncated = tokenizer()(["a", "a red heart", "big"])
    assert (ids.shape, mask.shape, truncated.shape) == ((3, 6), (3, 6), (3,))
    assert (ids.dtype, mask.dtype, truncated.dtype) == (np.int32, np.bool_, np.bool_)
    assert ids[:, 1].tolist() == [4, 4, 6]


def test_the_mask_shows_everything_but_padding():
    _, mask, _ = tokenizer()(["a heart", "a", "a big red heart"])
    assert mask.sum(axis=1).tolist() == [4, 3, 6]
    assert (mask == (np.arange(6) < mask.sum(axis=1, keepdims=True))).all()


def test_padding_with_the_end_token_shows_the_first_end_token_only():
    _, mask, _ = tokenizer(padding_token="<end>")(["a heart"])
    assert mask[0].tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [START, 4, 6, 5, 7, END]),
        ({"start_token": None}, [4, 6, 5, 7, 5, END]),
        ({"end_token": None}, [START, 4, 6, 5, 7, 5]),
    ],
)
def test_a_caption_that_is_too_long_loses_its_last_words_and_keeps_its_end_token(spec, expected):
    assert ids_of("a big red heart red heart a", **spec) == expected


def test_truncation_is_flagged_for_the_captions_that_lost_something():
    _, _, truncated = tokenizer()(["a big red heart", "a big red heart a", ""])
    assert truncated.tolist() == [False, True, False]


@pytest.mark.parametrize("caption", ["", "  ", "!?"])
@pytest.mark.parametrize(("spec", "visible"), [({}, 2), ({"start_token": None}, 1), ({"end_token": None}, 1),
                                               ({"start_token": None, "end_token": None}, 1)])
def test_of_a_caption_without_words_the_special_tokens_are_visible_or_else_one_of_padding(caption, spec, visible):
    """Attention and pooling over nothing would be NaN."""
    _, mask, truncated = tokenizer(**spec, canonicalize=("punctuation",))([caption])
    assert (mask.sum(), truncated.sum()) == (visible, 0)


@pytest.mark.parametrize(("canonicalize", "expected"), [((), 8), (("lower_case",), 5)])
def test_captions_are_lower_cased_where_the_config_asks_for_it(canonicalize, expected):
    assert ids_of("Red", canonicalize=canonicalize)[1] == expected


def test_padding_and_truncation_in_the_definition_do_not_count(file):
    backend = tokenizers.Tokenizer.from_file(file)
    backend.enable_truncation(2)
    backend.enable_padding(length=9, pad_id=3)
    backend.post_processor = tokenizers.processors.TemplateProcessing("? $A ?", special_tokens=[("?", 3)])
    found = Tokenizer(backend.to_str(), Text(), 6)(["a big heart"])
    for ours, plain in zip(found, tokenizer()(["a big heart"]), strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("spec", [{}, {"start_token": None}, {"end_token": None}, {"padding_token": "<end>"},
                                  {"start_token": None, "end_token": None}])
def test_the_mask_can_be_told_from_the_ids(spec):
    made = tokenizer(**spec)
    ids, mask, _ = made(["a heart", "", "a big red heart red heart a", "a"])
    np.testing.assert_array_equal(made.mask_of(ids), mask)


def test_a_row_without_its_end_token_is_visible_as_a_whole():
    assert tokenizer().mask_of(np.array([[START, 4, 5, 6, 7, 4]])).all()


def test_a_tokenizer_pickles_after_it_was_used():
    made = tokenizer()
    expected = made(["a heart"])[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made))(["a heart"])[0], expected)


def test_the_embedded_tokenizer_is_there_by_its_name():
    made = load_tokenizer(Text(), 8, 4096)
    ids, mask, _ = made(["Red heart"])
    assert made.backend.decode(ids[0][mask[0]].tolist()).strip() == "red heart"
    assert (ids[0, 0], ids[0, mask[0].sum() - 1], ids[0, -1]) == (START, END, PAD)


def test_a_trained_vocabulary_knows_every_text(tmp_path):
    (tmp_path / "t.json").write_bytes(train_tokenizer(["a red heart"] * 3, 270))
    made = load_tokenizer(Text(tokenizer=str(tmp_path / "t.json")), 32, 270)
    ids, mask, _ = made(["Ünïcode ❤"])
    assert made.backend.decode(ids[0][mask[0]].tolist()).strip() == "ünïcode ❤"


# Errors

def error_of(name, length=6, vocab_size=100, **spec):
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(Text(tokenizer=name, **spec), length, vocab_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embedded:emojis", "no embedded tokenizer 'embedded:emojis'; the one that ships is 'embedded:emoji'"),
        ("/nowhere/tokenizer.json", "'/nowhere/tokenizer.json' is not there; expected 'embedded:emoji', a tokenizer.json"),
    ],
)
def test_an_unknown_tokenizer_is_an_error_that_says_what_there_is(name, message):
    assert f"config error: data.text.tokenizer: {message}" in error_of(name)


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("{}", "is not a tokenizer definition")])
def test_a_damaged_tokenizer_file_is_an_error_that_names_it(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    for name in (str(tmp_path / "tokenizer.json"), str(tmp_path)):
        assert str(tmp_path) in error_of(name) and message in error_of(name)


@pytest.mark.parametrize("token", ["start_token", "end_token", "padding_token"])
def test_a_special_token_that_the_vocabulary_has_not_is_an_error_before_the_first_batch(file, token):
    assert error_of(file, **{token: "<bos>"}) == f"config error: data.text.{token}: '<bos>' is not in the vocabulary of {file}"


def test_a_vocabulary_larger_than_the_model_s_is_an_error(file):
    assert load_tokenizer(Text(tokenizer=file), 6, len(WORDS)).vocab_size == 9
    assert error_of(file, vocab_size=8) == f"config error: model.text.vocab_size: 8 is less than the 9 ids of {file}"


def test_the_model_must_cover_the_largest_id_where_ids_have_gaps(tmp_path):
    (tmp_path / "gaps.json").write_text(words(WORDS | {"late": 90}))
    assert "90 is less than the 91 ids" in error_of(str(tmp_path / "gaps.json"), vocab_size=90)


@pytest.mark.parametrize(("length", "spec"), [(2, {}), (1, {"start_token": None})])
def test_a_length_without_room_for_a_word_is_an_error(file, length, spec):
    assert f"model.text.length: {length} leaves no room" in error_of(file, length=length, **spec)


# Hugging Face folders

CAPTIONS = ["a red heart", "Red HEART, big!", "", "a big red heart " * 5, "ünïcode ❤"]


def test_a_hugging_face_folder_gives_the_ids_that_transformers_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer.from_str(train_tokenizer(["a big red heart"] * 3, 270).decode())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)])
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<start>", eos_token="<end>", pad_token="<pad>")
    theirs.save_pretrained(tmp_path)
    expected = theirs(CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="np")
    ids, mask, _ = load_tokenizer(Text(tokenizer=str(tmp_path)), 12, 270)(CAPTIONS)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_a_folder_with_clip_s_vocabulary_and_merges_gives_the_ids_that_transformers_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    pieces = [*sorted(alphabet), *(f"{letter}</w>" for letter in sorted(alphabet)), "re", "red</w>", "ar", "art</w>",
              "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\na r\nar t</w>\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    expected = theirs(CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="np")
    spec = Text(tokenizer=str(tmp_path), start_token="<|startoftext|>", end_token="<|endoftext|>", padding_token="<|endoftext|>")
    ids, mask, _ = load_tokenizer(spec, 12, len(pieces))(CAPTIONS)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_a_folder_without_a_tokenizer_is_an_error_that_lists_what_it_holds(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    assert f"{tmp_path} holds no tokenizer that transformers can load (found weights.bin)" in error_of(str(tmp_path))
