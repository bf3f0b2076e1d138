"""A convolution stem in place of a ViT's patch projection, and masks of pixels that it must not
see."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import repeat

from vlp_jax.models.options import LayerOptions, with_logical_axes
from vlp_jax.models.vision.convolutions import CONVOLUTION


class ConvolutionStem(nn.Module):
    """3x3 convolutions, each followed by GroupNorm and ReLU, in place of one patch projection.

    Xiao et al. 2021, "Early convolutions help transformers see better"; with GroupNorm, because it
    needs no statistics over the batch.

    [B, H, W, C] -> [B, H/s, W/s, channels[-1]], where s is the product of the strides.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        compute = self.options.precision.compute
        kernel_init = with_logical_axes(nn.initializers.he_normal(), CONVOLUTION)
        along_channels = {
            "scale_init": with_logical_axes(nn.initializers.ones, ("embed",)),
            "bias_init": with_logical_axes(nn.initializers.zeros, ("embed",)),
        }
        for i, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            x = nn.Conv(
                channels,
                (3, 3),
                stride,
                use_bias=False,
                dtype=compute,
                param_dtype=jnp.float32,
                kernel_init=kernel_init,
                name=f"convolution_{i}",
            )(x)
            x = nn.GroupNorm(
                num_groups=math.gcd(8, channels),
                dtype=compute,
                param_dtype=jnp.float32,
                name=f"norm_{i}",
                **along_channels,
            )(x)
            x = jax.nn.relu(x)
        return x


def unseen_patches(
    masked: jax.Array | None, kept: jax.Array | None, count: int
) -> jax.Array | None:
    """The patches whose pixels are hidden: those that are masked or not kept.

    Args:
      masked: bool [B, N], or None.
      kept: int32 [B, K], indices, or None.
      count: N.
    Returns: bool [B, N], True for hidden patches; None where all patches are visible.
    """
    if kept is None:
        return masked
    unkept = (kept[:, :, None] != jnp.arange(count)).all(axis=1)
    return unkept if masked is None else unkept | masked


def pixels_of(patches: jax.Array, side: int, patch_size: int) -> jax.Array:
    """A mask of patches as a mask of their pixels: bool [B, N] -> [B, H, W, 1]."""
    return repeat(patches, "b (h w) -> b (h p) (w q) 1", h=side, p=patch_size, q=patch_size)
