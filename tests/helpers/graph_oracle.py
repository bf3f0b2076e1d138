"""The graph layers in float64 NumPy, written from the papers' equations, and parameters to try them
on."""

import flax.linen as nn
import jax
import numpy as np


def parameters(module, *inputs):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng, shapes = (
        np.random.default_rng(2),
        nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))["params"],
    )
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def convolution(p, h, near):
    """relu(D^-1/2 (A + I) D^-1/2 H W) (Kipf & Welling 2017, equation 2)"""
    a = near + np.eye(len(near))
    d = np.diag(a.sum(1) ** -0.5)
    return np.maximum(d @ a @ d @ h @ p["nodes"]["kernel"], 0)


def attention(p, h, near):
    """Velickovic et al. 2018, equations 1 to 5, node by node, with relu."""
    heads = []
    for head in range(len(p["hears"])):
        wh, a = (
            h @ p["nodes"]["kernel"][:, head],
            np.concatenate([p["hears"][head], p["says"][head]]),
        )
        rows = []
        for i in range(len(h)):
            neighbours = [j for j in range(len(h)) if near[i, j] or i == j]
            e = np.array([a @ np.concatenate([wh[i], wh[j]]) for j in neighbours])
            alpha = np.exp(np.where(e > 0, e, 0.2 * e))
            rows.append(np.maximum(alpha / alpha.sum() @ wh[neighbours], 0))
        heads.append(np.array(rows))
    return np.concatenate(heads, axis=1)


EQUATIONS = {"convolution": convolution, "attention": attention}
