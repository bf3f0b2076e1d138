"""Contrastive losses against float64 NumPy written from the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contrastive_oracle import pairs, relative_error, sigmoid_oracle, softmax_oracle

from vlp_jax.objectives.contrastive import (
    SigmoidContrastive,
    SigmoidContrastiveConfig,
    SoftmaxContrastive,
    SoftmaxContrastiveConfig,
    shared_positives,
)
from vlp_jax.objectives.contrastive_losses import (
    sigmoid_contrastive,
    softmax_contrastive,
    top1_accuracy,
)


@pytest.mark.variants
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("kind", ["softmax", "softmax smoothed", "sigmoid"])
@pytest.mark.parametrize("noise", [None, 0.5], ids=["unrelated", "aligned"])
def test_value_and_gradients_equal_float64_numpy(kind, noise, dtype, bound, scale):
    image, text, positives = pairs(noise)
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(x, dtype) for x in (image, text, scale)]
        # what the arrays hold after rounding
        image, text, scale = (np.asarray(x, np.float64) for x in arrays)
        if kind == "sigmoid":
            arrays.append(jnp.asarray(-10.0, dtype))
            expected = sigmoid_oracle(image, text, scale, -10.0, positives)
            value, gradients = jax.value_and_grad(sigmoid_contrastive, argnums=(0, 1, 2, 3))(
                *arrays, jnp.asarray(positives)
            )
        else:
            smoothing = 0.1 if "smoothed" in kind else 0.0
            expected = softmax_oracle(image, text, scale, positives, smoothing)
            value, gradients = jax.value_and_grad(softmax_contrastive, argnums=(0, 1, 2))(
                *arrays, jnp.asarray(positives), smoothing
            )
    errors = [
        relative_error(a, b)
        for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)
    ]
    assert max(errors) <= bound, errors


def test_examples_that_share_a_caption_or_an_image_are_each_others_positives():
    ids = np.arange(8, dtype=np.int32).reshape(4, 2)
    caption, image = ids.copy(), ids.copy()
    caption[1], image[3] = caption[0], image[2]
    batch = {
        "text": jnp.zeros((4, 3)),
        "caption_id": jnp.asarray(caption),
        "image_id": jnp.asarray(image),
    }
    both = np.eye(4, dtype=bool)
    both[0, 1] = both[1, 0] = both[2, 3] = both[3, 2] = True
    np.testing.assert_array_equal(shared_positives(batch, ("caption", "image")), both)
    np.testing.assert_array_equal(shared_positives(batch, ()), np.eye(4, dtype=bool))


@pytest.mark.full
@pytest.mark.parametrize("scale", [14.3, 100.0])
def test_float32_is_exact_where_nearly_every_pair_is_solved_and_the_loss_is_tiny(scale):
    image, text, positives = pairs(noise=1.0 if scale == 100 else 0.2, batch=48, dim=64)
    arrays = [jnp.asarray(x, jnp.float32) for x in (image, text, scale)]
    expected = softmax_oracle(*(np.asarray(x, np.float64) for x in arrays), positives, 0.0)
    assert expected[0] < 1e-3
    value, gradients = jax.value_and_grad(softmax_contrastive, argnums=(0, 1, 2))(*arrays)
    errors = [
        relative_error(a, b)
        for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)
    ]
    assert max(errors) <= 1e-5, errors


@pytest.mark.full
@pytest.mark.parametrize(
    "loss", [softmax_contrastive, lambda *x: sigmoid_contrastive(*x[:3], -10.0, *x[3:])]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_losses_and_gradients_are_finite_at_the_ends(loss, sign):
    """All pairs as right or as wrong as they can be, alone in the batch, and everybody's
    positive."""
    vectors = jnp.asarray(np.concatenate([np.eye(4), -np.eye(4)]), jnp.float32)
    for image, positives in (
        (vectors, jnp.eye(8, dtype=bool)),
        (vectors, jnp.ones((8, 8), bool)),
        (vectors[:1], None),
    ):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))(
            image, sign * image, jnp.float32(100.0), positives
        )
        assert np.isfinite(value) and value >= 0.0
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_without_positives_the_diagonal_is_meant():
    image, text, _ = (jnp.asarray(x) for x in pairs())
    assert softmax_contrastive(image, text, 5.0) == softmax_contrastive(
        image, text, 5.0, jnp.eye(12, dtype=bool)
    )
    assert sigmoid_contrastive(image, text, 5.0, -1.0) == sigmoid_contrastive(
        image, text, 5.0, -1.0, jnp.eye(12, dtype=bool)
    )


def test_losses_of_bfloat16_embeddings_are_computed_in_float32():
    image, text, _ = (jnp.asarray(x, jnp.bfloat16) for x in pairs())
    wide = image.astype(jnp.float32), text.astype(jnp.float32)
    for loss in (softmax_contrastive, lambda *x: sigmoid_contrastive(*x, -10.0)):
        assert loss(image, text, jnp.float32(14.3)).dtype == jnp.float32
        np.testing.assert_allclose(
            loss(image, text, jnp.float32(14.3)), loss(*wide, jnp.float32(14.3)), rtol=1e-6
        )


def encodings_and_batch():
    image, text, _ = pairs()
    ids = np.stack([np.arange(12), np.zeros(12)], axis=1).astype(np.int32)
    caption = ids.copy()
    caption[4] = caption[9]
    batch = {
        "text": jnp.zeros((12, 3)),
        "caption_id": jnp.asarray(caption),
        "image_id": jnp.asarray(ids),
    }
    return {
        "image_embedding": jnp.asarray(image, jnp.float32),
        "text_embedding": jnp.asarray(text, jnp.float32),
    }, batch


def test_objectives_start_at_the_published_values_and_count_shared_captions_as_positives():
    encodings, batch = encodings_and_batch()
    positives = np.eye(12, dtype=bool)
    positives[4, 9] = positives[9, 4] = True
    images, texts = encodings["image_embedding"], encodings["text_embedding"]

    loss, variables = SoftmaxContrastive().init_with_output(
        jax.random.key(0), encodings, batch, None
    )
    assert variables["params"].keys() == {"log_scale"}
    np.testing.assert_allclose(loss.metrics["scale"], 1 / 0.07, rtol=1e-6)
    np.testing.assert_allclose(
        loss.value, softmax_oracle(images, texts, 1 / 0.07, positives, 0.0)[0], rtol=1e-5
    )
    alone, _ = (
        SoftmaxContrastiveConfig(positives=("image",))
        .build()
        .init_with_output(jax.random.key(0), encodings, batch, None)
    )
    np.testing.assert_allclose(
        alone.value,
        softmax_oracle(images, texts, 1 / 0.07, np.eye(12, dtype=bool), 0.0)[0],
        rtol=1e-5,
    )

    loss, variables = SigmoidContrastive().init_with_output(
        jax.random.key(0), encodings, batch, None
    )
    assert variables["params"].keys() == {"log_scale", "bias"}
    np.testing.assert_allclose(
        [loss.metrics["scale"], loss.metrics["bias"]], [10.0, -10.0], rtol=1e-6
    )
    np.testing.assert_allclose(
        loss.value, sigmoid_oracle(images, texts, 10.0, -10.0, positives)[0], rtol=1e-5
    )


def test_the_reference_is_the_loss_of_one_logit_for_all_pairs():
    encodings, batch = encodings_and_batch()
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), encodings)
    apart = {**batch, "caption_id": batch["image_id"]}
    loss, _ = SoftmaxContrastive().init_with_output(jax.random.key(0), same, apart, None)
    np.testing.assert_allclose(loss.metrics["uniform"], loss.value, rtol=1e-5)
    cosine = float(encodings["image_embedding"][0] @ encodings["text_embedding"][0])

    def sigmoid(bias):
        module = SigmoidContrastiveConfig(initial_scale=1.0, initial_bias=bias - cosine).build()
        return module.init_with_output(jax.random.key(0), same, apart, None)[0]

    best, *others = (sigmoid(np.log(1 / 11) + shift) for shift in (0.0, 0.1, -0.1))
    np.testing.assert_allclose(best.metrics["uniform"], best.value, rtol=1e-5)
    assert all(other.value > other.metrics["uniform"] for other in others)


def test_siglip_starts_at_scale_10_and_bias_minus_10_and_clip_is_clamped_at_100():
    sigmoid, softmax = SigmoidContrastive().config, SoftmaxContrastive().config
    assert (sigmoid.initial_scale, sigmoid.initial_bias) == (10.0, -10.0)
    assert (softmax.initial_scale, softmax.maximum_scale) == (1 / 0.07, 100.0)


@pytest.mark.parametrize(("scale", "kept"), [(0.5, 1.0), (20.0, 20.0), (150.0, 100.0)])
def test_the_scale_is_clamped_and_the_bias_is_not(scale, kept):
    params = {"log_scale": jnp.log(scale), "bias": jnp.float32(-300.0)}
    constrained = SigmoidContrastiveConfig(maximum_scale=100.0).build().constrain(params)
    np.testing.assert_allclose(jnp.exp(constrained["log_scale"]), kept, rtol=1e-6)
    assert constrained["bias"] == -300.0


@pytest.mark.full
@pytest.mark.parametrize(("temperature", "kept"), [(0.9, 0.5), (0.05, 0.05), (5e-4, 1e-3)])
def test_a_temperature_is_learned_itself_and_clamped_as_albef_s(temperature, kept):
    """ALBEF models/model_pretrain.py:57 and 90: 0.07 at first, clamped to [0.001, 0.5]; cosines are
    divided by it."""
    module = SoftmaxContrastiveConfig(
        scale_parameter="temperature", minimum_scale=2.0, maximum_scale=1000.0
    ).build()
    np.testing.assert_allclose(
        module.constrain({"temperature": jnp.float32(temperature)})["temperature"], kept, rtol=1e-6
    )
    vectors = jax.random.normal(jax.random.key(0), (4, 8))
    vectors /= jnp.linalg.norm(vectors, axis=1, keepdims=True)
    ids = jnp.stack([jnp.arange(4)] * 2, axis=1)
    given = (
        {"image_embedding": vectors, "text_embedding": vectors[::-1]},
        {"text": ids, "caption_id": ids, "image_id": ids},
        None,
    )
    variables = module.init(jax.random.key(1), *given)
    np.testing.assert_allclose(variables["params"]["temperature"], 0.07, rtol=1e-6)

    def loss(value):
        return module.apply({"params": {"temperature": value}}, *given).value

    logits = np.float64(vectors) @ np.float64(vectors[::-1]).T / temperature
    expected = np.mean(
        [(np.logaddexp.reduce(m, axis=1) - np.diag(m)).mean() for m in (logits, logits.T)]
    )
    np.testing.assert_allclose(loss(jnp.float32(temperature)), expected, rtol=1e-4)
    step = 1e-3 * temperature
    slope = (loss(jnp.float32(temperature + step)) - loss(jnp.float32(temperature - step))) / (
        2 * step
    )
    np.testing.assert_allclose(
        jax.grad(loss)(jnp.float32(temperature)), slope, rtol=0.05, atol=1e-3
    )


def test_batch_accuracy_counts_every_positive():
    image = text = jnp.eye(3)
    assert top1_accuracy(
        image, text[jnp.array([1, 0, 2])], jnp.eye(3, dtype=bool)
    ) == pytest.approx(1 / 3)
    assert top1_accuracy(image, text[jnp.array([1, 0, 2])], jnp.ones((3, 3), bool)) == 1.0
