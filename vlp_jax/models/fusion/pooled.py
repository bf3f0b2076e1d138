"""Fusions of what the two towers pooled: one vector of each, and one of both. None of them gives tokens."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.fusion.attention import FusedEncoding
from vlp_jax.models.layers.attention import visible_softmax
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import ACTIVATIONS, Precision
from vlp_jax.sharding.layout import constrain


class PooledFusion(nn.Module):
    """Base of these fusions. `__call__(image, text, train) -> FusedEncoding` with pooled [B, width] of the Encodings' pooled
    [B, D'] and [B, D''], in the compute dtype, and without tokens. One of them reads the image's tokens too."""

    width: int
    precision: Precision

    def linear(self, x: jax.Array, features: int, name: str, axes: tuple[str, str] = ("embed", "mlp"),
               bias: bool = False) -> jax.Array:
        """[..., D'] -> [..., features]."""
        dense = functools.partial(self.precision.dense, kernel_init=nn.initializers.xavier_uniform())
        return dense(features, axes, use_bias=bias, name=name)(x)


class Concatenation(PooledFusion):
    """Two linear layers with an activation between them on the two vectors side by side."""

    mlp_dim: int
    activation: str

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        x = jnp.concatenate([image.pooled, text.pooled], axis=-1)
        x = ACTIVATIONS[self.activation](self.linear(x, self.mlp_dim, "in", bias=True))
        return FusedEncoding(None, text.mask, self.linear(x, self.width, "out", ("mlp", "embed"), bias=True))


class GatedSum(PooledFusion):
    """A weighted sum whose weights each pair chooses for itself, number by number: the gated multimodal unit (Arevalo et al. 2017),
    of image v and text t

      h = z * tanh(W_v v) + (1 - z) * tanh(W_t t),  z = sigmoid(W_z [v, t]).
    """

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        seen, read = (jnp.tanh(self.linear(x, self.width, name)) for x, name in ((image.pooled, "image"), (text.pooled, "text")))
        gate = jax.nn.sigmoid(self.linear(jnp.concatenate([image.pooled, text.pooled], axis=-1), self.width, "gate"))
        return FusedEncoding(None, text.mask, gate * seen + (1.0 - gate) * read)


class LowRankBilinear(PooledFusion):
    """Every product of a number of the image and one of the text, weighted by a tensor of low rank (Kim et al. 2017, "Hadamard
    product for low-rank bilinear pooling", section 3), of image y and text x

      f = P^T (tanh(U^T x) * tanh(V^T y)) + b.

    rank: the width between, that of the elementwise product.
    """

    rank: int

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        seen, read = (jnp.tanh(self.linear(x, self.rank, name)) for x, name in ((image.pooled, "image"), (text.pooled, "text")))
        return FusedEncoding(None, text.mask, self.linear(seen * read, self.width, "out", ("mlp", "embed"), bias=True))


class VisualAttention(PooledFusion):
    """The text as a whole looks at the image's regions, several times, each time knowing what it saw before: stacked attention
    (Yang et al. 2016, section 3.3). Of regions f_i, the image's tokens, and the text's pooled q, with v_i = tanh(W_I f_i + b_I) and
    u = W_T q + b_T of the same width, each hop with parameters of its own:

      p = softmax_i(w . tanh(W_v v_i + W_u u + b)),  u <- u + sum_i p_i v_i.

    Attention of single words to the regions is what `CrossAttention` has, of all tokens to all what `MergedAttention` has. Where a
    caller asks for the collection "attention", its `weights` are a tuple of the hops' p, float32 [B, M].
    """

    hops: int

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        regions = jnp.tanh(self.linear(image.tokens, self.width, "image", bias=True))
        regions = constrain(regions, ("batch", "tokens", "activation_embed"))
        looking = self.linear(text.pooled, self.width, "text", bias=True)
        for hop in range(self.hops):
            asked = self.linear(looking, self.width, f"looking_{hop}", bias=True)[:, None]
            hidden = jnp.tanh(self.linear(regions, self.width, f"regions_{hop}") + asked)
            logits = self.linear(hidden, 1, f"weight_{hop}", ("mlp", None))[:, :, 0].astype(jnp.float32)
            weights = visible_softmax(logits, image.mask, causal=False)
            if not self.is_initializing():
                self.sow("attention", "weights", weights)
            looking = looking + jnp.einsum("bm,bmd->bd", weights.astype(regions.dtype), regions)
        return FusedEncoding(None, text.mask, looking)
