"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s")."""

import dataclasses
from typing import ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Encoding, drop_branch
from vlp_jax.models.options import ACTIVATIONS, Precision, with_logical_axes
from vlp_jax.models.vision.convolutions import CONVOLUTION, convolution_flops
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.sharding.layout import constrain

EXPANSION = 4  # hidden channels of a block per channel
KERNEL = 7  # of the depthwise convolutions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNextConfig(ImageTowerConfig):
    """ConvNeXt (Liu et al. 2022). Its tokens are the last feature map."""

    policies: ClassVar[tuple[str, ...]] = ("none", "full")

    widths: tuple[int, ...] = (96, 192, 384, 768)  # channels of each stage
    blocks: tuple[int, ...] = (3, 3, 9, 3)  # of each stage
    patch_size: int = between(4, 1)  # of the stem; each further stage halves the map
    image_size: int = between(224, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    layer_scale: float | None = between(1e-6, 0.0)  # initial value; None: no layer scale
    norm_epsilon: float = between(1e-6, 0.0, 1.0)  # of the norm behind pooling; others have 1e-6
    # rate of the last block, growing linearly from 0
    stochastic_depth: float = between(0.0, 0.0, 1.0)
    # full: the backward pass computes each block again; auto: where that is needed to fit
    rematerialisation: Literal["none", "full", "auto"] = "none"

    def build(self, precision: Precision) -> "ConvNext":
        """The ConvNeXt of these settings."""
        self.check()
        return ConvNext(self, precision)

    def check(self) -> None:
        """Checks that the stages have widths and blocks, and that the strides leave a map.

        Raises: ConfigError where they do not.
        """
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError(
                f"{self.section}.widths: needs one entry for each of blocks, got {self.widths} "
                f"and {self.blocks}"
            )
        if self.side < 1:
            raise ConfigError(
                f"{self.section}.image_size: {self.image_size} leaves nothing behind the strides; "
                f"use {self.patch_size * 2 ** (len(self.widths) - 1)} or more"
            )

    @property
    def side(self) -> int:
        """The side of the last map, each stride rounded down."""
        return self.image_size // self.patch_size // 2 ** (len(self.widths) - 1)

    @property
    def token_width(self) -> int:
        """The channels of the last stage."""
        return self.widths[-1]

    def smoke(self, sizes: Sizes) -> Self:
        """One block with few channels per stage."""
        stages = len(self.widths)
        return dataclasses.replace(
            self,
            widths=tuple(8 * 2**stage for stage in range(stages)),
            blocks=(1,) * stages,
            image_size=min(self.image_size, 64),
        )

    def small(self, sizes: Sizes) -> Self:
        """Few channels, on images of 32 x 32 pixels behind a small stem."""
        small = dataclasses.replace(self.smoke(sizes), patch_size=2, image_size=32)
        return dataclasses.replace(small, rematerialisation="none")

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """The stem, the halvings, and the blocks."""
        side = self.image_size // self.patch_size
        flops = convolution_flops(side, self.patch_size, 3, self.widths[0])
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            if stage:
                side //= 2
                flops += convolution_flops(side, 2, self.widths[stage - 1], width)
            depthwise = convolution_flops(side, KERNEL, width, 1)
            flops += blocks * (depthwise + 4 * side**2 * EXPANSION * width**2)
        return flops


def normed(precision: Precision, name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
    """LayerNorm over the channels."""
    return precision.layer_norm(epsilon, name)


def convolution(
    precision: Precision, channels: int, size: int, name: str, *, depthwise: bool = False
) -> nn.Conv:
    """A convolution with a bias: depthwise with stride 1, or with its size as stride."""
    axes = ("kernel_height", "kernel_width", None, "embed") if depthwise else CONVOLUTION
    return nn.Conv(
        channels,
        (size, size),
        1 if depthwise else size,
        padding="SAME" if depthwise else "VALID",
        feature_group_count=channels if depthwise else 1,
        name=name,
        dtype=precision.compute,
        param_dtype=jnp.float32,
        kernel_init=with_logical_axes(nn.initializers.truncated_normal(0.02), axes),
        bias_init=with_logical_axes(nn.initializers.zeros, ("embed",)),
    )


class ConvNext(nn.Module):
    """ConvNeXt image encoder: stem, stages, mean pooling, norm.

    Args of the call:
      image: [B, H, W, 3] normalised pixels.
      train: whether to drop branches (stochastic depth; this needs a "dropout" rng).
      tokens: False where only `pooled` is needed.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top and without a
      norm, no mask, and pooled [B, D]. With four stages, N is (H / 32) (W / 32), rounded down.
    """

    config: ConvNextConfig = ConvNextConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        config, precision = self.config, self.precision
        x = image.astype(precision.compute)
        x = convolution(precision, config.widths[0], config.patch_size, "stem")(x)
        x = normed(precision, "stem_norm")(x)
        full = config.rematerialisation == "full"
        kind = nn.remat(ConvNextBlock, static_argnums=(3,)) if full else ConvNextBlock
        rates = iter(jnp.linspace(0.0, config.stochastic_depth, sum(config.blocks)))
        for stage, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            if stage:
                x = normed(precision, f"stage_{stage}_norm")(x)
                x = convolution(precision, width, 2, f"stage_{stage}_halving")(x)
            for block in range(blocks):
                rate = next(rates) if config.stochastic_depth else None
                x = kind(width, config, precision, name=f"stage_{stage}_block_{block}")(
                    x, rate, train
                )
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        pooled = x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        pooled = normed(precision, "norm", config.norm_epsilon)(pooled)
        return Encoding(x if tokens else None, None, pooled)


class ConvNextBlock(nn.Module):
    """A depthwise convolution, a norm, and an MLP of channels, on a residual branch.

    [B, H, W, C] -> [B, H, W, C].
    """

    channels: int
    config: ConvNextConfig
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | None, train: bool = False) -> jax.Array:
        config, precision, init = (
            self.config,
            self.precision,
            nn.initializers.truncated_normal(0.02),
        )
        y = convolution(precision, self.channels, KERNEL, "depthwise", depthwise=True)(x)
        y = normed(precision, "norm")(y)
        y = precision.dense(
            EXPANSION * self.channels, ("embed", "mlp"), kernel_init=init, name="in"
        )(y)
        y = ACTIVATIONS[config.activation](y)
        y = precision.dense(self.channels, ("mlp", "embed"), kernel_init=init, name="out")(y)
        if config.layer_scale is not None:
            scale = with_logical_axes(nn.initializers.constant(config.layer_scale), ("embed",))
            y = y * self.param("layer_scale", scale, (self.channels,), jnp.float32).astype(y.dtype)
        if train and rate is not None:
            y = drop_branch(self.make_rng("dropout"), y, rate=rate)
        return x + y
