"""The Vision Transformer (Dosovitskiy et al. 2021) with the options of its successors."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.parse import read_section
from vlp_jax.models.layers.attention_inputs import AttentionInputs
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.positions import (
    BIAS_INIT,
    bucket_count,
    grid_buckets,
    rotary2d,
    rotary2d_unit,
    sincos2d,
)
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import LayerOptions, Precision, with_logical_axes
from vlp_jax.models.vision.stem import ConvolutionStem, pixels_of, unseen_patches
from vlp_jax.models.vision.vit_config import ViTConfig as ViTConfig
from vlp_jax.sharding.layout import constrain


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
    Returns: Encoding with tokens [B, N, D] (class tokens first, registers last, where there are
      any), no mask, and pooled [B, D], None for pooling "none".
    Raises: ValueError if the image does not have the size of the position embedding.
    """

    config: ViTConfig = ViTConfig()
    precision: Precision = Precision()

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
        return read_section(ViTConfig, {"preset": preset, **overrides}, ViTConfig.section).build(
            Precision(jnp.dtype(compute))
        )

    @property
    def options(self) -> LayerOptions:
        """The options of the layers."""
        options = self.config.layer_options(self.precision)
        if self.config.position_bias != "layers":
            return options
        return dataclasses.replace(options, position_buckets=bucket_count(self.config.side))

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        train: bool = False,
        tokens: bool = True,
        kept: jax.Array | None = None,
        masked: jax.Array | None = None,
    ) -> Encoding:
        config, options, side = self.config, self.options, self.config.side
        if image.shape[1:3] != (config.image_size, config.image_size):
            raise ValueError(
                f"this ViT takes images of {config.image_size}x{config.image_size}, "
                f"got {image.shape}"
            )
        unseen = unseen_patches(masked, kept, side**2)
        if unseen is not None and config.stem == "convolution":  # its kernels cross patch borders
            image = jnp.where(pixels_of(unseen, side, config.patch), 0.0, image)
        if config.cut_remainder:
            image = image[:, : side * config.patch, : side * config.patch]
        x = self.embed_patches(image.astype(self.precision.compute))
        if masked is not None:
            x = jnp.where(masked[:, :, None], self.learned("mask_token", (1, 1, options.width)), x)
        positions = self.positions(side)
        x = x if positions is None else x + positions
        angles, buckets = self.angles(side), self.buckets(side)
        if kept is None and train and config.token_drop:
            kept = kept_tokens(self.make_rng("dropout"), x.shape[0], x.shape[1], config.token_drop)
        if kept is not None:
            x = jnp.take_along_axis(x, kept[:, :, None], axis=1)
            angles = (
                None if angles is None else jnp.take_along_axis(angles, kept[:, :, None], axis=1)
            )
            buckets = None if buckets is None else self.kept_buckets(buckets, kept)
        if angles is not None:  # class tokens and registers have no position
            angles = jnp.pad(angles, ((0, 0), (config.front, config.registers), (0, 0)))
        if config.front:
            shape = (1, config.front, options.width)
            token = self.learned("class_token", shape) + self.learned("class_position", shape)
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), *shape[1:])), x], axis=1)
        if config.registers:
            registers = self.learned("registers", (1, config.registers, options.width))
            x = jnp.concatenate(
                [x, jnp.broadcast_to(registers, (len(x), *registers.shape[1:]))], axis=1
            )
        if config.embedding_norm:
            x = options.normalisation("embedding_norm")(x)
        x = nn.Dropout(options.dropout, deterministic=not train)(x)
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        pool_position = PoolPosition() if config.pooling == "cls" and not tokens else None
        inputs = AttentionInputs(angles=angles, pool_position=pool_position, buckets=buckets)
        if config.position_bias == "shared":
            inputs = inputs.with_bias(self.bias_table())
        x = config.transformer(options, train)(x, inputs)
        encoding = self.pool(constrain(x, ("batch", "tokens", "activation_embed")))
        return encoding if tokens else dataclasses.replace(encoding, tokens=None, unnormalised=None)

    def embed_patches(self, image: jax.Array) -> jax.Array:
        """Pixels to patch embeddings, [B, H, W, 3] -> [B, N, D]."""
        config, options = self.config, self.options
        if config.stem == "convolution":
            image = ConvolutionStem(
                config.stem_channels, config.stem_strides, options, name="stem"
            )(image)
            patches = rearrange(image, "b h w c -> b (h w) c")
        else:
            patches = rearrange(
                image, "b (h p) (w q) c -> b (h w) (p q c)", p=config.patch, q=config.patch
            )
        return self.precision.dense(
            options.width,
            ("patch", "embed"),
            use_bias=config.patch_bias,
            name="patch_embedding",
            kernel_init=options.initializers().get("patch", nn.initializers.lecun_normal()),
        )(patches)

    def positions(self, side: int) -> jax.Array | None:
        """The position embedding added to the patches, [1, N, D]; None where there is none."""
        width = self.options.width
        if self.config.position in ("rotary2d", "rotary2d_unit", "none"):
            return None
        if self.config.position == "sincos2d":
            return jnp.asarray(sincos2d(side, width), self.precision.compute)[None]
        # Dehghani et al. 2023, "Patch n' Pack", section 3.3
        if self.config.position == "factorised":
            rows, columns = (
                self.learned("row_position", (side, 1, width), axes=("patch_rows", None)),
                self.learned("column_position", (1, side, width), axes=(None, "patch_columns")),
            )
            return rearrange(rows + columns, "y x d -> 1 (y x) d")
        return self.learned("position", (1, side * side, width), axes=(None, "patches"))

    def angles(self, side: int) -> jax.Array | None:
        """The rotary angles of the patches' queries and keys, [1, N, K / 2]; None without rotary
        positions."""
        if not self.config.rotary:
            return None
        config, head_dim = self.config, self.options.width // self.options.heads
        if config.position == "rotary2d_unit":
            return jnp.asarray(
                rotary2d_unit(side, head_dim, temperature=config.rotary_temperature)
            )[None]
        turns = rotary2d(
            side,
            head_dim,
            temperature=config.rotary_temperature,
            offset=config.rotary_offset,
            reference=config.rotary_grid,
        )
        return jnp.asarray(turns)[None]

    def buckets(self, side: int) -> jax.Array | None:
        """The bucket of each pair of tokens, int32 [M, M]; None without relative positions."""
        config = self.config
        if config.position_bias == "none":
            return None
        return jnp.asarray(grid_buckets(side, config.front, config.registers))

    def kept_buckets(self, buckets: jax.Array, kept: jax.Array) -> jax.Array:
        """The buckets of the tokens that remain: int32 [M, M], [B, K] -> [B, M', M']."""
        front, behind = self.config.front, self.config.registers
        others = jnp.arange(front), len(buckets) - behind + jnp.arange(behind)
        first, last = (jnp.broadcast_to(part, (len(kept), len(part))) for part in others)
        places = jnp.concatenate([first, kept + front, last], axis=1)
        return buckets[places[:, :, None], places[:, None, :]]

    def bias_table(self) -> jax.Array:
        """The relative position bias of all layers, float32 [buckets, H]."""
        shape = (bucket_count(self.config.side), self.options.heads)
        return self.param("position_bias", BIAS_INIT, shape, jnp.float32)

    def learned(
        self, name: str, shape: tuple[int, ...], *, axes: tuple[str | None, ...] = (None, None)
    ) -> jax.Array:
        """A float32 parameter [.., .., D] with these logical axes before the width, cast to the
        compute dtype."""
        init = with_logical_axes(nn.initializers.normal(self.options.width**-0.5), (*axes, "embed"))
        return self.param(name, init, shape, jnp.float32).astype(self.precision.compute)

    def pool(self, x: jax.Array) -> Encoding:
        """The Encoding of the transformer's output [B, N, D], with its pooled vector."""
        options = self.options
        if self.config.pooling == "queries":
            made = self.config.query_pooling(options)(x)
            return Encoding(made[:, 1:], None, made[:, 0])
        norm, unnormalised = options.normalisation("norm"), x
        if self.config.norm_before_pooling:
            x = norm(x)
        patches = x[:, self.config.front : x.shape[1] - self.config.registers]
        if self.config.pooling == "cls":
            pooled = x[:, 0]
        elif self.config.pooling == "mean":
            pooled = patches.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        elif self.config.pooling == "map":
            seen = x if self.config.map_tokens == "all" else patches
            pooled = self.config.map_pooling(options)(seen)
        else:
            return Encoding(x, None, None, unnormalised=unnormalised)
        if self.config.norm_pooled or not self.config.norm_before_pooling:
            pooled = norm(pooled)
        if self.config.pooler:
            pooled = jnp.tanh(options.linear(pooled, "pooler"))
        return Encoding(x, None, pooled, unnormalised=unnormalised)


def kept_tokens(key: jax.Array, batch: int, count: int, rate: float) -> jax.Array:
    """Random subset of each example's tokens (FLIP, Li et al. 2023): int32 [B, round(count (1 -
    rate))]."""
    kept = max(1, round(count * (1.0 - rate)))
    return jnp.argsort(jax.random.uniform(key, (batch, count)), axis=1)[:, :kept]
