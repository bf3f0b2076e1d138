"""The Vision Transformer (Dosovitskiy et al. 2021) with the options its descendants added."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from vlp_jax.models.layers import AttentionPooling, Encoding, LayerOptions, Precision, Transformer
from vlp_jax.sharding.layout import constrain


class ViT(nn.Module):
    """An image encoder: stem, positions, transformer, pooling.

    Args of the call:
      image: [B, H, W, 3] normalised pixels; H and W are `image_size`.
      train: whether to drop tokens, branches and activations; needs a "dropout" rng then.
    Returns: Encoding with tokens [B, N, D] (class token first, registers last, where there are any), no mask, and
      pooled [B, D], None for pooling "none".
    Raises: ValueError if the image is not of the size the position embedding was made for.
    """

    options: LayerOptions
    image_size: int
    patch_size: int
    stem: str = "patch"
    stem_channels: tuple[int, ...] = ()
    stem_strides: tuple[int, ...] = ()
    patch_bias: bool = True
    position: str = "learned"
    pooling: str = "cls"
    registers: int = 0
    embedding_norm: bool = False
    norm_before_pooling: bool = True
    token_drop: float = 0.0
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> Encoding:
        options, precision = self.options, self.options.precision
        if image.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(f"this ViT takes images of {self.image_size}x{self.image_size}, got {image.shape}")
        x = self.embed_patches(image.astype(precision.compute))
        side = self.image_size // self.patch_size
        has_class_token = self.pooling == "cls"
        x = x + self.positions("position", side)
        if train and self.token_drop:
            x = drop_tokens(self.make_rng("dropout"), x, self.token_drop)
        if has_class_token:
            token = self.learned("class_token", (1, 1, options.width)) + self.learned("class_position", (1, 1, options.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, options.width)), x], axis=1)
        if self.registers:
            registers = self.learned("registers", (1, self.registers, options.width))
            x = jnp.concatenate([x, jnp.broadcast_to(registers, (len(x), *registers.shape[1:]))], axis=1)
        if self.embedding_norm:
            x = precision.layer_norm(options.norm_epsilon, "embedding_norm")(x)
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        x = Transformer(options, self.stochastic_depth, self.scan, self.rematerialisation, self.saved, train,
                        name="transformer")(x)
        return self.pool(constrain(x, ("batch", "tokens", "activation_embed")))

    def embed_patches(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, N, D]."""
        options, precision = self.options, self.options.precision
        if self.stem == "convolution":
            image = ConvolutionStem(self.stem_channels, self.stem_strides, options, name="stem")(image)
            patches = rearrange(image, "b h w c -> b (h w) c")
        else:
            patches = rearrange(image, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size)
        return precision.dense(options.width, ("patch", "embed"), use_bias=self.patch_bias, name="patch_embedding",
                               kernel_init=nn.initializers.lecun_normal())(patches)

    def positions(self, name: str, side: int) -> jax.Array:
        if self.position == "sincos2d":
            return jnp.asarray(sincos2d(side, self.options.width), self.options.precision.compute)[None]
        return self.learned(name, (1, side * side, self.options.width))

    def learned(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        """A float32 parameter, in the compute dtype."""
        init = nn.with_logical_partitioning(nn.initializers.normal(self.options.width**-0.5), (None, None, "embed"))
        return self.param(name, init, shape, jnp.float32).astype(self.options.precision.compute)

    def pool(self, x: jax.Array) -> Encoding:
        options = self.options
        norm = options.precision.layer_norm(options.norm_epsilon, "norm")
        if self.norm_before_pooling:
            x = norm(x)
        patches = x[:, self.pooling == "cls":x.shape[1] - self.registers]
        if self.pooling == "cls":
            pooled = x[:, 0]
        elif self.pooling == "mean":
            pooled = patches.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        elif self.pooling == "map":
            pooled = AttentionPooling(options, name="pooling_head")(patches)
        else:
            return Encoding(x, None, None)
        return Encoding(x, None, pooled if self.norm_before_pooling else norm(pooled))


class ConvolutionStem(nn.Module):
    """3x3 convolutions, each followed by GroupNorm and ReLU, instead of one patch projection ("Early convolutions help
    transformers see better", Xiao et al. 2021; GroupNorm because it needs no statistics over the batch).

    image [B, H, W, C] -> [B, H/s, W/s, channels[-1]], s the product of the strides.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        compute = self.options.precision.compute
        kernel_init = nn.with_logical_partitioning(nn.initializers.he_normal(), (None, None, None, "embed"))
        along_channels = {"scale_init": nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
                          "bias_init": nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))}
        for i, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            x = nn.Conv(channels, (3, 3), stride, use_bias=False, dtype=compute, param_dtype=jnp.float32,
                        kernel_init=kernel_init, name=f"convolution_{i}")(x)
            x = nn.GroupNorm(num_groups=math.gcd(8, channels), dtype=compute, param_dtype=jnp.float32,
                             name=f"norm_{i}", **along_channels)(x)
            x = jax.nn.relu(x)
        return x


def drop_tokens(key: jax.Array, tokens: jax.Array, rate: float) -> jax.Array:
    """A random subset of each example's tokens (FLIP, Li et al. 2023): [B, N, D] -> [B, round(N (1 - rate)), D]."""
    batch, count = tokens.shape[:2]
    kept = max(1, round(count * (1.0 - rate)))
    order = jnp.argsort(jax.random.uniform(key, (batch, count)), axis=1)[:, :kept]
    return jnp.take_along_axis(tokens, order[:, :, None], axis=1)


def sincos2d(side: int, width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed position embedding of a side x side grid (MoCo v3, Chen et al. 2021): [side^2, width], rows from the top.

    A quarter of the width each for sin and cos of x and of y; the width divides by 4.
    """
    frequencies = temperature ** -(np.arange(width // 4) / max(width // 4 - 1, 1))
    y, x = (grid.reshape(-1, 1) * frequencies for grid in np.mgrid[:side, :side].astype(np.float64))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


__all__ = ["ViT", "ConvolutionStem", "drop_tokens", "sincos2d", "LayerOptions", "Precision"]
