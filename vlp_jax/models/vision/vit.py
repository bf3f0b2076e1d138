"""The Vision Transformer (Dosovitskiy et al. 2021) with the options of its successors."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.config.parse import read_section
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.attention_inputs import AttentionInputs
from vlp_jax.models.layers.flops import cross_flops, pooling_flops
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.positions import (
    BIAS_INIT,
    bucket_count,
    grid_buckets,
    rotary2d,
    rotary2d_unit,
    sincos2d,
)
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding
from vlp_jax.models.options import LayerOptions, Precision, with_logical_axes
from vlp_jax.models.shapes import Grid
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.stem import ConvolutionStem, pixels_of, unseen_patches
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(StackConfig, ImageTowerConfig):
    """A Vision Transformer."""

    # a size of `models/presets.py`, optionally with a patch size after a slash
    preset: str = "B/16"
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one per layer
    stem_strides: tuple[int, ...] = ()  # one per layer; their product is the patch size
    patch_bias: bool = True
    # rotary2d_unit: of coordinates from -1 to 1 (DINOv3)
    position: Literal["learned", "factorised", "sincos2d", "rotary2d", "rotary2d_unit", "none"] = (
        "learned"
    )
    # BEiT's relative positions, of all layers or of each, without an attention kernel
    position_bias: Literal["none", "shared", "layers"] = "none"
    # queries: learned queries attend to all tokens; the first makes the pooled vector, the others
    # are the tower's tokens
    pooling: Literal["cls", "mean", "map", "queries", "none"] = "cls"
    # None: one where it pools, else none; of several, as in DeiT, the first one pools
    class_tokens: int | None = between(None, 0)
    queries: int = between(0, 0)  # of pooling="queries", at least two
    query_width: int | None = between(None, 1)  # of queries, and tokens; None: that of the layers
    query_heads: int | None = between(None, 1)  # None: those of the layers
    pooler: bool = False  # a linear layer and tanh on the pooled vector
    # pixels right of and below the last whole patch are not seen; False: there must be none
    cut_remainder: bool = False
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm before the first layer
    # False: after it, on the pooled vector (as in CLIP; equal for cls)
    norm_before_pooling: bool = True
    pooler: bool = False  # a linear layer and tanh on the pooled vector, as in BERT
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches dropped in training (FLIP)

    def build(self, precision: Precision) -> "ViT":
        """The Vision Transformer of these settings."""
        self.check()
        return ViT(self, precision)

    def check(self) -> None:
        """Checks that the image divides into patches, the pooling, the stem, and that positions fit
        the width.

        Raises: ConfigError where one of them does not fit.
        """
        if self.image_size % self.patch and not self.cut_remainder:
            raise ConfigError(
                f"{self.section}: image_size {self.image_size} does not divide into "
                f"patches of {self.patch}"
            )
        if not self.pools:
            raise ConfigError(
                f"{self.section}.pooling: 'none' leaves nothing to embed, expected "
                "'cls', 'mean', 'map' or 'queries'"
            )
        if self.pooling == "cls" and not self.front:
            raise ConfigError(f"{self.section}.class_tokens: pooling='cls' needs one or more")
        if self.pooling == "queries":
            self.check_queries()
        if self.stem == "convolution":
            self.check_stem()
        of_head = "width of a head", self.size.width // self.size.heads
        divided = {
            "sincos2d": ("width", self.size.width),
            "rotary2d": of_head,
            "rotary2d_unit": of_head,
        }
        if self.position in divided and divided[self.position][1] % 4:
            what, size = divided[self.position]
            raise ConfigError(
                f"{self.section}.position: {self.position!r} needs a {what} that "
                f"divides by 4, got {size}"
            )

    def check_queries(self) -> None:
        """Checks that there are queries for the pooled vector and for tokens, and their width.

        Raises: ConfigError where there are not, or it does not divide into the heads.
        """
        width, heads = self.token_width, self.query_heads or self.size.heads
        if self.queries < 2:
            raise ConfigError(
                f"{self.section}.queries: pooling='queries' needs one for the pooled vector and "
                f"others for tokens, got {self.queries}"
            )
        if width % heads:
            raise ConfigError(
                f"{self.section}.query_width: {width} does not divide into {heads} heads"
            )

    def check_stem(self) -> None:
        """Checks that the stem's strides multiply to the patch size.

        Raises: ConfigError where they do not.
        """
        if len(self.stem_channels) != len(self.stem_strides) or not self.stem_channels:
            raise ConfigError(
                f"{self.section}.stem_channels: needs one entry for each of "
                f"stem_strides, got {self.stem_channels} and {self.stem_strides}"
            )
        product = math.prod(self.stem_strides)
        if product != self.patch:
            raise ConfigError(
                f"{self.section}.stem_strides: {self.stem_strides} multiply to "
                f"{product}, the patch size is {self.patch}"
            )

    @property
    def patch(self) -> int:
        """The patch size set in the config, or named by the preset ("B/16").

        Raises: ConfigError where there is neither.
        """
        if self.patch_size is not None:
            return self.patch_size
        match = re.fullmatch(r"[^/]+/(\d+)", self.preset)
        if not match:
            raise ConfigError(
                f"{self.section}.patch_size: is not set, and the preset "
                f"{self.preset!r} names none (as in 'B/16')"
            )
        return int(match.group(1))

    @property
    def side(self) -> int:
        """The number of patches along a side."""
        return self.image_size // self.patch

    @property
    def token_width(self) -> int:
        """The width of the layers, or of the queries that make the tokens."""
        of_queries = self.query_width if self.pooling == "queries" else None
        return of_queries or self.size.width

    @property
    def front(self) -> int:
        """The number of class tokens."""
        return int(self.pooling == "cls") if self.class_tokens is None else self.class_tokens

    @property
    def rotary(self) -> bool:
        """Whether positions turn queries and keys."""
        return self.position in ("rotary2d", "rotary2d_unit")

    @property
    def class_token(self) -> bool:
        """Whether the first token is a class token."""
        return self.front > 0 and self.pooling != "queries"

    @property
    def grid(self) -> Grid:
        """Layout of the tokens; those of queries have no place in the image."""
        if self.pooling == "queries":
            return Grid(0, self.queries - 1)
        return super().grid

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of queries with another pooling."""
        names = ("queries", "query_width", "query_heads") if self.pooling != "queries" else ()
        unused = dict.fromkeys(names, f"with pooling={self.pooling!r}: it is for 'queries'")
        return {**super().ignored(experiment), **unused}

    @property
    def pools(self) -> bool:
        """Whether `pooling` is not "none"."""
        return self.pooling != "none"

    def smoke(self, sizes: Sizes) -> Self:
        """Two layers, or none where there are none, on 16 patches unless a stem divides the
        image."""
        patches = dict(patch_size=8, image_size=32) if self.stem == "patch" else {}
        return dataclasses.replace(
            super().smoke(sizes), depth=0 if self.depth == 0 else sizes.depth, **patches
        )

    def small(self, sizes: Sizes) -> Self:
        """16 patches behind a convolution stem."""
        return dataclasses.replace(
            super().small(sizes),
            depth=sizes.depth,
            image_size=32,
            patch_size=8,
            stem="convolution",
            stem_channels=(32, 64, 128, 128),
            stem_strides=(2, 2, 2, 1),
        )

    def encoder_flops(self, train: bool, tokens: bool) -> int:
        """The stem and the layers, on the patches that are kept in training."""
        patches = self.side**2
        kept = (
            max(1, round(patches * (1.0 - self.token_drop)))
            if train and self.token_drop
            else patches
        )
        return self.kept_flops(kept, one_wanted=self.pooling == "cls" and not tokens)

    def kept_flops(self, kept: int, one_wanted: bool = False) -> int:
        """The tower without its projection on `kept` patches of an image; the stem is on all of
        them.

        Args:
          kept: number of patches.
          one_wanted: as in `stack_flops`.
        """
        count = kept + self.front + self.registers
        flops = self.stem_flops() + self.stack_flops(count, one_wanted)
        flops += 2 * self.size.width**2 if self.pooler else 0
        if self.pooling == "queries":
            return flops + cross_flops(
                self.token_width, self.queries, memory=count, memory_width=self.size.width
            )
        return flops + (
            pooling_flops(self.size, kept, activation=self.activation)
            if self.pooling == "map"
            else 0
        )

    def stem_flops(self) -> int:
        """From pixels to tokens: one product per patch, or 3x3 convolutions."""
        width, patches = self.size.width, self.side**2
        if self.stem == "patch":
            return 2 * patches * 3 * self.patch**2 * width
        flops, channels, side = 0, 3, self.image_size
        for wider, stride in zip(self.stem_channels, self.stem_strides, strict=True):
            side //= stride
            flops += 2 * side**2 * 9 * channels * wider
            channels = wider
        return flops + 2 * patches * channels * width


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
        if self.config.rotary or self.config.position == "none":
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
        turns = rotary2d if self.config.position == "rotary2d" else rotary2d_unit
        return jnp.asarray(turns(side, self.options.width // self.options.heads))[None]

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
            return self.queried(x)
        norm, unnormalised = options.normalisation("norm"), x
        if self.config.norm_before_pooling:
            x = norm(x)
        patches = x[:, self.config.front : x.shape[1] - self.config.registers]
        if self.config.pooling == "cls":
            pooled = x[:, 0]
        elif self.config.pooling == "mean":
            pooled = patches.astype(jnp.float32).mean(axis=1).astype(x.dtype)
        elif self.config.pooling == "map":
            pooled = AttentionPooling(options, name="pooling_head")(patches)
        else:
            return Encoding(x, None, None, unnormalised=unnormalised)
        pooled = pooled if self.config.norm_before_pooling else norm(pooled)
        if self.config.pooler:
            pooled = jnp.tanh(options.linear(pooled, "pooler"))
        return Encoding(x, None, pooled, unnormalised=unnormalised)

    def queried(self, x: jax.Array) -> Encoding:
        """The Encoding of pooling="queries", with norms before and after attention."""
        config = self.config
        options = dataclasses.replace(
            self.options, width=config.token_width, heads=config.query_heads or self.options.heads
        )
        pooler = AttentionPooling(
            options, config.queries, mlp=False, input_norms=True, name="pooling_head"
        )
        made = pooler(x)
        return Encoding(made[:, 1:], None, made[:, 0])


def kept_tokens(key: jax.Array, batch: int, count: int, rate: float) -> jax.Array:
    """Random subset of each example's tokens (FLIP, Li et al. 2023): int32 [B, round(count (1 -
    rate))]."""
    kept = max(1, round(count * (1.0 - rate)))
    return jnp.argsort(jax.random.uniform(key, (batch, count)), axis=1)[:, :kept]
