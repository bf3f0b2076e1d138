"""Group normalisation (Wu & He 2018), by sums of channels."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import reduce, repeat


class GroupNorm(nn.Module):
    """Each example's groups of channels, less their mean and divided by their deviation, scaled and shifted by channel:
    [B, H, W, C] in `dtype`. The numbers are `flax.linen.GroupNorm`'s, and so are the parameters `scale` and `bias`, float32 [C].

    Pixels are summed by channel and only these sums by group, so that a picture is read along its channels and never in another
    shape (`benchmarks/group_norm.py`).
    """

    num_groups: int
    epsilon: float
    dtype: jnp.dtype
    scale_init: Callable
    bias_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", self.bias_init, (channels,), jnp.float32)
        x = x.astype(jnp.float32)
        mean, square = (self.by_group(value.mean(axis=(1, 2))) for value in (x, x * x))
        factor = scale * jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + self.epsilon)
        return (x * factor[:, None, None] + (bias - mean * factor)[:, None, None]).astype(self.dtype)

    def by_group(self, of_channels: jax.Array) -> jax.Array:
        """[B, C] -> [B, C], for each channel the mean over its group."""
        means = reduce(of_channels, "b (g k) -> b g", "mean", g=self.num_groups)
        return repeat(means, "b g -> b (g k)", k=of_channels.shape[-1] // self.num_groups)
