"""The Vision Transformer (Dosovitskiy et al. 2021) with the options of its successors."""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from vlp_jax.config.fields import between
from vlp_jax.config.parse import read_section
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.positions import rotary2d, sincos2d
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding, LayerOptions, Precision, Transformer
from vlp_jax.models.presets import layer_options, patch_size_of
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(StackConfig, ImageTowerConfig):
    """A Vision Transformer."""

    preset: str = "B/16"  # a size of `models/presets.py`, optionally with a patch size after a slash
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one per layer
    stem_strides: tuple[int, ...] = ()  # one per layer; their product is the patch size
    patch_bias: bool = True
    position: Literal["learned", "factorised", "sincos2d", "rotary2d"] = "learned"
    pooling: Literal["cls", "mean", "map", "none"] = "cls"
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm before the first layer
    norm_before_pooling: bool = True  # False: after it, on the pooled vector (as in CLIP; equal for cls)
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches dropped in training (FLIP)


class ViT(nn.Module):
    """Vision Transformer image encoder: stem, positions, transformer, pooling.

    Args of the call:
      image: [B, H, W, 3] normalised pixels; H and W are `image_size`.
      train: whether to drop tokens, branches and activations; this needs a "dropout" rng.
      tokens: False where only `pooled` is needed; the last layer then computes only what is pooled,
        where it can.
      kept: int32 [B, K], indices of the patches that are encoded, in this order; None: all, or in
        training a random subset (`token_drop`).
      masked: bool [B, N], the patches that are replaced by a learned mask token (Bao et al. 2022,
        "BEiT"). None of their pixels influences any other patch.
    Returns: Encoding with tokens [B, N, D] (class token first, registers last, where there are
      any), no mask, and pooled [B, D], None for pooling "none".
    Raises: ValueError if the image does not have the size of the position embedding.
    """

    options: LayerOptions
    image_size: int
    patch_size: int
    stem: str = "patch"
    stem_channels: tuple[int, ...] = ()
    stem_strides: tuple[int, ...] = ()
    patch_bias: bool = True
    position: str = "learned"  # "learned", "factorised" (row plus column), "sincos2d", "rotary2d" (in every layer)
    pooling: str = "cls"
    queries: int = 1
    registers: int = 0
    embedding_norm: bool = False
    norm_before_pooling: bool = True
    token_drop: float = 0.0
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()

    @classmethod
    def from_preset(cls, preset: str, *, compute: str = "float32", **overrides: Any) -> "ViT":
        """A ViT of a published size.

        Args:
          preset: a size and a patch size, such as "B/16" (see `models/presets.py`).
          compute: dtype of matrix products and activations; parameters are float32.
          **overrides: keys of a config's section `model.image`, such as image_size=384 or
            pooling="map".
        Returns: the module, without parameters.
        Raises: ConfigError for an unknown preset or key, and for sizes that do not fit together.
        """
        tower = read_section(ViTConfig, {"preset": preset, **overrides}, "model.image")
        return build_vit(tower, Precision(jnp.dtype(compute)))

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, tokens: bool = True, kept: jax.Array | None = None,
                 masked: jax.Array | None = None) -> Encoding:
        options, precision = self.options, self.options.precision
        if image.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(f"this ViT takes images of {self.image_size}x{self.image_size}, got {image.shape}")
        side = self.image_size // self.patch_size
        unseen = unseen_patches(masked, kept, side**2)
        if unseen is not None and self.stem == "convolution":  # its kernels cross patch borders
            image = jnp.where(pixels_of(unseen, side, self.patch_size), 0.0, image)
        x = self.embed_patches(image.astype(precision.compute))
        if masked is not None:
            x = jnp.where(masked[:, :, None], self.learned("mask_token", (1, 1, options.width)), x)
        has_class_token = self.pooling == "cls"
        x, angles = x + self.positions(side) if self.position != "rotary2d" else x, self.angles(side)
        if kept is None and train and self.token_drop:
            kept = kept_tokens(self.make_rng("dropout"), *x.shape[:2], self.token_drop)
        if kept is not None:
            x = jnp.take_along_axis(x, kept[:, :, None], axis=1)
            angles = None if angles is None else jnp.take_along_axis(angles, kept[:, :, None], axis=1)
        if angles is not None:  # class token and registers have no position
            angles = jnp.pad(angles, ((0, 0), (int(has_class_token), self.registers), (0, 0)))
        if has_class_token:
            token = self.learned("class_token", (1, 1, options.width)) + self.learned("class_position", (1, 1, options.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, options.width)), x], axis=1)
        if self.registers:
            registers = self.learned("registers", (1, self.registers, options.width))
            x = jnp.concatenate([x, jnp.broadcast_to(registers, (len(x), *registers.shape[1:]))], axis=1)
        if self.embedding_norm:
            x = options.normalisation("embedding_norm")(x)
        x = nn.Dropout(options.dropout, deterministic=not train)(x)
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        pool_position = PoolPosition() if has_class_token and not tokens else None
        x = Transformer(options, self.stochastic_depth, self.scan, self.rematerialisation, self.saved, train,
                        name="transformer")(x, angles=angles, pool_position=pool_position)
        encoding = self.pool(constrain(x, ("batch", "tokens", "activation_embed")))
        return encoding if tokens else encoding.replace(tokens=None, unnormalised=None)

    def embed_patches(self, image: jax.Array) -> jax.Array:
        """Pixels to patch embeddings, [B, H, W, 3] -> [B, N, D]."""
        options, precision = self.options, self.options.precision
        if self.stem == "convolution":
            image = ConvolutionStem(self.stem_channels, self.stem_strides, options, name="stem")(image)
            patches = rearrange(image, "b h w c -> b (h w) c")
        else:
            patches = rearrange(image, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size)
        return precision.dense(options.width, ("patch", "embed"), use_bias=self.patch_bias, name="patch_embedding",
                               kernel_init=options.initializers().get("patch", nn.initializers.lecun_normal()))(patches)

    def positions(self, side: int) -> jax.Array:
        """The position embedding added to the patches, [1, N, D]."""
        width = self.options.width
        if self.position == "sincos2d":
            return jnp.asarray(sincos2d(side, width), self.options.precision.compute)[None]
        if self.position == "factorised":  # Dehghani et al. 2023, "Patch n' Pack", section 3.3
            rows, columns = self.learned("row_position", (side, 1, width)), self.learned("column_position", (1, side, width))
            return rearrange(rows + columns, "y x d -> 1 (y x) d")
        return self.learned("position", (1, side * side, width))

    def angles(self, side: int) -> jax.Array | None:
        """The rotary angles of the patches' queries and keys, [1, N, K / 2]; None without rotary positions."""
        if self.position != "rotary2d":
            return None
        return jnp.asarray(rotary2d(side, self.options.width // self.options.heads))[None]

    def learned(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        """A float32 parameter, cast to the compute dtype."""
        init = nn.with_logical_partitioning(nn.initializers.normal(self.options.width**-0.5), (None, None, "embed"))
        return self.param(name, init, shape, jnp.float32).astype(self.options.precision.compute)

    def pool(self, x: jax.Array) -> Encoding:
        """The Encoding of the transformer's output [B, N, D], with its pooled vector."""
        options = self.options
        norm, unnormalised = options.normalisation("norm"), x
        if self.norm_before_pooling:
            x = norm(x)
        patches = x[:, self.pooling == "cls":x.shape[1] - self.registers]
        if self.pooling == "cls":
            pooled = x[:, 0]
        elif self.pooling == "mean":
            pooled = patches.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        elif self.pooling == "map":
            pooled = AttentionPooling(options, self.queries, name="pooling_head")(patches)
        else:
            return Encoding(x, None, None, unnormalised=unnormalised)
        return Encoding(x, None, pooled if self.norm_before_pooling else norm(pooled), unnormalised=unnormalised)


class ConvolutionStem(nn.Module):
    """3x3 convolutions, each followed by GroupNorm and ReLU, in place of one patch projection.

    Xiao et al. 2021, "Early convolutions help transformers see better"; with GroupNorm, because it
    needs no statistics over the batch.

    [B, H, W, C] -> [B, H/s, W/s, channels[-1]], where s is the product of the strides.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        compute = self.options.precision.compute
        kernel_init = nn.with_logical_partitioning(nn.initializers.he_normal(), (None, None, None, "embed"))
        along_channels = {"scale_init": nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
                          "bias_init": nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))}
        for i, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            x = nn.Conv(channels, (3, 3), stride, use_bias=False, dtype=compute, param_dtype=jnp.float32,
                        kernel_init=kernel_init, name=f"convolution_{i}")(x)
            x = nn.GroupNorm(num_groups=math.gcd(8, channels), dtype=compute, param_dtype=jnp.float32,
                             name=f"norm_{i}", **along_channels)(x)
            x = jax.nn.relu(x)
        return x


def unseen_patches(masked: jax.Array | None, kept: jax.Array | None, count: int) -> jax.Array | None:
    """The patches whose pixels are hidden: those that are masked or not kept.

    Args:
      masked: bool [B, N], or None.
      kept: int32 [B, K], indices, or None.
      count: N.
    Returns: bool [B, N], True for hidden patches; None where all patches are visible.
    """
    if kept is None:
        return masked
    unkept = (kept[:, :, None] != jnp.arange(count)).all(axis=1)
    return unkept if masked is None else unkept | masked


def pixels_of(patches: jax.Array, side: int, patch_size: int) -> jax.Array:
    """A mask of patches as a mask of their pixels: bool [B, N] -> [B, H, W, 1]."""
    return repeat(patches, "b (h w) -> b (h p) (w q) 1", h=side, p=patch_size, q=patch_size)


def kept_tokens(key: jax.Array, batch: int, count: int, rate: float) -> jax.Array:
    """Random subset of each example's tokens (FLIP, Li et al. 2023): int32 [B, round(count (1 - rate))]."""
    kept = max(1, round(count * (1.0 - rate)))
    return jnp.argsort(jax.random.uniform(key, (batch, count)), axis=1)[:, :kept]


def build_vit(tower: ViTConfig, precision: Precision) -> ViT:
    """The ViT of a config.

    Raises: ConfigError for sizes that do not fit together.
    """
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


def check_stem(tower: ViTConfig, patch_size: int) -> None:
    """Checks that the stem's strides multiply to the patch size.

    Raises: ConfigError where they do not.
    """
    if len(tower.stem_channels) != len(tower.stem_strides) or not tower.stem_channels:
        raise ConfigError(f"model.image.stem_channels: needs one entry for each of stem_strides, "
                          f"got {tower.stem_channels} and {tower.stem_strides}")
    product = 1
    for stride in tower.stem_strides:
        product *= stride
    if product != patch_size:
        raise ConfigError(f"model.image.stem_strides: {tower.stem_strides} multiply to {product}, "
                          f"the patch size is {patch_size}")
