"""Residual networks: He et al. 2016 (v1.5: a bottleneck strides in its 3x3 convolution), and CLIP's ResNets."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.models.layers.attention import plain_attention
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.models.vision.tower import ConvolutionConfig
from vlp_jax.sharding.layout import constrain

# (blocks of each stage, whether they are bottlenecks): He et al. 2016, table 1
SIZES: dict[int, tuple[tuple[int, ...], bool]] = {
    18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True)}
EXPANSION = 4  # output channels of a bottleneck per inner channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ConvolutionConfig):
    """A residual network (He et al. 2016), or CLIP's variant of it (Radford et al. 2021).

    Its tokens are the last feature map.
    """

    depth: int = 50  # 18 and 34 of basic blocks; 50, 101 and 152 of bottlenecks
    blocks: tuple[int, ...] = ()  # of each stage, in place of those given by `depth`
    width: int = between(64, 1)  # channels of the first stage; each further stage has twice as many
    norm: Literal["batch", "group"] = "batch"  # batch: statistics of the global batch; group: of each example
    groups: int = between(32, 1)  # of norm="group"
    image_size: int = between(224, 1)
    stem_size: int = between(7, 1)  # of the first convolution, an odd number; 3 for small images
    stem_stride: int = between(2, 1)
    max_pool: bool = True  # after the stem; halves the feature map again
    clip: bool = False  # a stem of three convolutions, strides by average pooling, and attention pooling
    heads: int = between(32, 1)  # clip: of attention pooling
    output_dim: int = between(1024, 1)  # clip: of the pooled vector
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """How convolutions and their normalisation are built.

    Attributes:
      norm: `batch` (statistics of the global batch in training, however it is sharded; their
        running mean in evaluation), `group` (the number of groups is the greatest common divisor of
        `groups` and the channels), or `none`.
      rematerialised: whether the backward pass recomputes each block.
    """

    norm: str = "batch"
    groups: int = 32  # Wu & He 2018
    rematerialised: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    precision: Precision = Precision()

    def convolution(self, channels: int, size: int | tuple[int, int], stride: int = 1, *, padded: bool = True, bias: bool = False,
                    name: str | None = None) -> nn.Conv:
        """A convolution. With `padded`, the output has the size of the input apart from the stride."""
        sizes = (size, size) if isinstance(size, int) else size
        init = nn.with_logical_partitioning(nn.initializers.variance_scaling(2.0, "fan_out", "normal"), (None, None, None, "embed"))
        return nn.Conv(channels, sizes, stride, padding=[(side // 2, side // 2) if padded else (0, 0) for side in sizes],
                       use_bias=bias, name=name, dtype=self.precision.compute, param_dtype=jnp.float32, kernel_init=init,
                       bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)))

    def normalise(self, x: jax.Array, train: bool, name: str, scale: float = 1.0) -> jax.Array:
        """[B, H, W, C] normalised, with learned scales initialised to `scale`. To be called inside a module."""
        if self.norm == "none":
            return x
        shared = dict(epsilon=self.epsilon, dtype=self.precision.compute, param_dtype=jnp.float32, name=name,
                      scale_init=nn.with_logical_partitioning(nn.initializers.constant(scale), ("embed",)),
                      bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)))
        if self.norm == "group":
            return nn.GroupNorm(num_groups=math.gcd(self.groups, x.shape[-1]), **shared)(x)
        return nn.BatchNorm(momentum=self.momentum, **shared)(x, use_running_average=not train)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1, with a shortcut.

    The shortcut is projected where shapes differ. [B, H, W, C] -> [B, H / stride, W / stride,
    channels (x 4 for a bottleneck)].

    Attributes:
      clip: strides are average pooling before the last convolution and before the shortcut's.
    """

    channels: int
    stride: int
    bottleneck: bool
    parts: Convolutions
    clip: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes = (1, 3, 1) if self.bottleneck else (3, 3)
        strided = 1 if self.bottleneck else 0  # index of the convolution with the stride
        y = x
        for i, size in enumerate(sizes):
            last = i == len(sizes) - 1
            if self.clip and last:
                y = average_pool(y, self.stride)
            stride = self.stride if i == strided and not self.clip else 1
            y = self.parts.convolution(self.width(last), size, stride, name=f"convolution_{i}")(y)
            y = self.parts.normalise(y, train, f"norm_{i}", scale=0.0 if last else 1.0)
            y = y if last else jax.nn.relu(y)
        return jax.nn.relu(self.shortcut(x, y.shape[-1], train) + y)

    def width(self, last: bool) -> int:
        """The number of output channels of a convolution."""
        return self.channels * (EXPANSION if self.bottleneck and last else 1)

    def shortcut(self, x: jax.Array, channels: int, train: bool) -> jax.Array:
        """The shortcut: the input itself, or its projection."""
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        x = average_pool(x, self.stride) if self.clip else x
        x = self.parts.convolution(channels, 1, 1 if self.clip else self.stride, name="convolution_shortcut")(x)
        return self.parts.normalise(x, train, "norm_shortcut")


