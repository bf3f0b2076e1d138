"""Which text of a sample is drawn: captions by field, keywords, prompts."""

import itertools

import pytest

from vlp_jax.data.pipeline import random_generator
from vlp_jax.data.samples import Reason, Sample, SampleError
from vlp_jax.data.text.captions import TextsConfig, check_texts, draw_caption, draw_text
from vlp_jax.errors import ConfigError

CAPTION, BOTH, KEYWORDS = (
    TextsConfig(**{"caption": 0.0} | {kind: 1.0})
    for kind in ("caption", "caption_and_keywords", "keywords")
)


def texts(weights, keywords=("red", "big", "round"), count=300):
    sample = Sample("k", b"", ("a heart",), {} if keywords is None else {"keywords": keywords})
    return [
        draw_text("a heart", sample, weights, random_generator(0, draw)) for draw in range(count)
    ]


def test_captions_only():
    assert set(texts(CAPTION)) == {"a heart"}


def test_keywords_only_are_some_keywords_each_once_in_any_order():
    expected = {
        ", ".join(some)
        for length in (1, 2, 3)
        for some in itertools.permutations(("red", "big", "round"), length)
    }
    assert set(texts(KEYWORDS)) == expected


def test_a_caption_with_keywords_starts_with_the_caption():
    assert set(texts(BOTH)) == {f"a heart, {some}" for some in texts(KEYWORDS)}


def test_weights_are_relative():
    found = texts(TextsConfig(caption=2.0, caption_and_keywords=2.0, keywords=4.0), count=2000)
    plain, alone = found.count("a heart"), sum(not text.startswith("a heart") for text in found)
    assert abs(plain - 500) < 100 and abs(alone - 1000) < 110  # five standard deviations


@pytest.mark.parametrize("keywords", [None, [], (), "red", 7])
@pytest.mark.parametrize("weights", [KEYWORDS, BOTH], ids=["keywords", "caption and keywords"])
def test_a_sample_without_a_list_of_keywords_gives_its_caption(keywords, weights):
    assert set(texts(weights, keywords, count=20)) == {"a heart"}


# Prompts


def test_every_prompt_is_drawn_equally_often_and_holds_the_text():
    weights = TextsConfig(prompts=("a photo of {}", "{}, a drawing"))
    found = texts(weights, count=2000)
    assert set(found) == {"a photo of a heart", "a heart, a drawing"}
    assert abs(found.count("a photo of a heart") - 1000) < 112  # five standard deviations


def test_one_prompt_alone_costs_no_draw():
    rng, other = random_generator(0, 1), random_generator(0, 1)
    draw_text("a heart", Sample("k", b"", ("a heart",), {}), TextsConfig(prompts=("so: {}",)), rng)
    assert rng.integers(2**40) == other.integers(2**40)


def test_braces_in_a_caption_are_left_alone():
    sample = Sample("k", b"", ("a {} b",), {})
    assert (
        draw_text("a {} b", sample, TextsConfig(prompts=("<{}>",)), random_generator(0))
        == "<a {} b>"
    )


# Fields

SAMPLE = Sample(
    "k", b"", ("alt 1", "alt 2", "made up", "seen"), {}, ("alt", "alt", "synthetic", "ocr")
)


def captions(fields, count=3000, sample=SAMPLE):
    return [draw_caption(sample, fields, random_generator(0, draw)) for draw in range(count)]


def test_without_weights_every_caption_is_as_likely():
    found = captions({})
    # five standard deviations
    assert all(abs(found.count(caption) - 750) < 119 for caption in SAMPLE.captions)


def test_a_field_is_drawn_by_its_weight_and_its_captions_alike():
    found = captions({"alt": 3.0, "synthetic": 1.0, "ocr": 0.0, "absent": 5.0})
    assert "seen" not in found
    assert abs(found.count("made up") - 750) < 119
    assert abs(found.count("alt 1") - 1125) < 132 and abs(found.count("alt 2") - 1125) < 132


def test_a_sample_without_a_weighted_field_is_bad_and_says_which_it_has():
    words = (
        r"k: has no caption in title \(caption_fields\), only in alt, synthetic, ocr; name "
        r"its fields in the source"
    )
    with pytest.raises(SampleError, match=words) as caught:
        captions({"title": 1.0}, count=1)
    assert caught.value.reason is Reason.MISSING_CAPTION


# Checks


@pytest.mark.parametrize("weights", [CAPTION, BOTH, KEYWORDS])
def test_one_weight_above_0_is_enough(weights):
    check_texts(weights, "data.train")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            TextsConfig(caption=0.0),
            "data.train.caption, caption_and_keywords, keywords: at least one weight",
        ),
        (
            TextsConfig(caption_fields={"alt": 0.0}),
            "data.train.caption_fields: weights are at least 0, and one of them above 0",
        ),
        (
            TextsConfig(caption_fields={"alt": -1.0, "b": 2.0}),
            "data.train.caption_fields: weights are at least 0",
        ),
        (TextsConfig(prompts=("a photo",)), "data.train.prompts: 'a photo' has no {} for the text"),
        (TextsConfig(prompts=()), "data.train.prompts: at least one"),
    ],
)
def test_texts_that_cannot_be_drawn_are_an_error_that_names_the_key(weights, message):
    with pytest.raises(ConfigError, match=f"^config error: {message}"):
        check_texts(weights, "data.train")
