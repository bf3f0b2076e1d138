"""Inception-v3 (Szegedy et al. 2016, "Rethinking the Inception architecture", table 1).

Numbers of channels and the order of branches are those of torchvision, which are those of the
released model.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision
from vlp_jax.models.vision.convolutions import ConvolutionConfig, Convolutions
from vlp_jax.sharding.layout import constrain

STEM_WIDTH = 32  # channels of the first convolution; all others are multiples of half of it
SMALLEST = 75  # pixels per side of the smallest image, whose last feature map has a single position


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionConfig(ConvolutionConfig):
    """Inception-v3 (Szegedy et al. 2016), without its auxiliary classifier."""

    norm_epsilon: ClassVar[float] = 1e-3

    norm: Literal["batch", "group"] = "batch"
    width: int = between(32, 1)  # channels of the first convolution; all others are in proportion
    image_size: int = between(299, 1)

    def build(self, precision: Precision) -> "Inception":
        """The Inception-v3 of these settings."""
        self.check()
        return Inception(self, precision)

    def check(self) -> None:
        """Checks that the widths are whole numbers, and that the strides leave a feature map.

        Raises: ConfigError where they are not, or leave none.
        """
        if self.width % 2:
            raise ConfigError(
                f"{self.section}.width: {self.width} is odd, and an Inception-v3's "
                "widths are multiples of half of it"
            )
        if self.image_size < SMALLEST:
            raise ConfigError(
                f"{self.section}.image_size: {self.image_size} leaves nothing behind "
                f"an Inception-v3's strides; use {SMALLEST} or more"
            )

    @property
    def side(self) -> int:
        """The side of the last map, after the strides of the first branch of each block."""
        side = self.image_size
        for branches in BLOCKS:
            for step in branches[0]:
                side = side if isinstance(step, tuple) else smaller(side, step)
        return side

    @property
    def token_width(self) -> int:
        """The channels of the last block, in proportion to `width`."""
        return scaled(WIDEST, self.width)

    def smoke(self, sizes: Sizes) -> Self:
        """Few channels, and at most the smallest image for the strides."""
        return dataclasses.replace(self, width=4, image_size=min(self.image_size, SMALLEST))

    def small(self, sizes: Sizes) -> Self:
        """Few channels, and the smallest image for a last map of 2 x 2 positions."""
        return dataclasses.replace(self, width=8, image_size=107, rematerialisation="none")

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """All convolutions of all branches."""
        flops, channels, side = 0, 3, self.image_size
        for branches in BLOCKS:
            found = [branch_flops(branch, channels, side, self.width) for branch in branches]
            flops += sum(own for own, _, _ in found)
            channels, side = sum(wider for _, wider, _ in found), found[0][2]
        return flops


@dataclasses.dataclass(frozen=True)
class Step:
    """A convolution without bias, normalised, with ReLU; or, with channels=0, 3x3 pooling.

    Pooling takes the mean with stride 1 and zero padding, or the maximum with stride 2.

    Attributes:
      channels: of the output; 0 for pooling.
      size: height and width of the kernel.
      stride: along both axes.
      padded: whether a convolution keeps the size of its input, apart from the stride.
    """

    channels: int = 0
    size: tuple[int, int] = (3, 3)
    stride: int = 1
    padded: bool = True


Fork = tuple[Step, Step]  # two convolutions of the same map, concatenated
Branch = tuple[Step | Fork, ...]
MEAN, LARGEST = Step(), Step(stride=2, padded=False)


def point(channels: int) -> Step:
    """A 1x1 convolution."""
    return Step(channels, (1, 1))


def halving(channels: int) -> Step:
    """A 3x3 convolution without padding that halves the map."""
    return Step(channels, stride=2, padded=False)


def narrow(pooled: int) -> tuple[Branch, ...]:
    """Figure 5: convolutions up to 5x5, the larger as two of 3x3."""
    return (
        (point(64),),
        (point(48), Step(64, (5, 5))),
        (point(64), Step(96), Step(96)),
        (MEAN, point(pooled)),
    )


def factorised(inner: int) -> tuple[Branch, ...]:
    """Figure 6: 7x7 convolutions as 1x7 and 7x1."""
    row, column = (1, 7), (7, 1)
    return (
        (point(192),),
        (point(inner), Step(inner, row), Step(192, column)),
        (point(inner), Step(inner, column), Step(inner, row), Step(inner, column), Step(192, row)),
        (MEAN, point(192)),
    )


def spread() -> tuple[Branch, ...]:
    """Figure 7: 3x3 convolutions as 1x3 and 3x1 in parallel."""
    fork = (Step(384, (1, 3)), Step(384, (3, 1)))
    return ((point(320),), (point(384), fork), (point(448), Step(384), fork), (MEAN, point(192)))


STEM: Branch = (
    halving(32),
    Step(32, padded=False),
    Step(64),
    LARGEST,
    Step(80, (1, 1)),
    Step(192, padded=False),
    LARGEST,
)
BLOCKS: tuple[tuple[Branch, ...], ...] = (
    (STEM,),
    narrow(32),
    narrow(64),
    narrow(64),
    ((halving(384),), (point(64), Step(96), halving(96)), (LARGEST,)),
    factorised(128),
    factorised(160),
    factorised(160),
    factorised(192),
    (
        (point(192), halving(320)),
        (point(192), Step(192, (1, 7)), Step(192, (7, 1)), halving(192)),
        (LARGEST,),
    ),
    spread(),
    spread(),
)
WIDEST = 2048  # channels of the last block


class Inception(nn.Module):
    """Inception-v3 image encoder: stem, eleven blocks of parallel branches, mean pooling.

    The paper's auxiliary classifier is left out.

    The arguments of the call are those of `vgg.Vgg`.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top, no mask, and
      pooled [B, D]. For 299 x 299 pixels N is 64; D = 64 width.
    """

    config: InceptionConfig = InceptionConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        parts = self.config.convolutions(self.precision)
        x = image.astype(self.precision.compute)
        kind = (
            nn.remat(InceptionBlock, static_argnums=(2,))
            if parts.rematerialised
            else InceptionBlock
        )
        for i, branches in enumerate(BLOCKS):
            x = kind(branches, parts, self.config.width, name=f"block_{i}")(x, train)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        return Encoding(
            x if tokens else None, None, x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        )


class InceptionBlock(nn.Module):
    """Parallel branches, concatenated. [B, H, W, C] -> [B, H', W', C']."""

    branches: tuple[Branch, ...]
    parts: Convolutions
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return jnp.concatenate(
            [self.branch(x, branch, train, str(i)) for i, branch in enumerate(self.branches)],
            axis=-1,
        )

    def branch(
        self, x: jax.Array, steps: Sequence[Step | Fork], train: bool, name: str
    ) -> jax.Array:
        """The steps of one branch, one after the other."""
        for i, step in enumerate(steps):
            if isinstance(step, Step):
                x = self.step(x, step, train, f"{name}_{i}")
            else:
                x = jnp.concatenate(
                    [self.step(x, part, train, f"{name}_{i}_{j}") for j, part in enumerate(step)],
                    axis=-1,
                )
        return x

    def step(self, x: jax.Array, step: Step, train: bool, name: str) -> jax.Array:
        """A convolution with its norm and ReLU, or pooling."""
        if step == MEAN:
            return nn.avg_pool(x, (3, 3), padding="SAME")
        if step == LARGEST:
            return nn.max_pool(x, (3, 3), (2, 2))
        channels = scaled(step.channels, self.width)
        x = self.parts.convolution(
            channels, step.size, step.stride, padded=step.padded, name=f"convolution_{name}"
        )(x)
        return jax.nn.relu(self.parts.normalise(x, train, f"norm_{name}"))


def scaled(channels: int, width: int) -> int:
    """The number of channels of a layer where the first convolution has `width`, an even number."""
    return channels * width // STEM_WIDTH


def smaller(side: int, step: Step) -> int:
    """The side of a map after a step."""
    return -(-side // step.stride) if step.padded else (side - max(step.size)) // step.stride + 1


def branch_flops(branch: Branch, channels: int, side: int, width: int) -> tuple[int, int, int]:
    """FLOPs of one branch of a block, and the channels and the side of its output."""
    flops = 0
    for step in branch:
        parts = step if isinstance(step, tuple) else (step,)
        side = smaller(side, parts[0])
        wider = [scaled(part.channels, width) or channels for part in parts]
        flops += sum(
            2 * side**2 * part.size[0] * part.size[1] * channels * own
            for part, own in zip(parts, wider, strict=True)
            if part.channels
        )
        channels = sum(wider)
    return flops, channels, side
