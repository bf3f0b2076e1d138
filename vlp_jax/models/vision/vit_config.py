"""The keys of a Vision Transformer, `model.image` of kind vit."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from vlp_jax.config.fields import between
from vlp_jax.config.registry import imported
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.flops import cross_flops, pooling_flops
from vlp_jax.models.options import Precision
from vlp_jax.models.shapes import Grid
from vlp_jax.models.vision.query_pooling import QueryPoolingConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.models.vision.vit import ViT


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(QueryPoolingConfig):
    """A Vision Transformer."""

    # a size of `models/presets.py`, optionally with a patch size after a slash
    preset: str = "B/16"
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one per layer
    stem_strides: tuple[int, ...] = ()  # one per layer; their product is the patch size
    patch_bias: bool = True
    # rotary2d_unit: of coordinates from -1 to 1 (DINOv3); learned_rotary2d: both (PE, EVA-02)
    position: Literal[
        "learned", "factorised", "sincos2d", "rotary2d", "rotary2d_unit", "learned_rotary2d", "none"
    ] = "learned"
    # of rotary positions: the inverse of the limit of the frequencies
    rotary_temperature: float = between(100.0, 1.0)
    rotary_offset: float = 0.0  # coordinate of the first patch; class tokens and registers are at 0
    # patches per side of the grid to which coordinates are scaled; None: the image's own
    rotary_grid: int | None = between(None, 1)
    # BEiT's relative positions, of all layers or of each, without an attention kernel
    position_bias: Literal["none", "shared", "layers"] = "none"
    # queries: learned queries attend to all tokens; the first makes the pooled vector, the others
    # are the tower's tokens
    pooling: Literal["cls", "mean", "map", "queries", "none"] = "cls"
    # of pooling="map": what its query attends to
    map_tokens: Literal["patches", "all"] = "patches"
    # None: one where it pools, else none; of several, as in DeiT, the first one pools
    class_tokens: int | None = between(None, 0)
    pooler: bool = False  # a linear layer and tanh on the pooled vector
    # pixels right of and below the last whole patch are not seen; False: there must be none
    cut_remainder: bool = False
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm before the first layer
    # False: after it, on the pooled vector (as in CLIP; equal for cls)
    norm_before_pooling: bool = True
    # the final norm once more, on a vector that is pooled behind it
    norm_pooled: bool = False
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches dropped in training (FLIP)

    def build(self, precision: Precision) -> "ViT":
        """The Vision Transformer of these settings."""
        self.check()
        return cast(Any, imported("vlp_jax.models.vision.vit:ViT"))(self, precision)

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
        if self.pooling in ("queries", "map"):
            self.check_queries()
        for name in ("pooler", "norm_pooled") if self.pooling == "queries" else ():
            if getattr(self, name):
                raise ConfigError(f"{self.section}.{name}: is for another pooling than 'queries'")
        if self.stem == "convolution":
            self.check_stem()
        of_head = "width of a head", self.size.width // self.size.heads
        divided = {
            "sincos2d": ("width", self.size.width),
            "rotary2d": of_head,
            "rotary2d_unit": of_head,
            "learned_rotary2d": of_head,
        }
        if self.position in divided and divided[self.position][1] % 4:
            what, size = divided[self.position]
            raise ConfigError(
                f"{self.section}.position: {self.position!r} needs a {what} that "
                f"divides by 4, got {size}"
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
    def front(self) -> int:
        """The number of class tokens."""
        return int(self.pooling == "cls") if self.class_tokens is None else self.class_tokens

    @property
    def rotary(self) -> bool:
        """Whether positions turn queries and keys."""
        return "rotary2d" in self.position

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The keys of rotary positions and of attention pooling without them, and `norm_pooled`
        where the pooled vector is normed once at any rate."""
        unused: dict[str, str] = {}
        if not self.norm_before_pooling:
            unused["norm_pooled"] = "with norm_before_pooling=False"
        if not self.rotary:
            keys = ("rotary_temperature", "rotary_offset", "rotary_grid")
            unused |= dict.fromkeys(keys, f"with position={self.position!r}, which is not rotary")
        elif self.position == "rotary2d_unit":
            keys = ("rotary_offset", "rotary_grid")
            unused |= dict.fromkeys(keys, "with position='rotary2d_unit', of coordinates up to 1")
        if self.pooling != "map":
            unused["map_tokens"] = f"with pooling={self.pooling!r}: it is for 'map'"
        return {**super().ignored(experiment), **unused}

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

    @property
    def projects_tokens(self) -> bool:
        """True for a class token or the mean of the patches, normalised as the patches are."""
        return self.pooling in ("cls", "mean") and self.norm_before_pooling and not self.pooler

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
        if self.pooling != "map":
            return flops
        size = dataclasses.replace(self.size, mlp_dim=self.query_mlp_dim or self.size.mlp_dim)
        seen = count if self.map_tokens == "all" else kept
        return flops + pooling_flops(size, seen, activation=self.activation)

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
