"""An image encoder and a text encoder with a shared embedding space, built from the `model` section of a config."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion import CoAttention, Concatenation, CrossAttention, FusedEncoding, MergedAttention
from vlp_jax.models.layers import Encoding, LayerOptions, Precision
from vlp_jax.models.presets import patch_size_of, size_of
from vlp_jax.models.text import TextTransformer
from vlp_jax.models.vit import ViT
from vlp_jax.sharding.layout import constrain


class VisionLanguageModel(nn.Module):
    """Two towers, the projections into the shared space, and a fusion where the config has one.

    Each method works alone through `module.apply(variables, ..., method="encode_image")`.
    """

    config: schema.Model
    precision: Precision

    def setup(self):
        self.image = build_image_tower(self.config.image, self.precision)
        self.text = build_text_tower(self.config.text, self.precision)
        self.fusion = build_fusion(self.config.fusion, self.precision)
        dim = embedding_dim(self.config)
        self.image_projection = build_projection(self.config.image, dim, self.precision)
        self.text_projection = build_projection(self.config.text, dim, self.precision)

    def encode_image(self, image: jax.Array, train: bool = False, tokens: bool = True) -> Encoding:
        """[B, H, W, 3] normalised pixels -> the image tower's Encoding, with its `tokens` where they are wanted."""
        return self.image(image, train, tokens)

    def encode_text(self, text: jax.Array, mask: jax.Array | None = None, train: bool = False, tokens: bool = True) -> Encoding:
        """int32 [B, L], bool [B, L] -> the text tower's Encoding, with its `tokens` where they are wanted."""
        return self.text(text, mask, train, tokens)

    def fuse(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        """The Encodings of B pairs, with their tokens -> the text's tokens after fusion, their mask, and pooled [B, D].

        Raises: ConfigError where the config has no fusion.
        """
        if self.fusion is None:
            raise ConfigError("model.fusion: an objective on image and text together needs one, such as kind='cross_attention'")
        return self.fusion(image, text, train)

    def word_table(self) -> jax.Array:
        """The text tower's embeddings of its vocabulary, float32 [V, D]; the tower has been called before."""
        return nn.meta.unbox(self.text.get_variable("params", "tokens"))["embedding"]

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
    for name, tower in (("image", config.image), ("text", config.text)):
        width = size_of(tower, f"model.{name}").width
        if tower.projection == "none" and width != dim:
            raise ConfigError(f"model.{name}.projection: 'none' needs width {dim} (model.embedding_dim), the tower has {width}")
    return dim


def build_projection(tower: schema.Tower, dim: int, precision: Precision) -> nn.Module | None:
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


def layer_options(tower: schema.Stack, section: str, precision: Precision, causal: bool = False) -> LayerOptions:
    """The stack that a tower's config describes."""
    size = size_of(tower, section)
    return LayerOptions(
        width=size.width, heads=size.heads, mlp_dim=size.mlp_dim, depth=size.depth, norm=tower.norm, norm_kind=tower.norm_kind,
        norm_epsilon=tower.norm_epsilon, activation=tower.activation, qk_norm=tower.qk_norm,
        layer_scale=tower.layer_scale, dropout=tower.dropout, causal=causal, initialization=tower.initialization,
        attention=tower.attention, precision=precision)


def build_fusion(fusion: schema.Fusion | None, precision: Precision) -> nn.Module | None:
    """Raises: ConfigError for sizes that do not fit together."""
    if fusion is None:
        return None
    if fusion.kind == "concatenation":
        return Concatenation(fusion.width, fusion.mlp_dim, fusion.activation, precision)
    if fusion.kind == "co_attention" and fusion.scan:
        raise ConfigError("model.fusion.scan: two streams that read each other are not scanned; set scan=False")
    kind = {"cross_attention": CrossAttention, "merged": MergedAttention, "co_attention": CoAttention}[fusion.kind]
    return kind(layer_options(fusion, "model.fusion", precision), fusion.final_norm, fusion.pooler, fusion.stochastic_depth,
                fusion.scan, fusion.rematerialisation, fusion.saved)


def build_image_tower(tower: schema.ImageTower, precision: Precision) -> ViT:
    """Raises: ConfigError for sizes that do not fit together."""
    patch_size = patch_size_of(tower)
    if tower.image_size % patch_size:
        raise ConfigError(f"model.image: image_size {tower.image_size} does not divide into patches of {patch_size}")
    if tower.pooling == "none":
        raise ConfigError("model.image.pooling: 'none' leaves nothing to embed, expected 'cls', 'mean' or 'map'")
    if tower.stem == "convolution":
        check_stem(tower, patch_size)
    options = layer_options(tower, "model.image", precision)
    divided = {"sincos2d": ("width", options.width), "rotary2d": ("width of a head", options.width // options.heads)}
    if tower.position in divided and divided[tower.position][1] % 4:
        what, size = divided[tower.position]
        raise ConfigError(f"model.image.position: {tower.position!r} needs a {what} that divides by 4, got {size}")
    return ViT(options=options, image_size=tower.image_size, patch_size=patch_size, stem=tower.stem,
               stem_channels=tower.stem_channels, stem_strides=tower.stem_strides, patch_bias=tower.patch_bias,
               position=tower.position, pooling=tower.pooling, registers=tower.registers,
               embedding_norm=tower.embedding_norm, norm_before_pooling=tower.norm_before_pooling,
               token_drop=tower.token_drop, stochastic_depth=tower.stochastic_depth, scan=tower.scan,
               rematerialisation=tower.rematerialisation, saved=tower.saved)


def check_stem(tower: schema.ImageTower, patch_size: int) -> None:
    """Raises: ConfigError unless the stem's strides multiply to the patch size."""
    if len(tower.stem_channels) != len(tower.stem_strides) or not tower.stem_channels:
        raise ConfigError(f"model.image.stem_channels: needs one entry for each of stem_strides, "
                          f"got {tower.stem_channels} and {tower.stem_strides}")
    product = 1
    for stride in tower.stem_strides:
        product *= stride
    if product != patch_size:
        raise ConfigError(f"model.image.stem_strides: {tower.stem_strides} multiply to {product}, "
                          f"the patch size is {patch_size}")


def build_text_tower(tower: schema.TextTower, precision: Precision) -> TextTransformer:
    """Raises: ConfigError for sizes that do not fit together, and for a pooled token that would see no text."""
    if tower.causal and tower.pooling in ("cls", "first"):
        raise ConfigError(f"model.text.pooling: {tower.pooling!r} stands in front of the text and sees none of it with "
                          "causal=True; use 'end', 'last', 'mean' or 'map', or causal=False")
    return TextTransformer(
        options=layer_options(tower, "model.text", precision, causal=tower.causal), vocab_size=tower.vocab_size,
        length=tower.length, pooling=tower.pooling, padding_mask=tower.padding_mask, token_types=tower.token_types,
        embedding_norm=tower.embedding_norm, final_norm=tower.final_norm, pooler=tower.pooler,
        stochastic_depth=tower.stochastic_depth, scan=tower.scan, rematerialisation=tower.rematerialisation, saved=tower.saved)
