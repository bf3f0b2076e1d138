"""EfficientNet (Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional neural
networks", table 1)."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Encoding, drop_branch
from vlp_jax.models.options import Precision
from vlp_jax.models.vision.convolutions import (
    ConvolutionConfig,
    Convolutions,
    Padding,
    convolution_flops,
)
from vlp_jax.sharding.layout import constrain

# coefficients of width and depth, as in the released code
PRESETS = {
    "B0": (1.0, 1.0),
    "B1": (1.0, 1.1),
    "B2": (1.1, 1.2),
    "B3": (1.2, 1.4),
    "B4": (1.4, 1.8),
    "B5": (1.6, 2.2),
    "B6": (1.8, 2.6),
    "B7": (2.0, 3.1),
}
MULTIPLE = 8  # of which all numbers of channels are
STEM_KERNEL, STEM_STRIDE = 3, 2


@dataclasses.dataclass(frozen=True)
class Block:
    """A mobile inverted bottleneck.

    Attributes:
      channels: of its input.
      outer: channels of its output.
      kernel: size of the depthwise convolution.
      stride: of the depthwise convolution.
      expansion: inner channels per channel of the input.
      squeezed: hidden channels of squeeze-and-excitation.
      residual: whether the input is added to the output.
      rate: probability of dropping the branch in training.
    """

    channels: int
    outer: int
    kernel: int
    stride: int
    expansion: int
    squeezed: int
    residual: bool
    rate: float

    @property
    def inner(self) -> int:
        """The channels of the depthwise convolution."""
        return self.channels * self.expansion


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(ConvolutionConfig):
    """EfficientNet (Tan & Le 2019). Its tokens are the last feature map."""

    norm_epsilon: ClassVar[float] = 1e-3

    preset: Literal["B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7"] = "B0"
    # of all widths, rounded to multiples of 8, and of all numbers of blocks, rounded up; None: the
    # preset's
    width_coefficient: float | None = between(None, 0.01)
    depth_coefficient: float | None = between(None, 0.01)
    stem_width: int = between(32, 1)  # before the coefficient, as all widths
    # of each stage, as the other sizes
    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    blocks: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)  # of the depthwise convolutions, odd numbers
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)  # of the first block
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)  # inner channels per channel
    squeeze: float = between(0.25, 0.0, 1.0)  # channels squeezed to, per channel of a block's input
    # of the last convolution; None: the last block makes the tokens
    head_width: int | None = between(1280, 1)
    norm: Literal["batch", "group"] = "batch"
    image_size: int = between(224, 1)
    # of maps with an odd side before a stride. same: as TensorFlow's, they are rounded up; floor:
    # as those with an even side, they are rounded down
    padding: Literal["same", "floor"] = "same"
    # rate of a block behind the last one, growing linearly from 0
    stochastic_depth: float = between(0.0, 0.0, 1.0)

    def build(self, precision: Precision) -> "EfficientNet":
        """The EfficientNet of these settings."""
        self.check()
        return EfficientNet(self, precision)

    def check(self) -> None:
        """Checks the lists of the stages, and that the strides leave a map.

        Raises: ConfigError where they do not fit together.
        """
        lists = {
            name: getattr(self, name)
            for name in ("widths", "blocks", "kernels", "strides", "expansions")
        }
        for name, values in lists.items():
            if not values or len(values) != len(self.widths) or min(values) < 1:
                raise ConfigError(
                    f"{self.section}.{name}: needs a positive number for each of "
                    f"{len(self.widths)} stages (of widths), got {values}"
                )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"{self.section}.kernels: must be odd, got {self.kernels}")
        if max(self.strides) > 2:
            raise ConfigError(f"{self.section}.strides: must be 1 or 2, got {self.strides}")
        if self.side < 1:
            raise ConfigError(
                f"{self.section}.image_size: {self.image_size} leaves nothing behind the strides; "
                f"use {2 ** (1 + self.strides.count(2))} or more"
            )

    def convolutions(self, precision: Precision) -> Convolutions:
        """How the network's convolutions are built."""
        return dataclasses.replace(super().convolutions(precision), momentum=0.99)

    @property
    def coefficients(self) -> tuple[float, float]:
        """Those of width and depth."""
        width, depth = PRESETS[self.preset]
        return (
            width if self.width_coefficient is None else self.width_coefficient,
            depth if self.depth_coefficient is None else self.depth_coefficient,
        )

    def scaled(self, channels: int) -> int:
        """A number of channels by the coefficient, a multiple of 8 that is not 10% smaller."""
        wanted = channels * self.coefficients[0]
        found = max(MULTIPLE, int(wanted + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
        return found + MULTIPLE if found < 0.9 * wanted else found

    def layers(self) -> Iterator[Block]:
        """The blocks of all stages, one after the other."""
        counts = [math.ceil(self.coefficients[1] * count) for count in self.blocks]
        stages = zip(self.widths, counts, self.kernels, self.strides, self.expansions, strict=True)
        channels, number = self.scaled(self.stem_width), 0
        for width, count, kernel, stride, expansion in stages:
            for repeated in range(count):
                yield Block(
                    channels,
                    self.scaled(width),
                    kernel,
                    1 if repeated else stride,
                    expansion,
                    max(1, int(channels * self.squeeze)),
                    repeated > 0,
                    self.stochastic_depth * number / sum(counts),
                )
                channels, number = self.scaled(width), number + 1

    def smaller(self, side: int, stride: int) -> int:
        """The side of a map behind a stride."""
        return side // stride if self.padding == "floor" else -(-side // stride)

    def padded(self, kernel: int, stride: int) -> Padding:
        """The padding of a convolution, for both axes."""
        around = kernel // 2
        if self.padding == "same" or stride == 1:
            return "SAME"
        return ((around - 1, around),) * 2

    def strided(self) -> dict[int, int]:
        """{number of a block with a stride: side of the map before it}."""
        side, found = self.smaller(self.image_size, STEM_STRIDE), {}
        for number, block in enumerate(self.layers()):
            found |= {number: side} if block.stride > 1 else {}
            side = self.smaller(side, block.stride)
        return found

    @property
    def side(self) -> int:
        """The side of the last map."""
        side = self.smaller(self.image_size, STEM_STRIDE)
        for stride in self.strides:
            side = self.smaller(side, stride)
        return side

    @property
    def token_width(self) -> int:
        """The channels of the last convolution."""
        return self.scaled(self.widths[-1] if self.head_width is None else self.head_width)

    def smoke(self, sizes: Sizes) -> Self:
        """One block with few channels per stage."""
        return dataclasses.replace(
            self,
            width_coefficient=1.0,
            depth_coefficient=1.0,
            stem_width=8,
            widths=(8,) * len(self.widths),
            blocks=(1,) * len(self.blocks),
            head_width=None if self.head_width is None else 32,
            image_size=min(self.image_size, 64),
        )

    def small(self, sizes: Sizes) -> Self:
        """As `smoke`, without rematerialisation."""
        return dataclasses.replace(self.smoke(sizes), rematerialisation="none")

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """All convolutions, and the products of squeeze-and-excitation."""
        side = self.smaller(self.image_size, STEM_STRIDE)
        flops = convolution_flops(side, STEM_KERNEL, 3, self.scaled(self.stem_width))
        last = self.scaled(self.stem_width)
        for block in self.layers():
            if block.expansion != 1:
                flops += convolution_flops(side, 1, block.channels, block.inner)
            side = self.smaller(side, block.stride)
            flops += convolution_flops(side, block.kernel, block.inner, 1)
            flops += 4 * block.inner * block.squeezed
            flops += convolution_flops(side, 1, block.inner, block.outer)
            last = block.outer
        if self.head_width is None:
            return flops
        return flops + convolution_flops(side, 1, last, self.token_width)


class EfficientNet(nn.Module):
    """EfficientNet image encoder: stem, blocks, a last convolution, mean pooling.

    Args of the call:
      image: [B, H, W, 3] normalised pixels.
      train: whether BatchNorm uses and updates batch statistics (collection `batch_stats`), and
        branches are dropped (stochastic depth; this needs a "dropout" rng).
      tokens: False where only `pooled` is needed.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top, no mask, and
      pooled [B, D]. With the paper's strides, N is (H / 32) (W / 32).
    """

    config: EfficientNetConfig = EfficientNetConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        config, parts = self.config, self.config.convolutions(self.precision)
        x = parts.convolution(
            config.scaled(config.stem_width),
            STEM_KERNEL,
            STEM_STRIDE,
            padding=config.padded(STEM_KERNEL, STEM_STRIDE),
            name="convolution_stem",
        )(image.astype(self.precision.compute))
        x = jax.nn.silu(parts.normalise(x, train, "norm_stem"))
        kind = (
            nn.remat(InvertedBottleneck, static_argnums=(2,))
            if parts.rematerialised
            else InvertedBottleneck
        )
        for i, block in enumerate(config.layers()):
            padding = config.padded(block.kernel, block.stride)
            x = kind(block, padding, parts, name=f"block_{i}")(x, train)
        if config.head_width is not None:
            x = parts.convolution(config.token_width, 1, name="convolution_head")(x)
            x = jax.nn.silu(parts.normalise(x, train, "norm_head"))
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        pooled = x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        return Encoding(x if tokens else None, None, pooled)


class InvertedBottleneck(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, squeeze-and-excitation, and a 1x1
    convolution to few channels, on a residual branch where the block has one (Sandler et al. 2018,
    "MobileNetV2"; Tan et al. 2019, "MnasNet").

    [B, H, W, C] -> [B, H', W', C'].
    """

    block: Block
    padding: Padding
    parts: Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        block, parts, y = self.block, self.parts, x
        if block.expansion != 1:
            y = parts.convolution(block.inner, 1, name="convolution_expansion")(y)
            y = jax.nn.silu(parts.normalise(y, train, "norm_expansion"))
        y = parts.convolution(
            block.inner,
            block.kernel,
            block.stride,
            padding=self.padding,
            depthwise=True,
            name="convolution_depthwise",
        )(y)
        y = jax.nn.silu(parts.normalise(y, train, "norm_depthwise"))
        y = y * self.excitation(y)
        y = parts.convolution(block.outer, 1, name="convolution_projection")(y)
        y = parts.normalise(y, train, "norm_projection")
        if not block.residual:
            return y
        if train and block.rate:
            y = drop_branch(self.make_rng("dropout"), y, rate=jnp.float32(block.rate))
        return x + y

    def excitation(self, y: jax.Array) -> jax.Array:
        """A factor from 0 to 1 for each channel, of the means of all (Hu et al. 2018,
        "Squeeze-and-excitation networks"): [B, H, W, C] -> [B, 1, 1, C]."""
        block = self.block
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        dense = functools.partial(self.parts.precision.dense, kernel_init=init)
        mean = y.astype(jnp.float32).mean(axis=(1, 2), keepdims=True).astype(y.dtype)
        hidden = jax.nn.silu(dense(block.squeezed, ("embed", "mlp"), name="squeeze")(mean))
        return jax.nn.sigmoid(dense(block.inner, ("mlp", "embed"), name="excite")(hidden))
