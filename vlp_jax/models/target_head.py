"""Prediction head from a pooled vector to the classes, scores or values of supervised
objectives."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.options import Precision, with_logical_axes


class TargetHead(nn.Module):
    """A linear layer, optionally after a hidden one with norm and GELU: [B, D] -> float32 [B,
    outputs].

    Attributes:
      hidden_dim: width of the hidden layer; None: no hidden layer.
      norm_epsilon: of the norm behind it.
    """

    hidden_dim: int | None
    outputs: int
    dropout: float
    initial_bias: float
    precision: Precision
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        init = nn.initializers.normal(0.02)
        if self.hidden_dim is not None:
            x = self.precision.dense(
                self.hidden_dim, ("embed", "mlp"), kernel_init=init, name="hidden"
            )(x)
            x = jax.nn.gelu(
                self.precision.layer_norm(self.norm_epsilon, "norm", "mlp")(x), approximate=False
            )
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        axes = ("embed" if self.hidden_dim is None else "mlp", "targets")
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        return nn.Dense(
            self.outputs,
            dtype=self.precision.compute,
            dot_general=product,
            name="out",
            kernel_init=with_logical_axes(init, axes),
            bias_init=with_logical_axes(nn.initializers.constant(self.initial_bias), axes[-1:]),
        )(x)
