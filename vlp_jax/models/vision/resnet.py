"""Residual networks: He et al. 2016 (v1.5: a bottleneck strides in its 3x3 convolution), and CLIP's
ResNets."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.attention import plain_attention
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision, with_logical_axes
from vlp_jax.models.vision.convolutions import ConvolutionConfig, Convolutions, convolution_flops
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# (blocks of each stage, whether they are bottlenecks): He et al. 2016, table 1
SIZES: dict[int, tuple[tuple[int, ...], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
EXPANSION = 4  # output channels of a bottleneck per inner channel


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ConvolutionConfig):
    """A residual network (He et al. 2016), or CLIP's variant of it (Radford et al. 2021).

    Its tokens are the last feature map.
    """

    depth: int = 50  # 18 and 34 of basic blocks; 50, 101 and 152 of bottlenecks
    blocks: tuple[int, ...] = ()  # of each stage, in place of those given by `depth`
    width: int = between(64, 1)  # channels of the first stage; each further stage has twice as many
    # batch: statistics of the global batch; group: of each example
    norm: Literal["batch", "group"] = "batch"
    image_size: int = between(224, 1)
    stem_size: int = between(7, 1)  # of the first convolution, an odd number; 3 for small images
    stem_stride: int = between(2, 1)
    max_pool: bool = True  # after the stem; halves the feature map again
    # a stem of three convolutions, strides by average pooling, and attention pooling
    clip: bool = False
    heads: int = between(32, 1)  # clip: of attention pooling
    output_dim: int = between(1024, 1)  # clip: of the pooled vector

    def build(self, precision: Precision) -> "ResNet | ClipResNet":
        """The ResNet of these settings, or CLIP's variant."""
        self.check()
        return ClipResNet(self, precision) if self.clip else ResNet(self, precision)

    def check(self) -> None:
        """Checks the size of the stem, and of CLIP's variant its blocks, strides, widths and heads.

        Raises: ConfigError where they do not fit together.
        """
        depths, width = self.stages, self.token_width
        if not self.clip:
            if self.stem_size % 2 == 0:
                raise ConfigError(f"{self.section}.stem_size: must be odd, got {self.stem_size}")
            return
        shrinks = 2 ** (len(depths) + 1)
        if not self.bottleneck:
            raise ConfigError(
                f"{self.section}.depth: CLIP's ResNets are made of bottlenecks: 50, "
                f"101 or 152, got {self.depth}"
            )
        if self.image_size % shrinks:
            raise ConfigError(
                f"{self.section}.image_size: {self.image_size} does not divide by "
                f"{shrinks}, as it must for this ResNet"
            )
        if width % self.heads or self.width % 2:
            raise ConfigError(
                f"{self.section}: width {width} of the last stage does not divide "
                f"into {self.heads} heads, or width {self.width} is odd"
            )

    @property
    def published(self) -> tuple[tuple[int, ...], bool]:
        """The entry of SIZES.

        Raises: ConfigError for a depth that is not in He et al.
        """
        if self.depth not in SIZES:
            raise ConfigError(
                f"{self.section}.depth: must be one of {', '.join(map(str, SIZES))} "
                f"for a ResNet, got {self.depth}"
            )
        return SIZES[self.depth]

    @property
    def stages(self) -> tuple[int, ...]:
        """The number of blocks of each stage."""
        return self.blocks or self.published[0]

    @property
    def bottleneck(self) -> bool:
        """Whether the blocks are bottlenecks."""
        return self.published[1]

    @property
    def token_width(self) -> int:
        """The channels of the last stage."""
        return self.width * 2 ** (len(self.stages) - 1) * (EXPANSION if self.bottleneck else 1)

    @property
    def projects_tokens(self) -> bool:
        """True where the pooled vector is the mean of the last feature map."""
        return not self.clip

    @property
    def pooled_width(self) -> int:
        """The output width of CLIP's attention pooling, or the channels of the last stage."""
        return self.output_dim if self.clip else self.token_width

    @property
    def side(self) -> int:
        """The side of the last map, each stride rounded up."""
        side = -(-self.image_size // (2 if self.clip else self.stem_stride))
        for _ in range(len(self.stages) - 1 + (self.clip or self.max_pool)):
            side = -(-side // 2)
        return side

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of the stem with CLIP's variant, and those of its attention pooling without."""
        unused = dict.fromkeys(
            ("stem_size", "stem_stride", "max_pool"), "with clip=True, which has a stem of its own"
        )
        if not self.clip:
            unused = dict.fromkeys(
                ("heads", "output_dim"), "without clip=True, for whose attention pooling it is"
            )
        return {**super().ignored(experiment), **unused}

    def smoke(self, sizes: Sizes) -> Self:
        """One block with few channels per stage."""
        stages = len(self.blocks) or 4
        pooling = dict(heads=4, output_dim=64) if self.clip else {}
        return dataclasses.replace(
            self, width=8, blocks=(1,) * stages, image_size=min(self.image_size, 64), **pooling
        )

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """All convolutions, and the products of CLIP's attention pooling."""
        width, half, side = (
            self.width,
            self.width // 2,
            -(-self.image_size // (2 if self.clip else self.stem_stride)),
        )
        stem = (
            ((3, 3, half), (3, half, half), (3, half, width))
            if self.clip
            else ((self.stem_size, 3, width),)
        )
        flops = sum(convolution_flops(side, *sizes) for sizes in stem)
        side, channels = -(-side // 2) if self.clip or self.max_pool else side, width
        for stage, depth in enumerate(self.stages):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                flops += self.block_flops(side, channels, width * 2**stage, stride)
                side, channels = (
                    -(-side // stride),
                    width * 2**stage * (EXPANSION if self.bottleneck else 1),
                )
        if not self.clip:
            return flops
        count = side**2 + 1
        return (
            flops
            + 2 * channels**2 * (1 + 2 * count)
            + 4 * count * channels
            + 2 * channels * self.output_dim
        )

    def block_flops(self, before: int, channels: int, inner: int, stride: int) -> int:
        """A residual block on a map of `before` x `before` positions with `channels` channels."""
        side, outer = -(-before // stride), inner * (EXPANSION if self.bottleneck else 1)
        flops = (
            convolution_flops(side, 1, channels, outer) if stride > 1 or channels != outer else 0
        )
        if not self.bottleneck:
            return (
                flops
                + convolution_flops(side, 3, channels, inner)
                + convolution_flops(side, 3, inner, outer)
            )
        middle = before if self.clip else side  # CLIP's 3x3 convolution comes before the stride
        flops += convolution_flops(before, 1, channels, inner) + convolution_flops(
            middle, 3, inner, inner
        )
        return flops + convolution_flops(side, 1, inner, outer)


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
        x = self.parts.convolution(
            channels, 1, 1 if self.clip else self.stride, name="convolution_shortcut"
        )(x)
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

    config: ResNetConfig = ResNetConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        config, parts = self.config, self.config.convolutions(self.precision)
        x = image.astype(self.precision.compute)
        x = parts.convolution(
            config.width, config.stem_size, config.stem_stride, name="convolution_stem"
        )(x)
        x = jax.nn.relu(parts.normalise(x, train, "norm_stem"))
        if config.max_pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        x = stages(x, config, parts, train)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        return Encoding(
            x if tokens else None, None, x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        )


class ClipResNet(nn.Module):
    """CLIP's ResNet (Radford et al. 2021, section 2.4).

    The stem has three 3x3 convolutions, strides are average pooling, and the query of attention
    pooling is the mean token. The call is that of `ResNet`; pooled is [B, output_dim].

    Raises: ValueError if the image does not have the size of the position embedding.
    """

    config: ResNetConfig = ResNetConfig(clip=True)
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        config, parts, size = (
            self.config,
            self.config.convolutions(self.precision),
            self.config.image_size,
        )
        if image.shape[1:3] != (size, size):
            raise ValueError(f"this ResNet takes images of {size}x{size}, got {image.shape}")
        x = image.astype(self.precision.compute)
        for i, (channels, stride) in enumerate(
            ((config.width // 2, 2), (config.width // 2, 1), (config.width, 1))
        ):
            x = parts.convolution(channels, 3, stride, name=f"convolution_stem_{i}")(x)
            x = jax.nn.relu(parts.normalise(x, train, f"norm_stem_{i}"))
        x = stages(average_pool(x, 2), config, parts, train)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        pooled = MeanQueryPooling(
            config.heads, config.output_dim, self.precision, name="pooling_head"
        )(x)
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
        init = with_logical_axes(
            nn.initializers.normal(width**-0.5), (None, "mean_and_patches", "embed")
        )
        tokens = tokens + self.param("position", init, (1, *tokens.shape[1:]), jnp.float32).astype(
            tokens.dtype
        )
        project = functools.partial(
            precision.dense,
            (self.heads, width // self.heads),
            ("embed", "heads", "head_dim"),
            kernel_init=nn.initializers.normal(width**-0.5),
        )
        q, k, v = (
            rearrange(project(name=name)(x), "b n h k -> b n (h k)")
            for name, x in (("query", tokens[:, :1]), ("key", tokens), ("value", tokens))
        )
        attended = rearrange(
            plain_attention(q, k, v, heads=self.heads)[:, 0], "b (h k) -> b h k", h=self.heads
        )
        return precision.dense(
            self.output_dim,
            ("heads", "head_dim", "embed"),
            axis=(-2, -1),
            name="out",
            kernel_init=nn.initializers.normal(width**-0.5),
        )(attended)


def stages(x: jax.Array, config: ResNetConfig, parts: Convolutions, train: bool) -> jax.Array:
    """The residual blocks; each stage after the first halves the map and doubles the channels.

    To be called inside a module.
    """
    kind = nn.remat(ResidualBlock, static_argnums=(2,)) if parts.rematerialised else ResidualBlock
    for stage, depth in enumerate(config.stages):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            x = kind(
                config.width * 2**stage,
                stride,
                config.bottleneck,
                parts,
                config.clip,
                name=f"stage_{stage}_block_{block}",
            )(x, train)
    return x


def average_pool(x: jax.Array, stride: int) -> jax.Array:
    """[B, H, W, C] -> [B, H / stride, W / stride, C]."""
    return nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x
