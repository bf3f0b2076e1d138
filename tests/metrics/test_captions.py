"""Tokens and metrics of captions against pycocoevalcap (`make_caption_metrics.py`), and CIDEr
without clipping against its equations."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from vlp_jax.metrics.captions.meteor import meteor, normalized, statistics
from vlp_jax.metrics.captions.ngrams import bleu, cider, rouge_l
from vlp_jax.metrics.captions.scores import caption_scores
from vlp_jax.metrics.captions.tokens import tokens

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/caption_metrics.json"


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def texts(golden):
    """The tokens of the candidates and of the references, with blanks between them."""
    return (
        [" ".join(tokens(text)) for text in golden["candidates"]],
        [[" ".join(tokens(text)) for text in captions] for captions in golden["references"]],
    )


@pytest.fixture(scope="module")
def said(texts):
    return [text.split() for text in texts[0]]


@pytest.fixture(scope="module")
def true(texts):
    return [[text.split() for text in captions] for captions in texts[1]]


def test_tokens_are_those_of_the_java_tokenizer(golden):
    for text, expected in golden["tokens"]:
        assert " ".join(tokens(text)) == expected, text


def test_bleu_is_that_of_pycocoevalcap(golden, said, true):
    np.testing.assert_allclose(bleu(said, true), golden["bleu"], rtol=0, atol=1e-12)
    one = bleu(said[3:4], true[3:4])
    np.testing.assert_allclose(one, golden["bleu_of_one"], rtol=0, atol=1e-12)


def test_rouge_is_that_of_pycocoevalcap(golden, texts):
    found = [
        rouge_l(text.split(" "), [other.split(" ") for other in captions])
        for text, captions in zip(*texts, strict=True)
    ]
    np.testing.assert_allclose(found, golden["rouge_l"], rtol=0, atol=1e-12)


def test_cider_is_that_of_pycocoevalcap(golden, said, true):
    np.testing.assert_allclose(cider(said, true), golden["cider"], rtol=0, atol=1e-12)


def test_meteor_is_that_of_its_jar(golden, texts):
    *each, corpus = golden["meteor"]
    found = [
        max(statistics(normalized(text), normalized(other)).score for other in captions)
        for text, captions in zip(*texts, strict=True)
    ]
    np.testing.assert_allclose(found, each, rtol=0, atol=1e-12)
    assert meteor(*texts) == pytest.approx(corpus, abs=1e-12)


def tf_idf(texts, images, length):
    """[texts, n-grams] weights g of equation 1 for n-grams of one length."""

    def grams(text):
        return [tuple(text[i : i + length]) for i in range(len(text) - length + 1)]

    names = sorted(set(itertools.chain.from_iterable(map(grams, texts))))
    counts = np.array([[grams(text).count(name) for name in names] for text in texts], np.float64)
    found = np.array(
        [sum(any(name in grams(text) for text in image) for image in images) for name in names]
    )
    return counts * np.log(len(images) / np.maximum(found, 1))


def test_cider_without_clipping_is_that_of_its_equations(said, true):
    kept = slice(3, 23)
    images, candidates = true[kept], said[kept]
    expected = np.zeros(len(images))
    for length in range(1, 5):
        texts = [*candidates, *itertools.chain.from_iterable(images)]
        weights = tf_idf(texts, images, length)
        norms = np.linalg.norm(weights, axis=1, keepdims=True)
        unit = weights / np.where(norms > 0, norms, 1)
        start = len(images)
        for number, captions in enumerate(images):
            others = unit[start : start + len(captions)]
            expected[number] += 10 / 4 * (others @ unit[number]).mean()
            start += len(captions)
    found = cider(candidates, images, clipped=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_scores_of_a_set_are_the_means_and_those_of_the_corpus(golden):
    found = caption_scores(golden["candidates"], golden["references"])
    bleus = [found[f"bleu_{length}"] for length in range(1, 5)]
    np.testing.assert_allclose(bleus, golden["bleu"], rtol=0, atol=1e-12)
    for name in ("rouge_l", "cider"):
        assert found[name] == pytest.approx(np.mean(golden[name]), abs=1e-12)
    assert found["meteor"] == pytest.approx(golden["meteor"][-1], abs=1e-12)


def test_true_captions_have_the_highest_scores():
    captions = [["a dog runs on the beach"], ["two cats sleep on a red sofa"]]
    found = caption_scores([one for (one,) in captions], captions)
    assert found["cider"] == pytest.approx(10)
    assert found["cider_plain"] == pytest.approx(10)
    assert found["bleu_4"] == pytest.approx(1, abs=1e-8)
    assert found["rouge_l"] == found["meteor"] == 1
