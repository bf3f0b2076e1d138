"""An image and a text encoder with a shared embedding space, built from the `model` section of a
config."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.packed_rows import PackedRows
from vlp_jax.models.fusion.base import FusedEncoding
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision, present
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.sharding.layout import constrain


class VisionLanguageModel(nn.Module):
    """Two towers, the projections into the shared space, and the fusion and decoder of the config,
    if any.

    Each method can be called alone through `module.apply(variables, ..., method="encode_image")`.
    """

    config: ModelConfig
    precision: Precision

    def setup(self) -> None:
        """Builds the parts of the config as submodules."""
        config, precision, shapes = self.config, self.precision, self.config.shapes()
        self.image = config.image.build(precision)
        self.text = config.text.build(precision)
        self.fusion = None if config.fusion is None else config.fusion.build(shapes, precision)
        self.image_projection = build_projection(config.image, shapes.embedding_dim, precision)
        self.text_projection = build_projection(config.text, shapes.embedding_dim, precision)
        if config.decoder is not None:
            self.decoder = config.decoder.build(shapes, precision)

    def encode_image(
        self,
        image: jax.Array,
        train: bool = False,
        tokens: bool = True,
        kept: jax.Array | None = None,
        masked: jax.Array | None = None,
        boxes: jax.Array | None = None,
    ) -> Encoding:
        """The image tower's Encoding.

        Args:
          image: [B, H, W, 3] normalised pixels.
          train: whether to drop tokens, branches and activations.
          tokens: whether the Encoding's `tokens` are needed.
          kept: int32 [B, K], the only patches that a ViT encodes; other towers do not support it.
          masked: bool [B, N], the patches that a ViT replaces by a mask token; other towers do not
            support it.
          boxes: float32 [B, R, 4], passed on in the Encoding for the fusion.
        """
        chosen = {
            name: value for name, value in (("kept", kept), ("masked", masked)) if value is not None
        }
        return dataclasses.replace(self.image(image, train, tokens, **chosen), boxes=boxes)

    def encode_text(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        tokens: bool = True,
        edges: jax.Array | None = None,
    ) -> Encoding:
        """The text tower's Encoding.

        Args:
          text: int32 [B, L] token ids.
          mask: bool [B, L], True for real tokens; None: all are real.
          train: whether to drop branches and activations.
          tokens: whether the Encoding's `tokens` are needed.
          edges: bool [B, L, L], passed on in the Encoding for the fusion.
        """
        return dataclasses.replace(self.text(text, mask, train, tokens), edges=edges)

    def fuse(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        """The fusion of the Encodings of B pairs, with their tokens.

        Returns: the text's tokens after fusion, their mask, and pooled [B, D].
        Raises: ConfigError where the config has no fusion.
        """
        if self.config.fusion is None:
            raise ConfigError(
                "model.fusion: an objective on image and text together needs one, "
                "such as kind='cross_attention'"
            )
        return self.config.fusion.fuse(self, image, text, train)

    def word_table(self) -> jax.Array:
        """The text tower's token embeddings, float32 [V, D]. The tower has to be called before."""
        return nn.meta.unbox(self.text.get_variable("params", "tokens"))["embedding"]

    def embed_image(self, encoding: Encoding) -> jax.Array:
        """An image Encoding -> unit vectors [B, E], float32."""
        return constrain(
            unit(project(self.image_projection, present(encoding.pooled))), ("batch", None)
        )

    def embed_text(self, encoding: Encoding) -> jax.Array:
        """A text Encoding -> unit vectors [B, E], float32."""
        return constrain(
            unit(project(self.text_projection, present(encoding.pooled))), ("batch", None)
        )

    def pooled_image(self, image: jax.Array) -> jax.Array:
        """The pooled vectors of images before the projection, float32 [B, D]."""
        pooled = present(self.encode_image(image, tokens=False).pooled)
        return constrain(pooled.astype(jnp.float32), ("batch", None))

    def patch_embeddings(self, image: jax.Array) -> jax.Array:
        """The tokens of the image tower's grid in the shared space: unit vectors float32 [B, side,
        side, E], for towers with `projects_tokens`."""
        grid = self.config.image.grid
        tokens = present(self.encode_image(image).tokens)
        patches = tokens[:, grid.before : grid.before + grid.side**2]
        embedded = unit(project(self.image_projection, patches))
        return rearrange(embedded, "b (h w) e -> b h w e", h=grid.side)

    def decode(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        memory: Encoding | None = None,
        train: bool = False,
        encoding: Encoding | None = None,
        prefix: jax.Array | None = None,
        packed: PackedRows | None = None,
    ) -> jax.Array:
        """The decoder's logits of each next token (see `TextDecoder`).

        Args:
          text: int32 [B, L] token ids.
          mask: bool [B, L], True for real tokens; None: all are real.
          memory: the image's Encoding, where the decoder attends to one.
          train: whether to drop branches and activations.
          encoding: the text tower's Encoding, for a decoder on top of it; computed where it is not
            given.
          prefix: int32 [B], the number of first tokens that all tokens attend to.
          packed: segments of rows that hold several texts.
        Returns: float32 [B, L, V].
        """
        return present(self.config.decoder).decode(
            self, text, mask, memory, train, encoding, prefix, packed
        )

    def answer(
        self,
        fused: FusedEncoding,
        text: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """`decode` of answers int32 [B, L] to fused pairs: the decoder attends to the fused tokens
        of the text."""
        return self.decode(text, mask, as_memory(fused), train)

    def decode_next(
        self, text: jax.Array, position: jax.Array, memory: Encoding | None = None
    ) -> jax.Array:
        """`decode` of tokens that follow those of earlier calls.

        Earlier calls are kept in the collection "cache" (to be mutable).

        Args:
          text: int32 [B, n].
          position: int32 scalar, position of the first of them.
          memory: the image's Encoding, only in the first call, which may have no tokens (n = 0).
        """
        return present(self.config.decoder).decode_next(self, text, position, memory)

    def __call__(
        self,
        image: jax.Array | None,
        text: jax.Array | None,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Unit vectors [B, E] of images and of texts; None for an input that is None."""
        images = (
            None
            if image is None
            else self.embed_image(self.encode_image(image, train, tokens=False))
        )
        texts = (
            None
            if text is None
            else self.embed_text(self.encode_text(text, mask, train, tokens=False))
        )
        return images, texts


def as_memory(fused: FusedEncoding) -> Encoding:
    """The memory of a decoder of answers: the text's tokens after fusion."""
    return Encoding(fused.tokens, fused.mask, fused.pooled)


def build_projection(
    tower: ImageTowerConfig | TextTowerConfig, dim: int, precision: Precision
) -> nn.Module | None:
    """The linear map from a tower's pooled [B, D] to the shared [B, dim]; None for a tower without
    one."""
    if tower.projection == "none":
        return None
    return precision.dense(
        dim,
        ("embed", "embedding"),
        use_bias=tower.projection == "linear_with_bias",
        kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    )


def project(projection: nn.Module | None, pooled: jax.Array) -> jax.Array:
    """[B, D] -> [B, E]; the identity where there is no projection."""
    return pooled if projection is None else projection(pooled)


def unit(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, float32; the zero vector stays zero and has a zero gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-24))
