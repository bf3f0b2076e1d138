"""Image-text matching: the loss against float64 NumPy, and whom it draws as negatives."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.objectives.matching import (
    Matching,
    MatchingConfig,
    draw_negatives,
    interleave,
    matching_loss,
    rows_of,
)
from vlp_jax.sharding.parameter_sharding import named_axes
from vlp_jax.training.build import build_module, example_batch


@pytest.mark.full
@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "hinge"])
def test_the_loss_its_gradient_and_its_metrics_equal_float64_numpy(kind):
    rng = np.random.default_rng(0)
    logits, labels, asked = (
        2.0 * rng.normal(size=(30, 2)),
        rng.integers(0, 2, 30),
        rng.random(30) < 0.7,
    )
    if kind != "cross_entropy":
        logits[:, 0] = 0.0  # a head of one number
    score, signs, rate = logits[:, 1], 2 * labels - 1, labels[asked].mean()
    reference, slopes = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate), None
    if kind == "cross_entropy":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = -np.log(p[np.arange(30), labels])
        slopes = p - np.eye(2)[labels]
    elif kind == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-score))
        expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
        slopes = np.stack([labels - p, p - labels], axis=1)
    else:
        expected, reference = np.maximum(0.0, 1.0 - signs * score), 2 * min(rate, 1 - rate)
        slopes = np.where(signs * score < 1, signs, 0)[:, None] * [1.0, -1.0]
    given = jnp.asarray(labels), jnp.asarray(asked), kind
    loss = matching_loss(jnp.asarray(logits, jnp.float32), *given)
    np.testing.assert_allclose(loss.value, expected[asked].mean(), rtol=1e-5)
    found = jax.grad(lambda logits: matching_loss(logits, *given).value)(
        jnp.asarray(logits, jnp.float32)
    )
    np.testing.assert_allclose(found, slopes * asked[:, None] / asked.sum(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loss.metrics["positive_rate"], rate, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["reference"], reference, rtol=1e-5)
    np.testing.assert_allclose(
        loss.metrics["accuracy"], (logits.argmax(1) == labels)[asked].mean(), rtol=1e-5
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "hinge"])
def test_the_reference_is_the_least_that_one_answer_for_all_pairs_can_lose(kind):
    labels, asked = jnp.array([1, 0, 0, 1, 0, 0]), jnp.array([True] * 5 + [False])
    answers = np.linspace(-3, 3, 2401)
    losses = jax.vmap(
        lambda answer: (
            matching_loss(
                jnp.tile(jnp.stack([0.0 * answer, answer]), (6, 1)), labels, asked, kind
            ).value
        )
    )(jnp.asarray(answers, jnp.float32))
    reference = matching_loss(jnp.zeros((6, 2)), labels, asked, kind).metrics["reference"]
    np.testing.assert_allclose(losses.min(), reference, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "numbers"), [("cross_entropy", 2), ("binary_cross_entropy", 1), ("hinge", 1)]
)
def test_a_head_of_one_number_gives_evaluators_two_scores_the_first_of_them_0(kind, numbers):
    pooled = jax.random.normal(jax.random.key(0), (4, 8))
    model = types.SimpleNamespace(
        fuse=lambda image, text, train: types.SimpleNamespace(pooled=pooled), precision=Precision()
    )
    logits, variables = (
        MatchingConfig(loss=kind)
        .build()
        .init_with_output(jax.random.key(1), model, None, None, method="logits")
    )
    head = nn.meta.unbox(variables)["params"]["head"]
    assert head["kernel"].shape == (8, numbers) and logits.shape == (4, 2)
    assert (np.asarray(logits[:, 0]) == 0).all() == (numbers == 1)
    np.testing.assert_allclose(
        logits[:, -1], np.asarray(pooled) @ np.asarray(head["kernel"])[:, -1], rtol=1e-5, atol=1e-7
    )


def test_negatives_follow_the_softmax_of_the_similarities_and_are_never_forbidden():
    rng, draws = np.random.default_rng(0), 20_000
    similarity, allowed = 2.0 * rng.normal(size=(4, 6)), rng.random((4, 6)) < 0.7
    allowed[3] = False
    expected = np.where(allowed, np.exp(similarity), 0.0)[:3]
    expected /= expected.sum(1, keepdims=True)
    drawn, has_any = jax.vmap(
        lambda key: draw_negatives(key, jnp.asarray(similarity), jnp.asarray(allowed))
    )(jax.random.split(jax.random.key(1), draws))
    assert (np.asarray(has_any) == [True, True, True, False]).all()
    counts = np.stack([np.bincount(np.asarray(drawn)[:, row], minlength=6) for row in range(3)])
    assert (counts[expected == 0] == 0).all()
    seen = expected > 0
    chi_square = ((counts - draws * expected)[seen] ** 2 / (draws * expected[seen])).sum()
    freedom = seen.sum() - 3
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom), (chi_square, freedom)


def asked_pairs(negatives, batch, seed=0, negatives_from="both", negative_rate=None):
    """int [B, K, 2]: the numbers of the image and of the text in each of an example's pairs that
    the fusion is given, and the loss.
    """
    numbers = jnp.arange(len(batch["text"]), dtype=jnp.float32)[:, None]
    encoding = Encoding(jnp.zeros((len(numbers), 2, 1)), None, numbers)
    vectors = jax.random.normal(jax.random.key(seed), (len(numbers), 4))
    encodings = {
        "image": encoding,
        "text": encoding,
        "image_embedding": vectors,
        "text_embedding": vectors,
    }
    seen, module = (
        [],
        MatchingConfig(
            negatives=negatives, negatives_from=negatives_from, negative_rate=negative_rate
        ).build(),
    )

    def fuse(image, text, train):
        assert train
        seen.append(jnp.stack([image.pooled[:, 0], text.pooled[:, 0]], axis=1))
        return types.SimpleNamespace(pooled=seen[-1])

    keys = {"params": jax.random.key(seed), "dropout": jax.random.key(seed + 1)}
    loss, _ = module.init_with_output(
        keys, encodings, batch, types.SimpleNamespace(fuse=fuse, precision=Precision())
    )
    return np.asarray(seen[-1]).astype(int).reshape(len(numbers), -1, 2), loss


def batch_of(size):
    ids = np.stack([np.arange(size), np.arange(size)], axis=1).astype(np.int32)
    image, caption = ids + 100, ids.copy()
    image[1], caption[3] = image[0], caption[2]
    return {
        "text": jnp.zeros((size, 3)),
        "caption_id": jnp.asarray(caption),
        "image_id": jnp.asarray(image),
    }


@pytest.mark.full
@pytest.mark.parametrize("negatives", ["similar", "uniform"])
def test_each_pair_comes_with_a_wrong_text_and_a_wrong_image_never_of_the_same_image_or_caption(
    negatives,
):
    for seed in range(5):
        pairs, loss = asked_pairs(negatives, batch_of(8), seed)
        rows = np.arange(8)
        np.testing.assert_array_equal(pairs[:, 0], np.stack([rows, rows], axis=1))
        np.testing.assert_array_equal(pairs[:, 1, 0], rows)
        np.testing.assert_array_equal(pairs[:, 2, 1], rows)
        forbidden = {(0, 1), (1, 0), (2, 3), (3, 2)} | {(i, i) for i in rows}
        assert not forbidden & {tuple(pair) for pair in pairs[:, 1:].reshape(-1, 2)}
        np.testing.assert_allclose(loss.metrics["positive_rate"], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(("negatives_from", "same"), [("text", 0), ("image", 1)])
def test_asked_about_one_kind_of_wrong_pair_alone_half_of_the_pairs_are_right(negatives_from, same):
    pairs, loss = asked_pairs("uniform", batch_of(8), negatives_from=negatives_from)
    rows = np.arange(8)
    assert pairs.shape == (8, 2, 2)
    np.testing.assert_array_equal(pairs[:, 0], np.stack([rows, rows], axis=1))
    np.testing.assert_array_equal(pairs[:, 1, same], rows)
    assert (pairs[:, 1, 1 - same] != rows).all()
    np.testing.assert_allclose(loss.metrics["positive_rate"], 0.5, rtol=1e-6)


def test_a_floor_is_added_to_the_probabilities_of_the_whole_row():
    """BLIP models/blip_pretrain.py:155-157: softmax over the row, its own pair among it, plus 1e-4,
    and then 0 for its own pair."""
    rng, draws, floor = np.random.default_rng(0), 20_000, 0.05
    similarity, allowed = 3.0 * rng.normal(size=(3, 5)), ~np.eye(3, 5, dtype=bool)
    expected = (np.exp(similarity) / np.exp(similarity).sum(1, keepdims=True) + floor) * allowed
    expected /= expected.sum(1, keepdims=True)
    drawn, _ = jax.vmap(
        lambda key: draw_negatives(key, jnp.asarray(similarity), jnp.asarray(allowed), floor)
    )(jax.random.split(jax.random.key(1), draws))
    for row in range(3):
        counts = np.bincount(np.asarray(drawn)[:, row], minlength=5)
        np.testing.assert_allclose(counts / draws, expected[row], atol=4 * 0.5 / np.sqrt(draws))


def test_negatives_are_drawn_by_the_scale_that_was_learned_and_harden_with_it():
    encodings = {
        name: jax.random.normal(jax.random.key(number), (6, 4))
        for number, name in enumerate(("image_embedding", "text_embedding"))
    }
    for scale in (2.0, 50.0):
        learned = (
            MatchingConfig(negative_scale=None)
            .build()
            .similarity({**encodings, "scale": jnp.float32(scale)}, (6, 6))
        )
        fixed = (
            MatchingConfig(negative_scale=scale)
            .build()
            .similarity({**encodings, "scale": None}, (6, 6))
        )
        np.testing.assert_allclose(learned, fixed, rtol=1e-6)
    with pytest.raises(
        ConfigError,
        match="negative_scale=None draws by the scale that a contrastive objective has learned",
    ):
        MatchingConfig(negative_scale=None).build().similarity({**encodings, "scale": None}, (6, 6))


@pytest.mark.full
@pytest.mark.parametrize("changes", [dict(scale_parameter="temperature"), {}])
def test_the_module_hands_over_the_scale_of_its_contrastive_objective(changes):
    config = experiment(
        model__fusion=dict(kind="gated", width=8),
        objectives=dict(
            matching=dict(kind="matching", negative_scale=None),
            pairs=dict(kind="clip", initial_scale=5.0, **changes),
        ),
    )
    module, batch = build_module(config), example_batch(config)
    variables = nn.meta.unbox(module.init(jax.random.key(0), batch))
    np.testing.assert_allclose(module.apply(variables, method="learned_scale"), 5.0, rtol=1e-5)
    own = variables["params"]["objectives_pairs"]
    name = next(iter(own))
    own[name] = jnp.log(7.0) if name == "log_scale" else jnp.float32(1 / 7)
    np.testing.assert_allclose(module.apply(variables, method="learned_scale"), 7.0, rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(
    ("negatives_from", "rate"), [("image", 0.5), ("text", 0.1), ("both", 0.4), ("image", 0.0)]
)
def test_asked_about_once_a_pair_is_wrong_as_often_as_it_is_said(negatives_from, rate):
    rows, seen = np.arange(8), []
    for seed in range(60):
        pairs, loss = asked_pairs("uniform", batch_of(8), seed, negatives_from, rate)
        assert pairs.shape == (8, 1, 2)
        other_image, other_text = (pairs[:, 0, side] != rows for side in (0, 1))
        assert not (other_image & other_text).any()
        assert not (negatives_from == "text" and other_image.any()) and not (
            negatives_from == "image" and other_text.any()
        )
        assert not {(0, 1), (1, 0), (2, 3), (3, 2)} & {tuple(pair) for pair in pairs[:, 0]}
        is_wrong = other_image | other_text
        np.testing.assert_allclose(loss.metrics["positive_rate"], 1 - is_wrong.mean(), rtol=1e-6)
        seen.append([other_image.mean(), other_text.mean()])
    share = np.mean(seen, axis=0)
    expected = {"image": [rate, 0], "text": [0, rate], "both": [rate / 2, rate / 2]}[negatives_from]
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 480))


def test_wrong_pairs_take_their_boxes_and_edges_along():
    boxes, edges = (
        np.random.default_rng(0).normal(size=(4, 2, 4)),
        np.random.default_rng(1).random((4, 3, 3)) < 0.5,
    )
    encoding = Encoding(
        jnp.zeros((4, 2, 1)), None, None, boxes=jnp.asarray(boxes), edges=jnp.asarray(edges)
    )
    index = np.array([2, 0, 3, 1])
    both = interleave(encoding, rows_of(encoding, jnp.asarray(index)))
    for found, expected in ((both.boxes, boxes.astype(np.float32)), (both.edges, edges)):
        np.testing.assert_array_equal(found[::2], expected)
        np.testing.assert_array_equal(found[1::2], expected[index])


@pytest.mark.full
def test_rows_without_an_allowed_negative_are_left_out():
    ids = jnp.zeros((4, 2), jnp.int32)
    batch = {"text": jnp.zeros((4, 3)), "caption_id": ids, "image_id": ids}
    _, loss = asked_pairs("similar", batch)
    assert (
        loss.metrics["positive_rate"] == 1.0
        and loss.metrics["reference"] == 0.0
        and np.isfinite(loss.value)
    )


def test_in_bfloat16_the_head_gives_float32_and_the_same_from_a_working_copy():
    precision = Precision(jnp.bfloat16)
    pooled = jax.random.normal(jax.random.key(0), (4, 8)).astype(jnp.bfloat16)
    model = types.SimpleNamespace(
        fuse=lambda image, text, train: types.SimpleNamespace(pooled=pooled), precision=precision
    )
    logits, variables = Matching().init_with_output(
        jax.random.key(1), model, None, None, method="logits"
    )
    assert logits.dtype == jnp.float32
    params, axes = nn.meta.unbox(variables)["params"], named_axes(variables["params"])
    copied = Matching().apply(
        {"params": precision.working_copy(params, axes)}, model, None, None, method="logits"
    )
    np.testing.assert_array_equal(copied, logits)
    kernel = np.asarray(
        nn.meta.unbox(variables)["params"]["head"]["kernel"].astype(jnp.bfloat16), np.float64
    )
    np.testing.assert_allclose(
        logits, np.asarray(pooled, np.float64) @ kernel, rtol=1e-5, atol=1e-7
    )
