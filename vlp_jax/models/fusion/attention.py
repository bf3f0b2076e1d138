"""Fusions of image and text encodings by transformer layers."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.layers.transformer import Encoding, LayerOptions, Transformer, rematerialised
from vlp_jax.models.stack import StackConfig
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionStackConfig(StackConfig, FusionConfig):
    """Fields shared by the fusions by transformer layers."""

    preset: str = "B"
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on the pooled vector


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(FusionStackConfig):
    """Further layers on the text's tokens, with cross-attention to the image's tokens (ALBEF, BLIP)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergedAttentionConfig(FusionStackConfig):
    """One stream of image and text tokens (ViLT, FLAVA)."""

    class_token: bool = False  # pools a learned token of its own, in place of the text's first
    projected: bool = False  # a linear map for each modality, even where the width is that of the layers
    normalised: bool = True  # False: the towers' tokens before their final norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoAttentionConfig(FusionStackConfig):
    """Two streams, each of which attends to itself and to the other in every layer (METER)."""


@flax.struct.dataclass
class FusedEncoding(Encoding):
    """Output of a fusion: an Encoding of the text's tokens, which have attended to the image.

    Attributes:
      tokens: as in Encoding; None where only pooled vectors are fused.
      image_tokens: [B, M, D], the image's tokens, which have attended to the text; None where a
        fusion has none.
    """

    image_tokens: jax.Array | None = None


class FusionLayers(nn.Module):
    """Base class of the fusions by transformer layers. `__call__(image, text, train) -> FusedEncoding`.

    The text's first token, or a token of the fusion's own, is pooled.

    Args of the call:
      image: Encoding with tokens [B, M, D'] of any width, all of them real. A linear map brings
        another width to the layers'.
      text: Encoding with tokens [B, N, D''] of any width, and a mask [B, N] with hidden tokens
        last. The width as for `image`.
      train: whether to drop branches and activations.

    Attributes:
      pooler: a linear layer and tanh on the pooled token, as in BERT (Devlin et al. 2019).
    """

    options: LayerOptions
    final_norm: bool = True
    pooler: bool = False
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()

    def stack(self, train: bool, cross_attention: bool) -> Transformer:
        """The transformer layers, with or without cross-attention."""
        options = dataclasses.replace(self.options, cross_attention=cross_attention)
        return Transformer(options, self.stochastic_depth, self.scan, self.rematerialisation, self.saved, train,
                           name="transformer")

    def typed(self, x: jax.Array, name: str) -> jax.Array:
        """x in the width of the layers, plus a learned embedding of its modality, like BERT's segment embeddings."""
        x = self.options.to_width(x, f"{name}_in")
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("embed",))
        kind = self.param(f"{name}_type", init, (self.options.width,), jnp.float32)
        return constrain(x + kind.astype(x.dtype), ("batch", "tokens", "activation_embed"))

    def norm(self, x: jax.Array, name: str) -> jax.Array:
        """The final norm, where the fusion has one."""
        return constrain(self.options.normalisation(name)(x) if self.final_norm else x, ("batch", "tokens", "activation_embed"))

    def pool(self, first: jax.Array, name: str = "pooler") -> jax.Array:
        """[B, D] -> [B, D]."""
        options = self.options
        if not self.pooler:
            return first
        dense = options.precision.dense(options.width, ("embed", "mlp"), kernel_init=options.initializers()["residual"], name=name)
        return jnp.tanh(dense(first))


class CrossAttention(FusionLayers):
    """Cross-attention of the text's tokens to the image's in each layer (Li et al. 2021, "ALBEF", figure 1).

    The text's tokens also attend to themselves. This is visual attention of words. Its weights are
    sown into the collection "attention" where the caller makes it mutable (see
    `MultiHeadAttention`).
    """

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        x = self.stack(train, cross_attention=True)(self.options.to_width(text.tokens, "text_in"), text.mask, image.tokens)
        x = self.norm(x, "norm")
        return FusedEncoding(x, text.mask, self.pool(x[:, 0]))


class MergedAttention(FusionLayers):
    """Self-attention over the concatenated tokens of image and text (Kim et al. 2021, "ViLT", equations 1 to 5).

    The image's tokens come first, so that the text's padding is last.

    Attributes:
      class_token: pools a learned token in front of all others (Singh et al. 2022, "FLAVA", section
        3.1).
      projected: a linear map for each modality; its bias also marks the modality.
      normalised: False takes the towers' tokens before their final norms.
    """

    class_token: bool = False
    projected: bool = False
    normalised: bool = True

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        images, texts = self.entering(image, "image"), self.entering(text, "text")
        parts, behind = [images, texts], images.shape[1] + self.class_token  # index of the first text token
        if self.class_token:
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, None, "embed"))
            token = self.param("class_token", init, (1, 1, self.options.width), jnp.float32).astype(images.dtype)
            parts = [jnp.broadcast_to(token, (len(images), *token.shape[1:])), *parts]
        x = constrain(jnp.concatenate(parts, axis=1), ("batch", "tokens", "activation_embed"))
        mask = None if text.mask is None else jnp.pad(text.mask, ((0, 0), (behind, 0)), constant_values=True)
        x = self.norm(self.stack(train, cross_attention=False)(x, mask), "norm")
        pooled = self.pool(x[:, 0 if self.class_token else behind])
        return FusedEncoding(x[:, behind:], text.mask, pooled, image_tokens=x[:, int(self.class_token):behind])

    def entering(self, encoding: Encoding, name: str) -> jax.Array:
        """A tower's tokens as input of the layers, [B, N, D]."""
        x = encoding.tokens if self.normalised or encoding.unnormalised is None else encoding.unnormalised
        x = self.options.linear(x, f"{name}_in") if self.projected else self.typed(x, name)
        return constrain(x, ("batch", "tokens", "activation_embed"))


class CoAttention(FusionLayers):
    """Two streams; in each layer, each attends to itself, then to the other stream as it was before the layer.

    Dou et al. 2022, "METER", section 3.1.3. Pooled is the concatenation of the first token of the
    text and of that of the image, [B, 2 D].

    Attributes:
      class_token: whether the image's first token is pooled; else the mean of its tokens, as in
        METER's code for Swin.
    """

    class_token: bool = True

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        options = dataclasses.replace(self.options, cross_attention=True)
        layer = rematerialised(self.rematerialisation, self.saved, options, prevent_cse=True)
        images, texts = self.typed(image.tokens, "image"), self.typed(text.tokens, "text")
        rates = jnp.linspace(0.0, self.stochastic_depth, options.depth) if self.stochastic_depth else [None] * options.depth
        for i in range(options.depth):
            of_image, of_text = (layer(options, train, name=f"{name}_layer_{i}") for name in ("image", "text"))
            images, texts = (of_image(images, rates[i], None, texts, text.mask), of_text(texts, rates[i], text.mask, images))
        images, texts = self.norm(images, "image_norm"), self.norm(texts, "text_norm")
        whole = images[:, 0] if self.class_token else images.astype(jnp.float32).mean(axis=1).astype(images.dtype)
        pooled = [self.pool(texts[:, 0], "text_pooler"), self.pool(whole, "image_pooler")]
        return FusedEncoding(texts, text.mask, jnp.concatenate(pooled, axis=-1), image_tokens=images)
