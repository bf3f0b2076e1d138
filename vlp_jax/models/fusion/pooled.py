"""Fusions of the towers' pooled vectors into one vector. None of them returns tokens."""

import dataclasses
import functools
from typing import ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.models.fusion.base import FusedEncoding, FusionConfig
from vlp_jax.models.layers.attention import visible_softmax
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import ACTIVATIONS, Precision, present
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledFusionConfig(FusionConfig):
    """Fields shared by the fusions of the towers' pooled vectors. They return no tokens."""

    returns_tokens: ClassVar[bool] = False

    width: int = between(768, 1)

    def fused_width(self, shapes: ModelShapes) -> int:
        """The width of the fused vector."""
        return self.width

    def smoke(self, sizes: Sizes) -> Self:
        """A narrow fused vector."""
        return dataclasses.replace(self, width=sizes.width)

    def hidden_flops(self, shapes: ModelShapes, hidden: int) -> int:
        """From both pooled vectors to `hidden` features, and from these to the width."""
        return 2 * hidden * (shapes.image.pooled_width + shapes.text.pooled_width + self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConcatenationConfig(PooledFusionConfig):
    """An MLP on the concatenated pooled vectors."""

    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"

    def build(self, shapes: ModelShapes, precision: Precision) -> "Concatenation":
        """The MLP of these settings."""
        return Concatenation(self, precision)

    def smoke(self, sizes: Sizes) -> Self:
        """A narrow fused vector and hidden layer."""
        return dataclasses.replace(super().smoke(sizes), mlp_dim=sizes.mlp_dim)

    def flops(self, shapes: ModelShapes) -> int:
        """The two layers of the MLP."""
        return self.hidden_flops(shapes, self.mlp_dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedSumConfig(PooledFusionConfig):
    """A sum of the two, weighted by a gate computed from both (GMU)."""

    def build(self, shapes: ModelShapes, precision: Precision) -> "GatedSum":
        """The gated sum of these settings."""
        return GatedSum(self, precision)

    def flops(self, shapes: ModelShapes) -> int:
        """A projection and a gate from each of the pooled vectors."""
        return 2 * self.width * 2 * (shapes.image.pooled_width + shapes.text.pooled_width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankBilinearConfig(PooledFusionConfig):
    """A low-rank bilinear product of the two (MLB)."""

    rank: int = between(1200, 1)

    def build(self, shapes: ModelShapes, precision: Precision) -> "LowRankBilinear":
        """The bilinear product of these settings."""
        return LowRankBilinear(self, precision)

    def smoke(self, sizes: Sizes) -> Self:
        """A narrow fused vector and a low rank."""
        return dataclasses.replace(super().smoke(sizes), rank=sizes.width)

    def flops(self, shapes: ModelShapes) -> int:
        """The projections to and from `rank` features."""
        return self.hidden_flops(shapes, self.rank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualAttentionConfig(PooledFusionConfig):
    """Repeated attention of the pooled text to the image's tokens (SAN)."""

    hops: int = between(2, 1)

    def build(self, shapes: ModelShapes, precision: Precision) -> "VisualAttention":
        """The repeated attention of these settings."""
        return VisualAttention(self, precision)

    def flops(self, shapes: ModelShapes) -> int:
        """Each hop scores the image's tokens and sums them."""
        width, image = self.width, shapes.image
        hop = 2 * (image.tokens + 1) * width**2 + 4 * image.tokens * width
        return (
            2 * width * (image.tokens * image.token_width + shapes.text.pooled_width)
            + self.hops * hop
        )


class PooledFusion(nn.Module):
    """Base class of these fusions. `__call__(image, text, train) -> FusedEncoding`.

    The FusedEncoding has pooled [B, width] in the compute dtype, computed from the Encodings'
    pooled [B, D'] and [B, D''], and no tokens. `VisualAttention` uses the image's tokens too.
    """

    config: PooledFusionConfig
    precision: Precision = Precision()

    def linear(
        self,
        x: jax.Array,
        features: int,
        name: str,
        axes: tuple[str, ...] = ("embed", "mlp"),
        bias: bool = False,
    ) -> jax.Array:
        """[..., D'] -> [..., features]."""
        dense = functools.partial(
            self.precision.dense, kernel_init=nn.initializers.xavier_uniform()
        )
        return dense(features, axes, use_bias=bias, name=name)(x)

    def mapped(self, image: Encoding, text: Encoding, features: int) -> tuple[jax.Array, jax.Array]:
        """tanh of a linear map of each pooled vector, [B, features]."""
        seen, read = (
            self.linear(present(image.pooled), features, "image"),
            self.linear(present(text.pooled), features, "text"),
        )
        return jnp.tanh(seen), jnp.tanh(read)

    def both(self, image: Encoding, text: Encoding) -> jax.Array:
        """The two pooled vectors, concatenated."""
        return jnp.concatenate([present(image.pooled), present(text.pooled)], axis=-1)


class Concatenation(PooledFusion):
    """Two linear layers with an activation in between, on the concatenation of the two vectors."""

    config: ConcatenationConfig

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        x = self.both(image, text)
        x = ACTIVATIONS[self.config.activation](
            self.linear(x, self.config.mlp_dim, "in", bias=True)
        )
        return FusedEncoding(
            None, text.mask, self.linear(x, self.config.width, "out", ("mlp", "embed"), bias=True)
        )


class GatedSum(PooledFusion):
    """A sum with learned, elementwise gates: the gated multimodal unit (Arevalo et al. 2017).

    For image v and text t,

      h = z * tanh(W_v v) + (1 - z) * tanh(W_t t),  z = sigmoid(W_z [v, t]).
    """

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        seen, read = self.mapped(image, text, self.config.width)
        gate = jax.nn.sigmoid(self.linear(self.both(image, text), self.config.width, "gate"))
        return FusedEncoding(None, text.mask, gate * seen + (1.0 - gate) * read)


class LowRankBilinear(PooledFusion):
    """Low-rank bilinear pooling (Kim et al. 2017, "Hadamard product for low-rank bilinear pooling",
    section 3).

    All products of an image feature and a text feature are weighted by a tensor of low rank: for
    image y and text x,

      f = P^T (tanh(U^T x) * tanh(V^T y)) + b.

    The rank is the width of the elementwise product.
    """

    config: LowRankBilinearConfig

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        seen, read = self.mapped(image, text, self.config.rank)
        return FusedEncoding(
            None,
            text.mask,
            self.linear(seen * read, self.config.width, "out", ("mlp", "embed"), bias=True),
        )


class VisualAttention(PooledFusion):
    """Stacked attention of the pooled text to the image's regions (Yang et al. 2016, section 3.3).

    Each hop attends to the regions with a query updated by the hops before. With regions f_i, the
    image's tokens, the text's pooled q, and v_i = tanh(W_I f_i + b_I) and u = W_T q + b_T of the
    same width, each hop with its own parameters computes

      p = softmax_i(w . tanh(W_v v_i + W_u u + b)),  u <- u + sum_i p_i v_i.

    For attention of single tokens to the regions see `CrossAttention`, for attention of all tokens
    to all see `MergedAttention`. The p of all hops, float32 [B, M], are sown into the collection
    "attention" as `weights`, a tuple, where the caller makes it mutable.
    """

    config: VisualAttentionConfig

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        regions = jnp.tanh(
            self.linear(present(image.tokens), self.config.width, "image", bias=True)
        )
        regions = constrain(regions, ("batch", "tokens", "activation_embed"))
        looking = self.linear(present(text.pooled), self.config.width, "text", bias=True)
        for hop in range(self.config.hops):
            asked = self.linear(looking, self.config.width, f"looking_{hop}", bias=True)[:, None]
            hidden = jnp.tanh(self.linear(regions, self.config.width, f"regions_{hop}") + asked)
            logits = self.linear(hidden, 1, f"weight_{hop}", ("mlp", "scores"))[:, :, 0].astype(
                jnp.float32
            )
            weights = visible_softmax(logits, image.mask, causal=False)
            if not self.is_initializing():
                self.sow("attention", "weights", weights)
            looking = looking + jnp.einsum("bm,bmd->bd", weights.astype(regions.dtype), regions)
        return FusedEncoding(None, text.mask, looking)
