"""Retrieval on embeddings made by hand, and over a predictor that must see every item once."""

import types

import jax
import numpy as np
import pytest

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.retrieval import RETRIEVAL_METRICS, retrieval
from vlp_jax.metrics.ranking import similarities
from vlp_jax.sharding.mesh import MeshConfig, build_mesh


def pairs(captions_of_image, captions):
    images_of_caption = [
        [i for i, own in enumerate(captions_of_image) if caption in own]
        for caption in range(captions)
    ]
    return types.SimpleNamespace(
        captions_of_image=captions_of_image, images_of_caption=images_of_caption
    )


AXES = np.eye(3, dtype=np.float32)


def test_every_promised_metric_is_there_and_a_perfect_model_gets_them_right():
    results = retrieval(AXES, AXES, pairs([[0], [1], [2]], 3))
    assert set(results) == set(RETRIEVAL_METRICS)
    assert results["text_to_image_recall@1"] == results["image_to_text_recall@1"] == 1.0
    assert results["text_to_image_median_rank"] == 1.0
    assert results["text_to_image_chance@1"] == pytest.approx(1 / 3)


def test_any_picture_with_the_caption_and_any_caption_of_the_picture_is_a_hit():
    """Pictures 0 and 1 share caption 0; picture 2 has captions 1 and 2, of which the model knows
    only the second."""
    images = AXES[[1, 0, 2]]
    texts = np.stack([AXES[0], [0.6, 0.8, 0.0], AXES[2]])
    results = retrieval(images, texts, pairs([[0], [0], [1, 2]], 3))
    assert results["text_to_image_recall@1"] == pytest.approx(2 / 3)  # caption 1 finds picture 0
    assert results["image_to_text_recall@1"] == pytest.approx(2 / 3)  # picture 0 finds caption 1


def clip_benchmarks_recall(scores, images_of_texts, k):
    """Recall@k as CLIP_benchmark's zeroshot_retrieval.py counts it, in its two directions
    (`recall_at_k(...) > 0`), written again with NumPy: scores [texts, images]; a stable sort in
    place of torch.topk, whose order of ties is not defined.
    """
    positive = np.zeros(scores.shape, bool)
    positive[np.arange(len(scores)), images_of_texts] = True
    recall = []
    for of_queries, true in ((scores, positive), (scores.T, positive.T)):
        first = np.argsort(-of_queries, axis=1, kind="stable")[:, :k]
        recall.append(np.take_along_axis(true, first, axis=1).any(axis=1).mean())
    return recall


@pytest.mark.parametrize("seed", range(4))
def test_without_merging_recall_is_that_of_clip_benchmark(seed):
    """Images with several captions, of which many are another image's too, or the same image's
    twice."""
    rng = np.random.default_rng(seed)
    owned = [list(rng.integers(0, 25, rng.integers(1, 6))) for _ in range(40)]
    used = sorted({caption for own in owned for caption in own})
    owned = [[used.index(caption) for caption in own] for own in owned]
    images, texts = (
        rng.standard_normal((count, 8)).astype(np.float32) for count in (40, len(used))
    )
    images += 1.5 * np.stack([texts[own].mean(axis=0) for own in owned])
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
    found = retrieval(images, texts, pairs(owned, len(used)), merge_equal_captions=False)
    each = np.concatenate([texts[own] for own in owned])
    images_of_texts = np.repeat(np.arange(40), [len(own) for own in owned])
    for k in (1, 5, 10):
        expected = clip_benchmarks_recall(similarities(each, images), images_of_texts, k)
        assert [
            found[f"text_to_image_recall@{k}"],
            found[f"image_to_text_recall@{k}"],
        ] == pytest.approx(expected), (seed, k)
    assert found["texts"] == len(each) and found["images"] == 40
    assert found["text_to_image_chance@1"] == pytest.approx(1 / 40)
    merged = retrieval(images, texts, pairs(owned, len(used)))
    assert (
        merged["texts"] == len(used)
        and merged["text_to_image_recall@1"] > found["text_to_image_recall@1"]
    )


def test_equal_captions_are_found_by_their_own_images_and_no_more_than_one_image_is_first():
    """Three images of which two are called the same: a perfect model cannot keep them apart."""
    images, texts = AXES[[0, 0, 1]], AXES[:2]
    found = retrieval(images, texts, pairs([[0], [0], [1]], 2), merge_equal_captions=False)
    assert found["image_to_text_recall@1"] == pytest.approx(2 / 3)
    # equal images tie, and ties of images count against the model
    assert found["text_to_image_recall@1"] == pytest.approx(1 / 3)
    same = np.tile(np.float32([0.6, 0.8]), (40, 1))
    collapsed = retrieval(
        same, same, pairs([[i] for i in range(40)], 40), merge_equal_captions=False
    )
    assert collapsed["text_to_image_recall@10"] == collapsed["image_to_text_recall@10"] == 0.0


def test_a_collapsed_model_finds_nothing():
    same = np.tile(np.float32([0.6, 0.8]), (40, 1))
    results = retrieval(same, same, pairs([[i] for i in range(40)], 40))
    assert results["text_to_image_recall@10"] == results["image_to_text_recall@10"] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_an_error(bad):
    broken = AXES.copy()
    broken[1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        retrieval(broken, AXES, pairs([[0], [1], [2]], 3))


@pytest.mark.variants
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("items", "batch_size"), [(7, 3), (6, 3), (1, 5), (10, 16)])
def test_every_item_is_embedded_once_and_in_order(devices, items, batch_size):
    def embed(variables, image, text, mask):
        return (image.mean(axis=(1, 2)) if image is not None else None), text

    preprocessor = Preprocessor(
        4, ImagesConfig(mean=(0.0,) * 3, std=(1.0,) * 3), load_tokenizer(TextConfig(), 8, 4096)
    )
    mesh = build_mesh(MeshConfig(), jax.devices()[:devices])
    predictor = Predictor(embed, preprocessor, mesh)
    pixels = [np.full((4, 4, 3), i, np.uint8) for i in range(items)]
    embedded = predictor.images({}, iter(pixels), batch_size)
    np.testing.assert_allclose(embedded, np.tile(np.arange(items)[:, None] / 255, 3), rtol=1e-6)
    captions = [f"{i} hearts" for i in range(items)]
    np.testing.assert_array_equal(
        predictor.texts({}, captions, batch_size), preprocessor.tokenizer(captions)[0]
    )
