"""Fusions of image and text encodings by transformer layers."""

import dataclasses
from typing import Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.base import FusedEncoding, FusionConfig
from vlp_jax.models.layers.attention_inputs import AttentionInputs
from vlp_jax.models.layers.flops import cross_flops, layer_flops
from vlp_jax.models.layers.transformer import Encoding, Transformer, rematerialised
from vlp_jax.models.options import LayerOptions, Precision, present, with_logical_axes
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.stack import StackConfig
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionStackConfig(StackConfig, FusionConfig):
    """Fields shared by the fusions by transformer layers."""

    preset: str = "B"
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on the pooled vector

    def check(self, shapes: ModelShapes) -> None:
        """Checks the size of the layers.

        Raises: ConfigError as `size`.
        """
        self.layer_options(Precision())

    def fused_width(self, shapes: ModelShapes) -> int:
        """The width of the layers."""
        return self.size.width

    def smoke(self, sizes: Sizes) -> Self:
        """Reduced layers, with the name of the preset kept."""
        return dataclasses.replace(super().smoke(sizes), preset=self.preset)

    def small(self, sizes: Sizes) -> Self:
        """Reduced layers of the preset Ti."""
        return dataclasses.replace(super().small(sizes), preset="Ti")

    def pooler_flops(self) -> int:
        """The linear layer on one pooled token."""
        return 2 * self.size.width**2 if self.pooler else 0

    def entering_flops(self, tokens: int, width: int, always: bool = False) -> int:
        """The linear map of a tower's tokens to the width of the layers, where there is one."""
        return 2 * tokens * width * self.size.width if always or width != self.size.width else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(FusionStackConfig):
    """Further layers on the text's tokens, with cross-attention to the image's tokens (ALBEF,
    BLIP)."""

    def build(self, shapes: ModelShapes, precision: Precision) -> "CrossAttention":
        """The layers with cross-attention of these settings."""
        self.check(shapes)
        return CrossAttention(self, precision)

    def flops(self, shapes: ModelShapes) -> int:
        """The layers on the text's tokens, with cross-attention to the image's."""
        size, image, text = self.size, shapes.image, shapes.text
        layer = layer_flops(size, text.tokens, activation=self.activation)
        layer += cross_flops(
            size.width, text.tokens, memory=image.tokens, memory_width=image.token_width
        )
        return (
            self.pooler_flops()
            + self.entering_flops(text.tokens, text.token_width)
            + size.depth * layer
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergedAttentionConfig(FusionStackConfig):
    """One stream of image and text tokens (ViLT, FLAVA)."""

    class_token: bool = False  # pools a learned token of its own, in place of the text's first
    # a linear map for each modality, even where the width is that of the layers
    projected: bool = False
    normalised: bool = True  # False: the towers' tokens before their final norm

    def build(self, shapes: ModelShapes, precision: Precision) -> "MergedAttention":
        """The layers on both towers' tokens of these settings."""
        self.check(shapes)
        return MergedAttention(self, precision)

    def flops(self, shapes: ModelShapes) -> int:
        """The layers on the tokens of both towers and the class token."""
        size, image, text = self.size, shapes.image, shapes.text
        entering = sum(
            self.entering_flops(tower.tokens, tower.token_width, self.projected)
            for tower in (image, text)
        )
        layer = layer_flops(
            size, self.class_token + image.tokens + text.tokens, activation=self.activation
        )
        return self.pooler_flops() + entering + size.depth * layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoAttentionConfig(FusionStackConfig):
    """Two streams, each of which attends to itself and to the other in every layer (METER)."""

    # a linear map for each modality, even where the width is that of the layers
    projected: bool = False

    def build(self, shapes: ModelShapes, precision: Precision) -> "CoAttention":
        """The two streams of these settings."""
        self.check(shapes)
        return CoAttention(self, precision, shapes.image.class_token)

    def check(self, shapes: ModelShapes) -> None:
        """Checks the sizes, and that the streams are not to be scanned.

        Raises: ConfigError where they are.
        """
        if self.scan:
            raise ConfigError(
                f"{self.section}.scan: two streams that read each other are not "
                "scanned; set scan=False"
            )
        super().check(shapes)

    def pooled_width(self, shapes: ModelShapes) -> int:
        """Twice the width: a pooled vector of each stream, concatenated."""
        return 2 * self.fused_width(shapes)

    def flops(self, shapes: ModelShapes) -> int:
        """The layers of both streams, with cross-attention between them."""
        size, towers, flops = self.size, (shapes.image, shapes.text), 2 * self.pooler_flops()
        for tower, other in (towers, towers[::-1]):
            layer = layer_flops(size, tower.tokens, activation=self.activation)
            layer += cross_flops(
                size.width, tower.tokens, memory=other.tokens, memory_width=size.width
            )
            flops += self.entering_flops(tower.tokens, tower.token_width, self.projected)
            flops += size.depth * layer
        return flops


class FusionLayers(nn.Module):
    """Base class of the fusions by transformer layers.

    `__call__(image, text, train) -> FusedEncoding`.

    The text's first token, or a token of the fusion's own, is pooled.

    Args of the call:
      image: Encoding with tokens [B, M, D'] of any width, all of them real. A linear map brings
        another width to the layers'.
      text: Encoding with tokens [B, N, D''] of any width, and a mask [B, N] with hidden tokens
        last. The width as for `image`.
      train: whether to drop branches and activations.

    With `config.pooler`, a linear layer and tanh are on the pooled token, as in BERT (Devlin et al.
    2019).
    """

    config: FusionStackConfig
    precision: Precision = Precision()

    @property
    def options(self) -> LayerOptions:
        """The options of the layers, without cross-attention."""
        return self.config.layer_options(self.precision)

    def stack(self, train: bool, cross_attention: bool) -> Transformer:
        """The transformer layers, with or without cross-attention."""
        return self.config.transformer(
            self.config.layer_options(self.precision, cross_attention=cross_attention), train
        )

    def typed(self, x: jax.Array, name: str, projected: bool = False) -> jax.Array:
        """x in the width of the layers, plus a learned embedding of its modality, like BERT's
        segment embeddings.

        Args:
          x: [B, N, D'].
          name: of the modality.
          projected: whether there is a linear map even where D' is the width of the layers.
        """
        into = self.options.linear if projected else self.options.to_width
        x = into(x, f"{name}_in")
        init = with_logical_axes(nn.initializers.normal(0.02), ("embed",))
        kind = self.param(f"{name}_type", init, (self.options.width,), jnp.float32)
        return constrain(x + kind.astype(x.dtype), ("batch", "tokens", "activation_embed"))

    def norm(self, x: jax.Array, name: str) -> jax.Array:
        """The final norm, where the fusion has one."""
        x = self.options.normalisation(name)(x) if self.config.final_norm else x
        return constrain(x, ("batch", "tokens", "activation_embed"))

    def pool(self, first: jax.Array, name: str = "pooler") -> jax.Array:
        """[B, D] -> [B, D]."""
        options = self.options
        if not self.config.pooler:
            return first
        dense = options.precision.dense(
            options.width,
            ("embed", "mlp"),
            kernel_init=options.initializers()["residual"],
            name=name,
        )
        return jnp.tanh(dense(first))


class CrossAttention(FusionLayers):
    """Cross-attention of the text's tokens to the image's in each layer (Li et al. 2021, "ALBEF",
    figure 1).

    The text's tokens also attend to themselves. This is visual attention of words. Its weights are
    sown into the collection "attention" where the caller makes it mutable (see
    `MultiHeadAttention`).
    """

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        x = self.options.to_width(present(text.tokens), "text_in")
        x = self.stack(train, cross_attention=True)(
            x, AttentionInputs(mask=text.mask, memory=image.tokens)
        )
        x = self.norm(x, "norm")
        return FusedEncoding(x, text.mask, self.pool(x[:, 0]))


class MergedAttention(FusionLayers):
    """Self-attention over the concatenated tokens of image and text (Kim et al. 2021, "ViLT",
    equations 1 to 5).

    The image's tokens come first, so that the text's padding is last.

    Keys of `config`:
      class_token: pools a learned token in front of all others (Singh et al. 2022, "FLAVA", section
        3.1).
      projected: a linear map for each modality; its bias also marks the modality.
      normalised: False takes the towers' tokens before their final norms.
    """

    config: MergedAttentionConfig

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        images, texts = self.entering(image, "image"), self.entering(text, "text")
        # index of the first text token
        parts, behind = [images, texts], images.shape[1] + self.config.class_token
        if self.config.class_token:
            init = with_logical_axes(nn.initializers.normal(0.02), (None, None, "embed"))
            token = self.param("class_token", init, (1, 1, self.options.width), jnp.float32).astype(
                images.dtype
            )
            parts = [jnp.broadcast_to(token, (len(images), *token.shape[1:])), *parts]
        x = constrain(jnp.concatenate(parts, axis=1), ("batch", "tokens", "activation_embed"))
        mask = (
            None
            if text.mask is None
            else jnp.pad(text.mask, ((0, 0), (behind, 0)), constant_values=True)
        )
        x = self.norm(
            self.stack(train, cross_attention=False)(x, AttentionInputs(mask=mask)), "norm"
        )
        pooled = self.pool(x[:, 0 if self.config.class_token else behind])
        return FusedEncoding(
            x[:, behind:],
            text.mask,
            pooled,
            image_tokens=x[:, int(self.config.class_token) : behind],
        )

    def entering(self, encoding: Encoding, name: str) -> jax.Array:
        """A tower's tokens as input of the layers, [B, N, D]."""
        x = present(
            encoding.tokens
            if self.config.normalised or encoding.unnormalised is None
            else encoding.unnormalised
        )
        x = self.options.linear(x, f"{name}_in") if self.config.projected else self.typed(x, name)
        return constrain(x, ("batch", "tokens", "activation_embed"))


class CoAttention(FusionLayers):
    """Two streams; in each layer, each attends to itself, then to the other stream as it was before
    the layer.

    Dou et al. 2022, "METER", section 3.1.3. Pooled is the concatenation of the first token of the
    text and of that of the image, [B, 2 D].

    Attributes:
      class_token: whether the image's first token is pooled; else the mean of its tokens, as in
        METER's code for Swin.
    """

    config: CoAttentionConfig
    class_token: bool = True

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        config, options = (
            self.config,
            self.config.layer_options(self.precision, cross_attention=True),
        )
        layer = rematerialised(
            config.rematerialisation, config.saved, options=options, prevent_cse=True
        )
        images, texts = (
            self.typed(present(image.tokens), "image", config.projected),
            self.typed(present(text.tokens), "text", config.projected),
        )
        rates = (
            jnp.linspace(0.0, config.stochastic_depth, options.depth)
            if config.stochastic_depth
            else [None] * options.depth
        )
        for i in range(options.depth):
            of_image, of_text = (
                layer(options, train, name=f"{name}_layer_{i}") for name in ("image", "text")
            )
            images, texts = (
                of_image(images, rates[i], AttentionInputs(memory=texts, memory_mask=text.mask)),
                of_text(texts, rates[i], AttentionInputs(mask=text.mask, memory=images)),
            )
        images, texts = self.norm(images, "image_norm"), self.norm(texts, "text_norm")
        whole = (
            images[:, 0]
            if self.class_token
            else images.astype(jnp.float32).mean(axis=1).astype(images.dtype)
        )
        pooled = [self.pool(texts[:, 0], "text_pooler"), self.pool(whole, "image_pooler")]
        return FusedEncoding(
            texts, text.mask, jnp.concatenate(pooled, axis=-1), image_tokens=images
        )