class ResNet(nn.Module):
    """ResNet image encoder: stem, stages, mean pooling.

    Args of the call:
      image: [B, H, W, 3] normalised pixels.
      train: whether BatchNorm uses and updates batch statistics (collection `batch_stats`).
      tokens: False where only `pooled` is needed.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top, no mask, and
      pooled [B, D]. With the stem of He et al. and four stages, N is (H / 32) (W / 32).
    """

    depths: tuple[int, ...]
    bottleneck: bool
    parts: Convolutions
    width: int = 64
    stem_size: int = 7
    stem_stride: int = 2
    max_pool: bool = True

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        x = image.astype(self.parts.precision.compute)
        x = self.parts.convolution(self.width, self.stem_size, self.stem_stride, name="convolution_stem")(x)
        x = jax.nn.relu(self.parts.normalise(x, train, "norm_stem"))
        if self.max_pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        x = stages(x, self.depths, self.width, self.bottleneck, self.parts, train, clip=False)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        return Encoding(x if tokens else None, None, x.astype(jnp.float32).mean(axis=1).astype(x.dtype))


class ClipResNet(nn.Module):
    """CLIP's ResNet (Radford et al. 2021, section 2.4).

    The stem has three 3x3 convolutions, strides are average pooling, and the query of attention
    pooling is the mean token. The call is that of `ResNet`; pooled is [B, output_dim].

    Raises: ValueError if the image does not have the size of the position embedding.
    """

    depths: tuple[int, ...]
    parts: Convolutions
    width: int
    heads: int
    image_size: int
    output_dim: int

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        if image.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(f"this ResNet takes images of {self.image_size}x{self.image_size}, got {image.shape}")
        x = image.astype(self.parts.precision.compute)
        for i, (channels, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1))):
            x = self.parts.convolution(channels, 3, stride, name=f"convolution_stem_{i}")(x)
            x = jax.nn.relu(self.parts.normalise(x, train, f"norm_stem_{i}"))
        x = stages(average_pool(x, 2), self.depths, self.width, True, self.parts, train, clip=True)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        pooled = MeanQueryPooling(self.heads, self.output_dim, self.parts.precision, name="pooling_head")(x)
        return Encoding(x if tokens else None, None, pooled)


class MeanQueryPooling(nn.Module):
    """Attention pooling with the mean token as query: [B, N, D] -> [B, E].

    It attends to itself and all tokens, each with a learned position.
    """

    heads: int
    output_dim: int
    precision: Precision

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        width, precision = tokens.shape[-1], self.precision
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        init = nn.with_logical_partitioning(nn.initializers.normal(width**-0.5), (None, None, "embed"))
        tokens = tokens + self.param("position", init, (1, *tokens.shape[1:]), jnp.float32).astype(tokens.dtype)
        project = functools.partial(precision.dense, (self.heads, width // self.heads), ("embed", "heads", "head_dim"),
                                    kernel_init=nn.initializers.normal(width**-0.5))
        q, k, v = (rearrange(project(name=name)(x), "b n h k -> b n (h k)")
                   for name, x in (("query", tokens[:, :1]), ("key", tokens), ("value", tokens)))
        attended = rearrange(plain_attention(q, k, v, None, self.heads, False)[:, 0], "b (h k) -> b h k", h=self.heads)
        return precision.dense(self.output_dim, ("heads", "head_dim", "embed"), axis=(-2, -1), name="out",
                               kernel_init=nn.initializers.normal(width**-0.5))(attended)


def stages(x: jax.Array, depths: Sequence[int], width: int, bottleneck: bool, parts: Convolutions, train: bool,
           clip: bool) -> jax.Array:
    """The residual blocks; each stage after the first halves the map and doubles the channels.

    To be called inside a module.
    """
    kind = nn.remat(ResidualBlock, static_argnums=(2,)) if parts.rematerialised else ResidualBlock
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            x = kind(width * 2**stage, stride, bottleneck, parts, clip, name=f"stage_{stage}_block_{block}")(x, train)
    return x


def average_pool(x: jax.Array, stride: int) -> jax.Array:
    """[B, H, W, C] -> [B, H / stride, W / stride, C]."""
    return nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x
