"""The model card says where the exported preprocessing differs from that of training."""

import pytest

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.weights.card import image_note, text_note
from vlp_jax.weights.families.clip import Clip

TOKENIZER = load_tokenizer(TextConfig(), 16, 4096)


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        (dict(transparency="drop"), "drop", False),
        (dict(transparency="composite"), "composite", False),
        (dict(transparency="composite"), "drop", True),
        (dict(transparency="drop"), "composite", True),
        (dict(transparency="composite", background=(0, 0, 0)), "composite", True),
    ],
)
def test_another_handling_of_transparency_is_said(ours, theirs, differs):
    note = image_note(Preprocessor(32, ImagesConfig(**ours), TOKENIZER), theirs)
    assert bool(note) == differs
    assert not differs or ours["transparency"] in note


def test_changes_of_a_text_that_are_not_exported_are_said():
    assert text_note([]) == ""
    assert "`ftfy`, `html`" in text_note(["ftfy", "html"])


def test_an_end_token_that_transformers_would_not_find_is_refused():
    assert TOKENIZER.special_ids[1] == [2]
    with pytest.raises(ConfigError, match="'<end>' has the id 2.*export to openclip:DIR"):
        Clip().check_tokenizer({}, TOKENIZER)
