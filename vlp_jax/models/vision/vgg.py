"""Plain stacks of 3x3 convolutions: VGG (Simonyan & Zisserman 2015)."""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.vision.resnet import Convolutions
from vlp_jax.models.vision.tower import ConvolutionConfig
from vlp_jax.sharding.layout import constrain

# number of convolutions of each of five stages: configurations A, B, D and E of table 1
DEPTHS: dict[int, tuple[int, ...]] = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDEST = 8  # each stage doubles the channels, up to this multiple of the first stage's


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggConfig(ConvolutionConfig):
    """Plain 3x3 convolutions (Simonyan & Zisserman 2015)."""

    depth: int = 16  # 11, 13, 16 or 19, including the paper's three fully connected layers
    norm: Literal["none", "batch", "group"] = "none"
    width: int = between(64, 1)  # channels of the first stage
    image_size: int = between(224, 1)
    pooling: Literal["mean", "hidden"] = "mean"  # hidden: two fully connected layers on the whole map
    hidden_dim: int = between(4096, 1)  # of pooling="hidden"
    dropout: float = between(0.5, 0.0, 1.0)  # of pooling="hidden"


class Vgg(nn.Module):
    """VGG image encoder: five stages of convolutions, each followed by max pooling.

    Convolutions have biases and ReLU; max pooling halves the map.

    Args of the call:
      image: [B, H, W, 3] normalised pixels.
      train: whether BatchNorm uses and updates batch statistics (collection `batch_stats`) and
        dropout is active (a "dropout" rng).
      tokens: False where only `pooled` is needed.
    Returns: Encoding with the last feature map as tokens [B, N, D], rows from the top, N = (H / 32)
      (W / 32) rounded down, no mask, and pooled [B, E].

    Attributes:
      hidden_dim: E, the width of the paper's two fully connected layers on the whole map, each with
        ReLU and dropout; their output is pooled. None: the mean token is pooled, E = D.
    """

    depths: tuple[int, ...]
    parts: Convolutions
    width: int
    hidden_dim: int | None
    dropout: float

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        x = image.astype(self.parts.precision.compute)
        kind = nn.remat(VggStage, static_argnums=(2,)) if self.parts.rematerialised else VggStage
        for i, depth in enumerate(self.depths):
            x = kind(depth, self.width * min(2**i, WIDEST), self.parts, name=f"stage_{i}")(x, train)
        x = constrain(rearrange(x, "b h w d -> b (h w) d"), ("batch", "tokens", "activation_embed"))
        return Encoding(x if tokens else None, None, self.pool(x, train))

    def pool(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, N, D] -> [B, E]."""
        if self.hidden_dim is None:
            return x.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        dense = functools.partial(self.parts.precision.dense, self.hidden_dim, kernel_init=nn.initializers.normal(0.01))
        drop = nn.Dropout(self.dropout, deterministic=not train)
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
