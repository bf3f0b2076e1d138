"""Re-ranking against ALBEF's evaluation written again with NumPy, on random embeddings."""

import types

import numpy as np
import pytest

from vlp_jax.evaluators.rerank import RERANK_METRICS, nearest, ranked_again, rerank
from vlp_jax.evaluators.retrieval import retrieval, text_pairs

IMAGES, CAPTIONS, K = 30, 40, 12


def random_set(seed):
    rng = np.random.default_rng(seed)
    owned = [[image] for image in range(IMAGES)]
    for caption in range(IMAGES, CAPTIONS):
        owned[rng.integers(IMAGES)].append(caption)
    owner = [next(i for i, own in enumerate(owned) if c in own) for c in range(CAPTIONS)]
    data = types.SimpleNamespace(
        captions_of_image=owned,
        images_of_caption=[[image] for image in owner],
        captions=[f"caption {c}" for c in range(CAPTIONS)],
    )
    texts = rng.standard_normal((CAPTIONS, 6))
    images = np.stack([texts[own].mean(axis=0) for own in owned])
    images += 0.8 * rng.standard_normal(images.shape)
    images, texts = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (images, texts)
    )
    logits = rng.standard_normal((IMAGES, CAPTIONS)) + 2 * images @ texts.T
    return data, images, texts, logits


def albefs_recalls(similarity, logits, positives, add):
    """`evaluation` and `itm_eval` of ALBEF's Retrieval.py for one direction, and with `add` BLIP's
    score: candidates outside the first ones have -100. [queries, candidates]"""
    scores = np.full(similarity.shape, -100.0)
    for query, row in enumerate(similarity):
        first = np.argsort(-row)[:K]
        scores[query, first] = logits[query, first] + (row[first] if add else 0.0)
    order = np.argsort(scores, axis=1)[:, ::-1]
    ranks = [
        min(np.where(row == one)[0][0] for one in own)
        for row, own in zip(order, positives, strict=True)
    ]
    return [np.mean(np.array(ranks) < k) for k in (1, 5, 10)]


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_recalls_are_those_of_albef_and_with_the_similarity_those_of_blip(seed, add):
    data, images, texts, logits = random_set(seed)

    def score(pairs):
        assert len(pairs) == len({*pairs})
        return np.array([logits[image, data.captions.index(text)] for image, text in pairs])

    found = rerank(
        images,
        texts,
        data.captions,
        text_pairs(data, False),
        score,
        candidates=K,
        add_similarity=add,
    )
    assert set(found) == {*RERANK_METRICS}
    similarity = images @ texts.T
    plain = retrieval(images, texts, data, merge_equal_captions=False)
    for way, rows, positives in (
        ("image_to_text", (similarity, logits), data.captions_of_image),
        ("text_to_image", (similarity.T, logits.T), data.images_of_caption),
    ):
        expected = albefs_recalls(*rows, positives, add)
        assert [found[f"rerank_{way}_recall@{k}"] for k in (1, 5, 10)] == pytest.approx(expected)
        before = [found[f"rerank_{way}_recall@{k}_before"] for k in (1, 5, 10)]
        assert before == [plain[f"{way}_recall@{k}"] for k in (1, 5, 10)]
        limit = np.mean(
            [
                np.isin(np.argsort(-row)[:K], own).any()
                for row, own in zip(rows[0], positives, strict=True)
            ]
        )
        assert found[f"rerank_{way}_found"] == pytest.approx(limit)


def test_ties_count_against_the_model_and_equal_captions_are_ranked_in_their_order():
    rows, scores = np.array([[2, 0, 1]]), np.zeros((1, 3))
    tied, found = ranked_again(rows, scores, [[0]], np.array([2]), None)
    assert (tied.tolist(), found) == ([3], 1.0)
    same = ranked_again(rows, scores, [[0]], np.array([2]), np.array([7, 7, 7]))[0]
    assert same.tolist() == [1]
    assert ranked_again(rows, scores, [[2]], np.array([2]), np.array([7, 7, 7]))[0].tolist() == [3]
    behind, found = ranked_again(rows, scores, [[5]], np.array([9]), None)
    assert (behind.tolist(), found) == ([9], 0.0)


def test_the_nearest_candidates_are_the_first_of_equal_ones():
    axes = np.eye(3, dtype=np.float32)
    order, scores = nearest(axes[:1], axes[[1, 0, 0]], 2)
    assert (order.tolist(), scores.tolist()) == ([[1, 2]], [[1.0, 1.0]])
    assert nearest(axes, axes, 9)[0].shape == (3, 3)
