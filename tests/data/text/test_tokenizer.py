"""The tokenizer: rows of fixed length, what a mask shows, and the errors of a vocabulary that does
not fit."""

import dataclasses
import functools
import io
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import threading

import huggingface_hub
import numpy as np
import pytest
import sentencepiece
import tokenizers

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.embedded import captions_by_concept
from vlp_jax.data.text import tokenizer_hub
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.stop_words import ENGLISH_STOP_WORDS
from vlp_jax.data.text.tokenizer import TextConfig, Tokenizer, load_tokenizer
from vlp_jax.data.text.train_tokenizer import train_tokenizer
from vlp_jax.errors import ConfigError

WORDS = {
    "<pad>": 0,
    "<start>": 1,
    "<end>": 2,
    "?": 3,
    "a": 4,
    "red": 5,
    "big": 6,
    "heart": 7,
    "Red": 8,
}
PAD, START, END = 0, 1, 2


def words(vocabulary=None):
    """A tokenizer.json whose tokens are words, so that ids can be written by hand."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary or WORDS, unk_token="?")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return tokenizer.to_str()


def tokenizer(length=6, **spec):
    return Tokenizer(words(), TextConfig(**spec), length)


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
        ({"truncation_side": "left"}, [START, 7, 5, 7, 4, END]),
        ({"truncation_side": "left", "start_token": None}, [5, 7, 5, 7, 4, END]),
        ({"truncation_side": "left", "end_token": None}, [START, 5, 7, 5, 7, 4]),
    ],
)
def test_a_caption_that_is_too_long_loses_its_last_or_first_words_and_keeps_its_start_and_end_token(
    spec, expected
):
    assert ids_of("a big red heart red heart a", **spec) == expected
    assert ids_of("a heart", **spec) == ids_of("a heart", **spec | {"truncation_side": "right"})


def test_truncation_is_flagged_for_the_captions_that_lost_something():
    _, _, truncated = tokenizer()(["a big red heart", "a big red heart a", ""])
    assert truncated.tolist() == [False, True, False]


@pytest.mark.parametrize("caption", ["", "  ", "!?"])
@pytest.mark.parametrize(
    ("spec", "visible"),
    [
        ({}, 2),
        ({"start_token": None}, 1),
        ({"end_token": None}, 1),
        ({"start_token": None, "end_token": None}, 1),
    ],
)
def test_of_a_caption_without_words_the_special_tokens_are_visible_or_else_one_of_padding(
    caption, spec, visible
):
    """Attention and pooling over nothing would be NaN."""
    _, mask, truncated = tokenizer(**spec, canonicalize=("punctuation",))([caption])
    assert (mask.sum(), truncated.sum()) == (visible, 0)


@pytest.mark.parametrize(("canonicalize", "expected"), [((), 8), (("lower_case",), 5)])
def test_captions_are_lower_cased_where_the_config_asks_for_it(canonicalize, expected):
    assert ids_of("Red", canonicalize=canonicalize)[1] == expected


GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/clip_tokens.json").read_text())
CLIP = ("ftfy", "html", "lower_case", "whitespace")
SIGLIP = ("lower_case", "punctuation", "whitespace")


@pytest.mark.parametrize(
    ("names", "golden"), [(CLIP, "lower"), (("ftfy", "html", *SIGLIP), "canonical")]
)
def test_captions_are_cleaned_as_open_clip_does(names, golden):
    assert [canonicalize(caption, names) for caption in GOLDEN["captions"]] == GOLDEN[golden]


SPOKEN = [
    "black/white T-shirt",
    "A man's hat, and <PERSON>: (one)!",
    'what? #1 * "two"; ~three~',
    "end.",
    "a - b / c",
    "plain",
]


@pytest.mark.parametrize(
    ("names", "expression", "instead", "blanks"),
    [
        (
            ("lower_case", "person", "separators", "marks", "whitespace"),
            r"[,.'!?\"()*#:;~]",
            "",
            "-/",
        ),
        (("lower_case", "marks_to_blanks", "whitespace"), r"[.!\"()*#:;~]", " ", ""),
    ],
)
def test_captions_are_cleaned_as_albef_and_blip_do(names, expression, instead, blanks):
    """By the regular expressions of their `pre_caption` (ALBEF dataset/utils.py:20-24, BLIP
    data/utils.py:11-16)."""
    for caption in SPOKEN:
        expected = re.sub(expression, instead, caption.lower())
        for mark in blanks:
            expected = expected.replace(mark, " ")
        if blanks:
            expected = expected.replace("<person>", "person")
        assert canonicalize(caption, names) == re.sub(r"\s{2,}", " ", expected).strip(), caption


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("html", " A_b\t<i>  C! "),
        ("lower_case", " a_b\t&amp;lt;i>  c! "),
        ("punctuation", " A b\tampltiC "),
        ("whitespace", "A_b &amp;lt;i> C!"),
    ],
)
def test_each_change_does_its_part_alone(name, expected):
    text = " A_b\t&amp;lt;i>  C! "
    if name == "punctuation":
        text = text.replace("  ", "")
    assert canonicalize(text, (name,)) == expected
    assert canonicalize(text, ()) == text


def test_changes_are_made_in_one_order_whatever_the_config_says_and_once():
    text = " A&#x41;&#95;B "
    expected = canonicalize(text, ("html", "lower_case", "punctuation", "stop_words", "whitespace"))
    assert expected == "aa b"
    assert (
        canonicalize(
            text, ("whitespace", "stop_words", "punctuation", "lower_case", "html", "html")
        )
        == expected
    )


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("The cat is in the hat", "cat hat"),
        ("a dog, and (in the rain) a THIEF", "dog, (rain) THIEF"),
        ("a  big   dog", "big   dog"),
        ("it's an in-flight meal of the theatre", "it's in-flight meal theatre"),
        ("who\u2019s there", "who\u2019s"),
        ("no dog above two cats", "no dog above two cats"),
        ("a\tcat of\nthe house", "cat house"),
        ("a_b", "a_b"),
        ("a 7", "7"),
        ("\u00e0 la carte", "\u00e0 la carte"),
    ],
)
def test_stop_words_go_as_whole_words_in_any_case(caption, expected):
    assert canonicalize(caption, ("stop_words",)) == expected


@pytest.mark.parametrize(
    "caption", ["The", "to be or", " Who, me?", "it is what it is ...", "", " !? "]
)
def test_a_caption_of_stop_words_alone_stays_as_it_is(caption):
    assert canonicalize(caption, ("stop_words",)) == caption


def test_stop_words_are_found_behind_the_other_changes():
    names = ("html", "lower_case", "punctuation", "stop_words", "whitespace")
    assert canonicalize("&#84;he  cat, it's_of  &amp; THE", names) == "cat"
    assert all(
        word == word.lower() and canonicalize(f"{word} cat", ("stop_words",)) == "cat"
        for word in ENGLISH_STOP_WORDS
    )


def test_a_tokenizer_leaves_stop_words_out_where_the_config_asks_for_it():
    plain, without = (
        tokenizer(canonicalize=names)(["a big red heart"])[0] for names in ((), ("stop_words",))
    )
    np.testing.assert_array_equal(without, tokenizer()(["big red heart"])[0])
    assert (plain != without).any()


def test_padding_and_truncation_in_the_definition_do_not_count(file):
    backend = tokenizers.Tokenizer.from_file(file)
    backend.enable_truncation(2)
    backend.enable_padding(length=9, pad_id=3)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        "? $A ?", special_tokens=[("?", 3)]
    )
    found = Tokenizer(backend.to_str(), TextConfig(), 6)(["a big heart"])
    for ours, plain in zip(found, tokenizer()(["a big heart"]), strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"start_token": None},
        {"end_token": None},
        {"padding_token": "<end>"},
        {"start_token": None, "end_token": None},
    ],
)
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


def test_a_tokenizer_of_another_length_builds_no_other_model():
    tokenizer = load_tokenizer(TextConfig(), 16, 4096)
    assert dataclasses.replace(tokenizer, length=6).backend is tokenizer.backend


def test_the_embedded_tokenizer_is_there_by_its_name():
    made = load_tokenizer(TextConfig(), 8, 4096)
    ids, mask, _ = made(["Red heart"])
    assert made.backend.decode(ids[0][mask[0]].tolist()).strip() == "red heart"
    assert (ids[0, 0], ids[0, mask[0].sum() - 1], ids[0, -1]) == (START, END, PAD)


def test_a_trained_vocabulary_knows_every_text(tmp_path):
    (tmp_path / "t.json").write_bytes(train_tokenizer(["a red heart"] * 3, 270))
    made = load_tokenizer(TextConfig(tokenizer=str(tmp_path / "t.json")), 32, 270)
    ids, mask, _ = made(["Ünïcode ❤"])
    assert made.backend.decode(ids[0][mask[0]].tolist()).strip() == "ünïcode ❤"


# Errors


def error_of(name, length=6, vocab_size=100, **spec):
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(TextConfig(tokenizer=name, **spec), length, vocab_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "embedded:emojis",
            "no embedded tokenizer 'embedded:emojis'; those in the package are 'embedded:emoji'",
        ),
        (
            "/nowhere/tokenizer.json",
            "'/nowhere/tokenizer.json' is not there; expected 'embedded:emoji', a tokenizer.json",
        ),
    ],
)
def test_an_unknown_tokenizer_is_an_error_that_says_what_there_is(name, message):
    assert f"config error: data.text.tokenizer: {message}" in error_of(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read as JSON"), ("{}", "is not a tokenizer definition")],
)
def test_a_damaged_tokenizer_file_is_an_error_that_names_it(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    for name in (str(tmp_path / "tokenizer.json"), str(tmp_path)):
        assert str(tmp_path) in error_of(name) and message in error_of(name)


@pytest.mark.parametrize("token", ["start_token", "end_token", "padding_token"])
def test_a_special_token_that_the_vocabulary_has_not_is_an_error_before_the_first_batch(
    file, token
):
    assert error_of(file, **{token: "<bos>"}) == (
        f"config error: data.text.{token}: '<bos>' is not in the vocabulary of {file}"
    )


def test_a_vocabulary_larger_than_the_model_s_is_an_error(file):
    assert load_tokenizer(TextConfig(tokenizer=file), 6, len(WORDS)).vocab_size == 9
    assert error_of(file, vocab_size=8) == (
        f"config error: model.text.vocab_size: 8 is less than the 9 ids of {file}"
    )


def test_the_model_must_cover_the_largest_id_where_ids_have_gaps(tmp_path):
    (tmp_path / "gaps.json").write_text(words(WORDS | {"late": 90}))
    assert "90 is less than the 91 ids" in error_of(str(tmp_path / "gaps.json"), vocab_size=90)


@pytest.mark.parametrize(("length", "spec"), [(2, {}), (1, {"start_token": None})])
def test_a_length_without_room_for_a_word_is_an_error(file, length, spec):
    assert f"model.text.length: {length} leaves no room" in error_of(file, length=length, **spec)


# The hub: nothing here leaves this machine


def test_a_hub_name_without_a_network_is_one_line_that_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = error_of("openai/clip-vit-base-patch16")
    assert "'openai/clip-vit-base-patch16' is no file or folder here" in message
    assert "Name or service not known" in message
    assert (
        "run `hf download openai/clip-vit-base-patch16 --local-dir "
        "tokenizers/clip-vit-base-patch16`"
    ) in message
    assert "--config.data.text.tokenizer=tokenizers/clip-vit-base-patch16" in message


def offline(name, local_files_only=False, **options):
    raise OSError(
        "not cached"
        if local_files_only
        else "Name or service not known\nPlease check your connection."
    )


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    answer = threading.Event()

    def waits(name, local_files_only=False, **options):
        return offline(name, local_files_only) if local_files_only else answer.wait()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", waits)
    monkeypatch.setattr(tokenizer_hub, "SECONDS", 0.05)
    assert "no answer within 0.05 seconds" in error_of("openai/clip-vit-base-patch16")
    answer.set()


def test_a_cached_copy_is_used_without_asking_the_hub(tmp_path, monkeypatch):
    """The layout of a cache is the hub library's own; a request would fail, since the hub is not
    there."""
    snapshot = tmp_path / "models--owner--name/snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text(words())
    (tmp_path / "models--owner--name/refs").mkdir()
    (tmp_path / "models--owner--name/refs/main").write_text("0123abc")
    code = (
        "import sys\nfrom vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer\n"
        "from vlp_jax.errors import ConfigError\n"
        "print(load_tokenizer(TextConfig(tokenizer='owner/name'), 6, 9)(['a "
        "heart'])[0].tolist())\n"
        "try: load_tokenizer(TextConfig(tokenizer='owner/other'), 6, 9)\nexcept ConfigError "
        "as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    found, refused = done.stdout.splitlines()
    assert found == str([[START, 4, 7, END, PAD, PAD]])
    assert f"not in the cache ({tmp_path})" in refused and "Connection refused" in refused


# Hugging Face folders

CAPTIONS = ["a red heart", "Red HEART, big!", "", "a big red heart " * 5, "ünïcode ❤"]


def test_a_hugging_face_folder_gives_the_ids_that_transformers_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer.from_str(train_tokenizer(["a big red heart"] * 3, 270).decode())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", START), ("<end>", END)]
    )
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<start>", eos_token="<end>", pad_token="<pad>"
    )
    theirs.save_pretrained(tmp_path)
    expected = theirs(
        CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="np"
    )
    ids, mask, _ = load_tokenizer(TextConfig(tokenizer=str(tmp_path)), 12, 270)(CAPTIONS)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_a_folder_with_clip_s_vocabulary_and_merges_gives_the_ids_that_transformers_gives(tmp_path):
    transformers = pytest.importorskip("transformers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    pieces = [
        *sorted(alphabet),
        *(f"{letter}</w>" for letter in sorted(alphabet)),
        "re",
        "red</w>",
        "ar",
        "art</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (tmp_path / "vocab.json").write_text(
        json.dumps({piece: number for number, piece in enumerate(pieces)})
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\na r\nar t</w>\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    expected = theirs(
        CAPTIONS, padding="max_length", truncation=True, max_length=12, return_tensors="np"
    )
    spec = TextConfig(
        tokenizer=str(tmp_path),
        start_token="<|startoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
    )
    ids, mask, _ = load_tokenizer(spec, 12, len(pieces))(CAPTIONS)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def clip_folder(folder):
    (folder / "vocab.json").write_text(json.dumps(GOLDEN["vocabulary"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *GOLDEN["merges"], ""]))
    return str(folder)


def test_clip_s_tokens_are_those_of_open_clip(tmp_path):
    """With vocab.json and merges.txt as OpenAI released them, and with the vocabulary in this
    package; open_clip pads with 0, which is "!".
    """
    for name in (clip_folder(tmp_path), "embedded:clip"):
        check_clip_tokens(name)


def check_clip_tokens(name):
    spec = TextConfig(
        tokenizer=name,
        canonicalize=CLIP,
        start_token="<|startoftext|>",
        end_token="<|endoftext|>",
        padding_token="!",
    )
    made = load_tokenizer(spec, 1000, 49408)
    ids, mask, truncated = made(GOLDEN["captions"])
    assert not truncated.any()
    for caption, row, visible, expected in zip(
        GOLDEN["captions"], ids, mask, GOLDEN["ids"], strict=True
    ):
        assert row[visible].tolist() == expected, caption
    ids, _, truncated = dataclasses.replace(made, length=77)(GOLDEN["captions"])
    assert ids[-3:].tolist() == GOLDEN["rows"]
    assert truncated.tolist() == [len(expected) > 77 for expected in GOLDEN["ids"]]


def test_a_word_piece_vocabulary_gives_the_ids_of_bert_s_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    for lower_case in (True, False):
        trained = tokenizers.Tokenizer.from_str(
            train_tokenizer(texts(), 2400, "wordpiece", lower_case).decode()
        )
        vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().get)
        assert (
            vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            and len(vocabulary) == 2400
        )
        folder = tmp_path / str(lower_case)
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        (tmp_path / "tokenizer.json").write_text(trained.to_str())
        theirs = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=lower_case)
        expected = theirs(
            texts() + HARD,
            padding="max_length",
            truncation=True,
            max_length=40,
            return_tensors="np",
        )
        for name in (folder, folder / "vocab.txt", tmp_path / "tokenizer.json"):
            spec = TextConfig(
                tokenizer=str(name), start_token="[CLS]", end_token="[SEP]", padding_token="[PAD]"
            )
            ids, mask, _ = load_tokenizer(spec, 40, 2400)(texts() + HARD)
            np.testing.assert_array_equal(ids, expected["input_ids"])
            np.testing.assert_array_equal(mask, expected["attention_mask"])


# SentencePiece

HARD = [
    "",
    " ",
    "  a  b ",
    "\ta\nb\r\n c",
    "a\u00a0b",
    "a\u3000b",
    "▁",
    "▁▁ a▁b",
    "<s> a</s>",
    "<unk>",
    "<0x41>",
    "\x00 a",
    "日本 🔝 ñ",
    "e\u0301 é",
    "ﬁ ﬃ ①",
    "\u200b a\u200bb",
    "a" * 3000,
    "👩‍👩‍👧‍👦",
    "\ufeff x",
    "ÅÅ",
    "İI",
    "x\u00ad y",
    "<pad>",
]


@functools.cache
def texts():
    """Captions in 26 languages."""
    several = captions_by_concept("emoji")
    return [
        sample for concept in sorted(several)[::25] for sample in several[concept].values()
    ] + GOLDEN["captions"][:-3]


def train(**options):
    model = io.BytesIO()
    options = {
        "vocab_size": 1600,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "minloglevel": 2,
    } | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=model, **options
    )
    return model.getvalue()


SENTENCEPIECE = dict(start_token=None, end_token="</s>", padding_token="<pad>")
MODELS = {
    "unigram": {},
    "unigram with bytes": {"byte_fallback": True, "normalization_rule_name": "nmt_nfkc_cf"},
    "bpe with bytes": {"model_type": "bpe", "byte_fallback": True, "split_digits": True},
    "white space kept": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["<mask>"],
    },
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_sentencepiece_model_gives_the_ids_of_its_own_library(kind, tmp_path):
    proto = train(**MODELS[kind])
    (tmp_path / "spiece.model").write_bytes(proto)
    library = sentencepiece.SentencePieceProcessor(model_proto=proto)
    for name in (tmp_path / "spiece.model", tmp_path):
        made = load_tokenizer(TextConfig(tokenizer=str(name), **SENTENCEPIECE), 4000, 1600)
        ids, mask, truncated = made(texts() + HARD)
        for text, row, visible in zip(texts() + HARD, ids, mask, strict=True):
            assert row[visible].tolist() == [*library.encode(text), library.eos_id()], text
        assert (ids[~mask] == library.pad_id()).all() and not truncated.any()


def test_a_trained_sentencepiece_model_knows_every_text(tmp_path):
    (tmp_path / "t.model").write_bytes(train_tokenizer(texts(), 1600, "sentencepiece"))
    made = load_tokenizer(
        TextConfig(tokenizer=str(tmp_path / "t.model"), start_token="<s>", end_token="</s>"),
        64,
        1600,
    )
    assert (made.special_ids, made.vocab_size) == (([1], [2], 0), 1600)
    ids, mask, _ = made(["Ünïcode ❤ \U0001fae8 ꙮ", ""])
    assert made.backend.decode(ids[0][mask[0]][1:-1]) == "ünïcode ❤ \U0001fae8 ꙮ"
    for backend, text in (
        (made.backend, "ünïcode"),
        (load_tokenizer(TextConfig(), 64, 4096).backend, "a red heart"),
    ):
        # a model may be wider than its words
        assert backend.decode([*backend.encode([text])[0], 5000]).strip() == text
    assert ids[1].tolist() == [1, 2] + [0] * 62


def test_a_sentencepiece_model_travels_inside_the_preprocessor(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(train())
    made = Preprocessor(
        8,
        ImagesConfig(),
        load_tokenizer(TextConfig(tokenizer=str(path), **SENTENCEPIECE), 12, 1600),
    )
    path.unlink()
    copy = Preprocessor.from_json(json.loads(json.dumps(made.to_json())))
    assert copy == made
    for again in (copy, pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(again(texts=texts())["text"], made(texts=texts())["text"])


def test_of_two_files_in_a_folder_the_sentencepiece_model_decides_if_both_number_alike(tmp_path):
    proto = train()
    library = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pieces = [(library.id_to_piece(i), library.get_score(i)) for i in range(1600)]
    (tmp_path / "spiece.model").write_bytes(proto)
    spec = TextConfig(tokenizer=str(tmp_path), **SENTENCEPIECE)
    for offset in (0, 5):
        other = tokenizers.Tokenizer(
            tokenizers.models.Unigram([(f"<{i}>", 0.0) for i in range(offset)] + pieces, 3 + offset)
        )
        (tmp_path / "tokenizer.json").write_text(other.to_str())
        made = load_tokenizer(spec, 12, 1605)
        assert made.vocab_size == 1600 + offset
        assert made.special_ids == ([], [2 + offset], offset)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.model", b"nonsense", "is not a SentencePiece model"),
        ("spiece.model", b"", "is not a SentencePiece model"),
        ("vocab.txt", b"one\ntwo\n", "is not a WordPiece vocabulary: it has no line [UNK]"),
        ("vocab.txt", b"\xff\xfe", "cannot be read as text"),
        ("tokenizer.json", b"\xff", "cannot be read as JSON"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert (f"config error: data.text.tokenizer: {tmp_path / name} {message}") in error_of(
        str(tmp_path / name)
    )
    if name != "a.model":
        assert message in error_of(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_an_error_that_lists_what_it_holds(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    assert (
        f"{tmp_path} holds no tokenizer that transformers can load (found weights.bin)"
    ) in error_of(str(tmp_path))


# Special tokens that a caption spells


def unigram():
    """A tokenizer.json as T5's: special tokens are pieces, the likeliest ones."""
    letters = "▁<>/|[]abcdefghijklmnopqrstuvwxyzEMSKP"
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((letter, -2.0) for letter in letters),
    ]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return made.to_str()


