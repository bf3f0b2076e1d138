"""Plain stacks of 3x3 convolutions: VGG (Simonyan & Zisserman 2015)."""

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
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision
from vlp_jax.models.vision.convolutions import ConvolutionConfig, Convolutions, convolution_flops
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# number of convolutions of each of five stages: configurations A, B, D and E of table 1
DEPTHS: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDEST = 8  # each stage doubles the channels, up to this multiple of the first stage's


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggConfig(ConvolutionConfig):
    """Plain 3x3 convolutions (Simonyan & Zisserman 2015)."""

    depth: int = 16  # 11, 13, 16 or 19, including the paper's three fully connected layers
    norm: Literal["none", "batch", "group"] = "none"
    width: int = between(64, 1)  # channels of the first stage
    image_size: int = between(224, 1)
    # hidden: two fully connected layers on the whole map
    pooling: Literal["mean", "hidden"] = "mean"
    hidden_dim: int = between(4096, 1)  # of pooling="hidden"
    dropout: float = between(0.5, 0.0, 1.0)  # of pooling="hidden"

    def build(self, precision: Precision) -> "Vgg":
        """The VGG of these settings."""
        self.check()
        return Vgg(self, precision)

    def check(self) -> None:
        """Checks that the halvings leave a feature map.

        Raises: ConfigError for a smaller image.
        """
        halvings = len(self.stages)
        if self.side < 1:
            raise ConfigError(
                f"{self.section}.image_size: {self.image_size} leaves nothing behind "
                f"a VGG's {halvings} halvings; use {2**halvings} or more"
            )

    @property
    def stages(self) -> tuple[int, ...]:
        """The number of convolutions of each stage.

        Raises: ConfigError for a depth that is not in the paper.
        """
        if self.depth not in DEPTHS:
            raise ConfigError(
                f"{self.section}.depth: must be one of "
                f"{', '.join(map(str, DEPTHS))} for a VGG, got {self.depth}"
            )
        return DEPTHS[self.depth]

    def channels(self, stage: int) -> int:
        """The number of channels of a stage."""
        return self.width * min(2**stage, WIDEST)

    @property
    def side(self) -> int:
        """The side of the image, halved after each stage."""
        return self.image_size // 2 ** len(self.stages)

    @property
    def token_width(self) -> int:
        """The channels of the last stage."""
        return self.channels(len(self.stages) - 1)

    @property
    def pooled_width(self) -> int:
        """The width of the fully connected layers where they pool, else the channels of the last
        stage."""
        return self.hidden_dim if self.pooling == "hidden" else self.token_width

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of the fully connected layers, where the mean pools."""
        unused = (
            dict.fromkeys(("hidden_dim", "dropout"), "with pooling='mean'")
            if self.pooling == "mean"
            else {}
        )
        return {**super().ignored(experiment), **unused}

    def smoke(self, sizes: Sizes) -> Self:
        """The smallest depth, with few channels."""
        return dataclasses.replace(
            self,
            width=8,
            depth=11,
            hidden_dim=64 if self.pooling == "hidden" else self.hidden_dim,
            image_size=min(self.image_size, 64),
        )

    def small(self, sizes: Sizes) -> Self:
        """All layers with few channels, on images of 32 x 32 pixels."""
        return dataclasses.replace(self, width=16, image_size=32, rematerialisation="none")

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """All convolutions, and the fully connected layers where they pool."""
        flops, channels, side = 0, 3, self.image_size
        for stage, depth in enumerate(self.stages):
            wider = self.channels(stage)
            flops += convolution_flops(side, 3, channels, wider) + (depth - 1) * convolution_flops(
                side, 3, wider, wider
            )
            channels, side = wider, side // 2
        hidden = self.hidden_dim if self.pooling == "hidden" else 0
        return flops + 2 * hidden * (self.tokens * self.token_width + hidden)


class Vgg(nn.Module):
    """VGG image encoder: five stages of convolutions, each followed by max pooling.

    Convolutions have biases and ReLU; max pooling halves the map.

    Args of the call:
      image: [B, H, W, 3] normalised pixels.
      train: whether BatchNorm uses and updates batch statistics (collection `batch_stats`) and
        dropout is active (a "dropout" rng).
      tokens: False where only `pooled` is needed.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top, N = (H / 32)
      (W / 32) rounded down, no mask, and pooled [B, E]: with pooling="hidden" the output of the
      paper's two fully connected layers on the whole map, each with ReLU and dropout, of width
      `hidden_dim`; else the mean token, E = D.
    """

    config: VggConfig = VggConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        config, parts = self.config, self.config.convolutions(self.precision)
        x = image.astype(self.precision.compute)
        kind = nn.remat(VggStage, static_argnums=(2,)) if parts.rematerialised else VggStage
        for i, depth in enumerate(config.stages):
            x = kind(depth, config.channels(i), parts, name=f"stage_{i}")(x, train)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        return Encoding(x if tokens else None, None, self.pool(x, train))

    def pool(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, N, D] -> [B, E]."""
        if self.config.pooling == "mean":
            return x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        dense = functools.partial(
            self.precision.dense, self.config.hidden_dim, kernel_init=nn.initializers.normal(0.01)
        )
        drop = nn.Dropout(self.config.dropout, deterministic=not train)
        hidden = dense(axes=("patch", "embed", "mlp"), axis=(-2, -1), name="hidden_0")(x)
        hidden = drop(jax.nn.relu(constrain(hidden, ("batch", "activation_mlp"))))
        return drop(jax.nn.relu(dense(axes=("mlp", "embed"), name="hidden_1")(hidden)))


class VggStage(nn.Module):
    """3x3 convolutions, then max pooling. [B, H, W, C] -> [B, H / 2, W / 2, channels]."""

    depth: int
    channels: int
    parts: Convolutions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(self.depth):
            x = self.parts.convolution(self.channels, 3, bias=True, name=f"convolution_{i}")(x)
            x = jax.nn.relu(self.parts.normalise(x, train, f"norm_{i}"))
        return nn.max_pool(x, (2, 2), (2, 2))
