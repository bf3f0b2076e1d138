"""Retrieval on embeddings made by hand, and over an embedder that must see every item once."""

import types

import jax
import numpy as np
import pytest

from vlp_jax.config import schema
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text import load_tokenizer
from vlp_jax.evaluators.embedder import Embedder
from vlp_jax.evaluators.retrieval import RETRIEVAL_METRICS, retrieval
from vlp_jax.sharding.mesh import make_mesh


def pairs(captions_of_image, captions):
    images_of_caption = [[i for i, own in enumerate(captions_of_image) if caption in own] for caption in range(captions)]
    return types.SimpleNamespace(captions_of_image=captions_of_image, images_of_caption=images_of_caption)


AXES = np.eye(3, dtype=np.float32)


def test_every_promised_metric_is_there_and_a_perfect_model_gets_them_right():
    results = retrieval(AXES, AXES, pairs([[0], [1], [2]], 3))
    assert set(results) == set(RETRIEVAL_METRICS)
    assert results["text_to_image_recall@1"] == results["image_to_text_recall@1"] == 1.0
    assert results["text_to_image_median_rank"] == 1.0
    assert results["text_to_image_chance@1"] == pytest.approx(1 / 3)


def test_any_picture_with_the_caption_and_any_caption_of_the_picture_is_a_hit():
    """Pictures 0 and 1 share caption 0; picture 2 has captions 1 and 2, of which the model knows only the second."""
    images = AXES[[1, 0, 2]]
    texts = np.stack([AXES[0], [0.6, 0.8, 0.0], AXES[2]])
    results = retrieval(images, texts, pairs([[0], [0], [1, 2]], 3))
    assert results["text_to_image_recall@1"] == pytest.approx(2 / 3)  # caption 1 finds picture 0
    assert results["image_to_text_recall@1"] == pytest.approx(2 / 3)  # picture 0 finds caption 1


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


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("items", "batch_size"), [(7, 3), (6, 3), (1, 5), (10, 16)])
def test_every_item_is_embedded_once_and_in_order(devices, items, batch_size):
    def embed(variables, image, text, mask):
        return (image.mean(axis=(1, 2)) if image is not None else None), text

    preprocessor = Preprocessor(4, schema.Images(mean=(0.0,) * 3, std=(1.0,) * 3), load_tokenizer(schema.Text(), 8, 4096))
    mesh = make_mesh(schema.Mesh(), jax.devices()[:devices])
    embedder = Embedder(embed, preprocessor, mesh)
    pixels = [np.full((4, 4, 3), i, np.uint8) for i in range(items)]
    embedded = embedder.images({}, iter(pixels), batch_size)
    np.testing.assert_allclose(embedded, np.tile(np.arange(items)[:, None] / 255, 3), rtol=1e-6)
    captions = [f"{i} hearts" for i in range(items)]
    np.testing.assert_array_equal(embedder.texts({}, captions, batch_size), preprocessor.tokenizer(captions)[0])
