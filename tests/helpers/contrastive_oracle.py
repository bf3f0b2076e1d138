"""The contrastive losses in float64 NumPy, written from the equations, and embeddings to try them
on."""

import numpy as np


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pairs(noise=None, batch=12, dim=16, seed=0):
    """Unit vectors, unrelated or (with `noise`) a text each and its image nearby; and positives,
    some beside the diagonal."""
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, batch, dim))
    positives = np.eye(batch, dtype=bool)
    if noise is None:
        positives[0, 3] = positives[3, 0] = positives[5, 6] = positives[6, 5] = True
    else:
        image = text + noise * image
    return unit(image), unit(text), positives


def log_softmax(x):
    """-log(1 + sum_k exp(x_k - x_j)) over k other than j: as exact where a probability is close to
    1 as elsewhere."""
    with np.errstate(over="ignore"):
        others = np.exp(x[:, None, :] - x[:, :, None]) * ~np.eye(x.shape[1], dtype=bool)
    return -np.log1p(others.sum(axis=-1))


def softmax_oracle(image, text, scale, positives, smoothing):
    """Value and gradients with respect to image, text, scale."""
    logits, batch = scale * image @ text.T, len(image)
    value, slope = 0.0, np.zeros_like(logits)
    for transpose in (False, True):
        x, hit = (logits.T, positives.T) if transpose else (logits, positives)
        target = hit / hit.sum(axis=1, keepdims=True) * (1 - smoothing) + smoothing / batch
        value += -(target * log_softmax(x)).sum() / batch / 2
        difference = (
            np.where(target == 1, np.expm1(log_softmax(x)), np.exp(log_softmax(x)) - target)
            / batch
            / 2
        )
        slope += difference.T if transpose else difference
    return value, (scale * slope @ text, scale * slope.T @ image, (slope * (image @ text.T)).sum())


def sigmoid_oracle(image, text, scale, bias, positives):
    """Value and gradients with respect to image, text, scale, bias."""
    signs = np.where(positives, 1.0, -1.0)
    x = signs * (scale * image @ text.T + bias)
    slope = -signs * np.exp(-np.logaddexp(0, x)) / len(image)
    gradients = (
        scale * slope @ text,
        scale * slope.T @ image,
        (slope * (image @ text.T)).sum(),
        slope.sum(),
    )
    return np.logaddexp(0, -x).sum() / len(image), gradients


def relative_error(a, b):
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()