def sentencepieces(folder):
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()),
        model_writer=file,
        vocab_size=1600,
        model_type="unigram",
        pad_id=3,
        user_defined_symbols=["<mask>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = folder / "made.model"
    path.write_bytes(file.getvalue())
    return str(path)


@pytest.fixture
def every_tokenizer(tmp_path):
    """(name, start, end, padding, other special tokens) of one of each kind."""
    (tmp_path / "words.json").write_text(words())
    (tmp_path / "unigram.json").write_text(unigram())
    trained = tokenizers.Tokenizer.from_str(
        train_tokenizer(texts(), 1300, "wordpiece", True).decode()
    )
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    bert, clip_files = tmp_path / "bert", tmp_path / "clip"
    bert.mkdir()
    clip_files.mkdir()
    (bert / "vocab.txt").write_text("\n".join(vocabulary))
    (bert / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    ordinary = tokenizers.Tokenizer.from_str(words())
    ordinary.add_tokens(["<end>", "<more>"])  # not marked as special
    (tmp_path / "ordinary.json").write_text(ordinary.to_str())
    clip = ("<|startoftext|>", "<|endoftext|>", "!")
    return [
        ("embedded:emoji", "<start>", "<end>", "<pad>", ()),
        ("embedded:clip", *clip, ()),
        (clip_folder(clip_files), *clip, ()),
        (str(tmp_path / "words.json"), "<start>", "<end>", "<pad>", ()),
        (str(tmp_path / "ordinary.json"), "<start>", "<end>", "<pad>", ()),
        (str(tmp_path / "unigram.json"), None, "</s>", "<pad>", ()),
        (str(tmp_path / "vocab.txt"), "[CLS]", "[SEP]", "[PAD]", ("[MASK]",)),
        (str(bert), "[CLS]", "[SEP]", "[PAD]", ("[MASK]",)),
        (sentencepieces(tmp_path), "<s>", "</s>", "<pad>", ()),
    ]


def test_a_caption_that_spells_special_tokens_is_text_by_every_kind_of_tokenizer(every_tokenizer):
    for name, start, end, padding, others in every_tokenizer:
        spec = TextConfig(tokenizer=name, start_token=start, end_token=end, padding_token=padding)
        made = load_tokenizer(spec, 60, 60_000)
        special = {
            token: made.backend.token_to_id(token)
            for token in (start, end, padding, *others)
            if token and token != "!"
        }
        for token in special:
            for caption in (
                f"press {token} to finish",
                token,
                f"a{token}b",
                f"{token}{token}",
                f" {token} ",
            ):
                ids, mask, _ = made([caption])
                body = ids[0][mask[0]][int(start is not None) : -1]
                assert set(special.values()).isdisjoint(body.tolist()), (name, caption, body)
                assert ids[0][mask[0]][-1] == special[end] and (made.mask_of(ids) == mask).all(), (
                    name,
                    caption,
                )
                assert len(body) or not caption.strip(), (name, caption)
        assert made(["press to finish"])[0][0].tolist() == made(["press to finish"])[0][0].tolist()


def test_text_without_special_tokens_is_read_as_the_library_reads_it(every_tokenizer):
    for name, start, end, padding, _ in every_tokenizer:
        made = load_tokenizer(
            TextConfig(tokenizer=name, start_token=start, end_token=end, padding_token=padding),
            60,
            60_000,
        )
        assert made.encode(texts()) == made.backend.encode(texts()), name


def test_a_tokenizer_and_a_preprocessor_are_shown_without_their_vocabulary():
    tokenizer = load_tokenizer(TextConfig(), 12, 4096)
    preprocessor = Preprocessor(32, ImagesConfig(), tokenizer)
    assert "embedded:emoji" in repr(tokenizer) and "length=12" in repr(tokenizer)
    assert (
        len(repr(tokenizer)) < 400
        and len(repr(preprocessor)) < 900
        and "image_size=32" in repr(preprocessor)
    )
