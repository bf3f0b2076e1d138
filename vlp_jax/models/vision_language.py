"""An image encoder and a text encoder with a shared embedding space, built from the `model` section of a config."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers import Encoding, Precision
from vlp_jax.models.presets import size_of
from vlp_jax.models.towers import build_image_tower, build_text_tower, image_width
from vlp_jax.sharding.layout import constrain


class VisionLanguageModel(nn.Module):
    """Two towers and the projections into the shared space.

    Each method works alone through `module.apply(variables, ..., method="encode_image")`.
    """

    config: schema.Model
    precision: Precision

    def setup(self):
        self.image = build_image_tower(self.config.image, self.precision)
        self.text = build_text_tower(self.config.text, self.precision)
        dim = embedding_dim(self.config)
        self.image_projection = build_projection(self.config.image, dim, self.precision)
        self.text_projection = build_projection(self.config.text, dim, self.precision)

    def encode_image(self, image: jax.Array, train: bool = False, tokens: bool = True, kept: jax.Array | None = None) -> Encoding:
        """[B, H, W, 3] normalised pixels -> the image tower's Encoding, with its `tokens` where they are wanted. kept: int32
        [B, K], the only patches that a ViT is to encode; no ResNet can leave out any."""
        return self.image(image, train, tokens) if kept is None else self.image(image, train, tokens, kept)

    def encode_text(self, text: jax.Array, mask: jax.Array | None = None, train: bool = False, tokens: bool = True) -> Encoding:
        """int32 [B, L], bool [B, L] -> the text tower's Encoding, with its `tokens` where they are wanted."""
        return self.text(text, mask, train, tokens)

    def embed_image(self, encoding: Encoding) -> jax.Array:
        """An image Encoding -> unit vectors [B, E], float32."""
        return constrain(unit(project(self.image_projection, encoding.pooled)), ("batch", None))

    def embed_text(self, encoding: Encoding) -> jax.Array:
        """A text Encoding -> unit vectors [B, E], float32."""
        return constrain(unit(project(self.text_projection, encoding.pooled)), ("batch", None))

    def __call__(self, image: jax.Array | None, text: jax.Array | None, mask: jax.Array | None = None,
                 train: bool = False) -> tuple[jax.Array | None, jax.Array | None]:
        """Unit vectors [B, E] of images and of texts; None for what is not given."""
        images = None if image is None else self.embed_image(self.encode_image(image, train, tokens=False))
        texts = None if text is None else self.embed_text(self.encode_text(text, mask, train, tokens=False))
        return images, texts


def embedding_dim(config: schema.Model) -> int:
    """Size of the shared space. Raises ConfigError where a tower without projection has another width."""
    dim = config.embedding_dim or size_of(config.text, "model.text").width
    widths = {"image": image_width(config.image), "text": size_of(config.text, "model.text").width}
    for name, tower in (("image", config.image), ("text", config.text)):
        if tower.projection == "none" and widths[name] != dim:
            raise ConfigError(f"model.{name}.projection: 'none' needs width {dim} (model.embedding_dim), "
                              f"the tower has {widths[name]}")
    return dim


def build_projection(tower: schema.Tower | schema.ResNetTower, dim: int, precision: Precision) -> nn.Module | None:
    if tower.projection == "none":
        return None
    return precision.dense(dim, ("embed", "embedding"), use_bias=tower.projection == "linear_with_bias",
                           kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"))


def project(projection: nn.Module | None, pooled: jax.Array) -> jax.Array:
    return pooled if projection is None else projection(pooled)


def unit(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, float32; the zero vector stays zero and has a zero gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-24))
