"""Contrastive losses against float64 NumPy written from the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.objectives.contrastive import shared_positives, sigmoid_contrastive, softmax_contrastive


def pairs(batch=12, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, batch, dim)))
    positives = np.eye(batch, dtype=bool)
    positives[0, 3] = positives[3, 0] = positives[5, 6] = positives[6, 5] = True
    return image, text, positives


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def softmax_oracle(image, text, scale, positives, smoothing):
    """Value and gradients with respect to image, text, scale."""
    logits, batch = scale * image @ text.T, len(image)
    value, slope = 0.0, np.zeros_like(logits)
    for transpose in (False, True):
        x, hit = (logits.T, positives.T) if transpose else (logits, positives)
        target = hit / hit.sum(axis=1, keepdims=True) * (1 - smoothing) + smoothing / batch
        value += -(target * log_softmax(x)).sum() / batch / 2
        difference = (np.exp(log_softmax(x)) - target) / batch / 2
        slope += difference.T if transpose else difference
    return value, (scale * slope @ text, scale * slope.T @ image, (slope * (image @ text.T)).sum())


def sigmoid_oracle(image, text, scale, bias, positives):
    """Value and gradients with respect to image, text, scale, bias."""
    signs = np.where(positives, 1.0, -1.0)
    x = signs * (scale * image @ text.T + bias)
    slope = -signs * np.exp(-np.logaddexp(0, x)) / len(image)
    gradients = scale * slope @ text, scale * slope.T @ image, (slope * (image @ text.T)).sum(), slope.sum()
    return np.logaddexp(0, -x).sum() / len(image), gradients


def relative_error(a, b):
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("kind", ["softmax", "softmax smoothed", "sigmoid"])
def test_value_and_gradients_equal_float64_numpy(kind, dtype, bound, scale):
    image, text, positives = pairs()
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(x, dtype) for x in (image, text, scale)]
        image, text, scale = (np.asarray(x, np.float64) for x in arrays)  # what the arrays hold after rounding
        if kind == "sigmoid":
            arrays.append(jnp.asarray(-10.0, dtype))
            expected = sigmoid_oracle(image, text, scale, -10.0, positives)
            value, gradients = jax.value_and_grad(sigmoid_contrastive, argnums=(0, 1, 2, 3))(*arrays, jnp.asarray(positives))
        else:
            smoothing = 0.1 if "smoothed" in kind else 0.0
            expected = softmax_oracle(image, text, scale, positives, smoothing)
            value, gradients = jax.value_and_grad(softmax_contrastive, argnums=(0, 1, 2))(
                *arrays, jnp.asarray(positives), smoothing)
    errors = [relative_error(a, b) for a, b in zip((value, *gradients), (expected[0], *expected[1]), strict=True)]
    assert max(errors) <= bound, errors


def test_examples_that_share_a_caption_or_an_image_are_each_others_positives():
    ids = np.arange(8, dtype=np.int32).reshape(4, 2)
    caption, image = ids.copy(), ids.copy()
    caption[1], image[3] = caption[0], image[2]
    batch = {"text": jnp.zeros((4, 3)), "caption_id": jnp.asarray(caption), "image_id": jnp.asarray(image)}
    both = np.eye(4, dtype=bool)
    both[0, 1] = both[1, 0] = both[2, 3] = both[3, 2] = True
    np.testing.assert_array_equal(shared_positives(batch, ("caption", "image")), both)
    np.testing.assert_array_equal(shared_positives(batch, ()), np.eye(4, dtype=bool))
