"""The matching evaluator: which pairs it asks about, and what it counts."""

import types

import jax
import numpy as np
import pytest

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.evaluators.matching import MATCHING_METRICS, held_out_pairs, matching
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.sharding.mesh import MeshConfig, build_mesh

# Pictures 0 and 1 share caption 0, so that caption 1, of picture 1, is no wrong one for picture 0.
CAPTIONS_OF_IMAGE, IMAGES_OF_CAPTION = [[0], [0, 1], [2], [3]], [[0, 1], [1], [2], [3]]
SET = types.SimpleNamespace(
    captions_of_image=CAPTIONS_OF_IMAGE, images_of_caption=IMAGES_OF_CAPTION, captions=list("abcd")
)


def test_wrong_captions_are_drawn_from_those_that_nothing_related_bears():
    seen = set()
    for seed in range(30):
        pairs, belongs = held_out_pairs(CAPTIONS_OF_IMAGE, IMAGES_OF_CAPTION, seed)
        assert pairs[:, 0].tolist() == [0, 0, 2, 3] and (belongs == [True, False]).all()
        seen |= set(enumerate(pairs[:, 1].tolist()))
    assert seen == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3), (3, 0), (3, 1), (3, 2)}
    assert held_out_pairs([[0], [0]], [[0, 1]])[0].tolist() == [[0, -1], [0, -1]]


def test_accuracy_is_1_for_a_right_model_0_for_ties_and_half_for_one_that_always_says_yes():
    def knows(pairs):
        true = [
            any(SET.captions[caption] == text for caption in CAPTIONS_OF_IMAGE[image])
            for image, text in pairs
        ]
        return np.where(np.array(true)[:, None], [[0.0, 1.0]], [[1.0, 0.0]])

    results = matching(knows, SET)
    assert set(results) == set(MATCHING_METRICS)
    assert results == {
        "matching_pairs": 8,
        "matching_accuracy": 1.0,
        "matching_positive_rate": 0.5,
        "matching_precision": 1.0,
        "matching_recall": 1.0,
        "matching_f1": 1.0,
        "matching_majority_accuracy": 0.5,
        "matching_always_yes_f1": pytest.approx(2 / 3),
    }
    tied = matching(lambda pairs: np.zeros((len(pairs), 2)), SET)
    assert [tied[f"matching_{name}"] for name in ("accuracy", "precision", "recall", "f1")] == [
        0.0
    ] * 4
    always = matching(lambda pairs: np.tile([0.0, 1.0], (len(pairs), 1)), SET)
    assert always["matching_accuracy"] == always["matching_majority_accuracy"] == 0.5
    assert (
        always["matching_precision"] == always["matching_positive_rate"]
        and always["matching_recall"] == 1.0
    )
    assert always["matching_f1"] == always["matching_always_yes_f1"]
    with pytest.raises(ValueError, match="not finite"):
        matching(lambda pairs: np.full((len(pairs), 2), np.nan), SET)


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_and_f1_are_counts_of_the_answers_also_where_pictures_lack_a_wrong_caption(
    seed,
):
    rng, count = np.random.default_rng(seed), 40
    shared = types.SimpleNamespace(
        captions_of_image=[[0]] * 5 + [[i] for i in range(1, count - 4)],
        images_of_caption=[list(range(5))] + [[i] for i in range(5, count)],
    )
    only = types.SimpleNamespace(
        captions_of_image=[[0]] * 3, images_of_caption=[[0, 1, 2]], captions=["a"]
    )
    shared.captions = [str(i) for i in range(len(shared.images_of_caption))]
    scores, asked = rng.normal(size=(2 * count, 2)), []

    def match(pairs):
        asked.extend(pairs)
        return scores[: len(pairs)]

    results = matching(match, shared)
    truth = [
        shared.captions.index(text) in shared.captions_of_image[image] for image, text in asked
    ]
    says = [no < yes for no, yes in scores[: len(asked)]]
    hits, said, should = (
        sum(t and y for t, y in zip(truth, says, strict=True)),
        sum(says),
        sum(truth),
    )
    assert 0 < hits < said and results["matching_precision"] == pytest.approx(hits / said)
    assert results["matching_recall"] == pytest.approx(hits / should)
    assert results["matching_f1"] == pytest.approx(2 * hits / (said + should))
    all_true = matching(lambda pairs: np.tile([1.0, 0.0], (len(pairs), 1)), only)
    assert (
        all_true["matching_positive_rate"]
        == all_true["matching_majority_accuracy"]
        == all_true["matching_always_yes_f1"]
        == 1.0
    )
    assert (
        all_true["matching_accuracy"]
        == all_true["matching_precision"]
        == all_true["matching_f1"]
        == 0.0
    )


@pytest.mark.parametrize("devices", [1, 8])
def test_every_pair_is_asked_about_once_and_in_order(devices):
    def match(variables, batch):
        return jax.numpy.stack(
            [batch["image"].mean(axis=(1, 2, 3)), batch["text"].sum(axis=1).astype(float)], axis=1
        )

    preprocessor = Preprocessor(
        4, ImagesConfig(mean=(0.0,) * 3, std=(1.0,) * 3), load_tokenizer(TextConfig(), 8, 4096)
    )
    predictor = Predictor(
        None, preprocessor, build_mesh(MeshConfig(), jax.devices()[:devices]), match
    )
    captions = [f"{i} hearts" for i in range(7)]
    rows = (
        {"image": np.full((4, 4, 3), i, np.uint8), "text": caption}
        for i, caption in enumerate(captions)
    )
    scores = predictor.pairs({}, rows, 3)
    np.testing.assert_allclose(scores[:, 0], np.arange(7) / 255, rtol=1e-6)
    np.testing.assert_allclose(scores[:, 1], preprocessor.tokenizer(captions)[0].sum(1))
