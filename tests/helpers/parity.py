"""What comparisons of a whole module with another library's have in common."""

import flax.linen as nn
import jax
import numpy as np


def shapes_of(module, batch):
    """Of the parameters that the module wants."""
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    return jax.tree.map(lambda leaf: leaf.shape, nn.meta.unbox(variables)["params"])


def loss_of(module, params, batch):
    """The loss of a batch, and what every part of the module gave."""
    loss, variables = module.apply(
        {"params": params},
        batch,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    return loss.value, variables["intermediates"]


def loss_and_gradient(module, params, batch):
    """((the loss, what every part of the module gave), the loss's gradient in `params`)"""
    return jax.jit(jax.value_and_grad(lambda params: loss_of(module, params, batch), has_aux=True))(
        params
    )


def relative_error(a, b):
    """max|a - b| / max|b|"""
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()
