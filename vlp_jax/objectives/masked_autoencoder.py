"""Masked autoencoding: reconstruction of masked patches' pixels from the visible patches (He et al.
2022)."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vlp_jax.config.fields import between
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.flops import layer_flops
from vlp_jax.models.layers.positions import sincos2d
from vlp_jax.models.layers.transformer import Transformer
from vlp_jax.models.options import LayerOptions, present, with_logical_axes
from vlp_jax.models.presets import Size
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoderConfig(ObjectiveConfig):
    """Regression of the pixels of masked patches from the visible ones (He et al. 2022)."""

    mask_ratio: float = between(0.75, 0.01, 0.99)
    decoder_width: int = between(512, 4)
    decoder_depth: int = between(8, 1)
    decoder_heads: int = between(16, 1)

    takes_packed = True  # no text is used
    reads_pixels = True

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about a tower that cannot leave out patches, and sizes of the decoder."""
        yield from super().validate(where, experiment)
        yield from self.problems(where, experiment.model.image)

    def problems(self, where: str, tower: ImageTowerConfig) -> Iterator[str]:
        """Why the decoder cannot be built, or patches of the tower's images cannot be left out."""
        if tower.patch is None:
            yield (
                f"{where}: 'masked_autoencoder' leaves out patches, for which model.image.kind "
                "must be 'vit'"
            )
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            yield (
                f"{where}: masked_autoencoder's decoder_width {self.decoder_width} must divide "
                f"by 4 and by its {self.decoder_heads} heads"
            )

    def build(self) -> "MaskedAutoencoder":
        """The decoder of patches of these settings."""
        return MaskedAutoencoder(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The tower on the visible patches, and the decoder on all."""
        decoder = Size(
            self.decoder_width, self.decoder_depth, self.decoder_heads, 4 * self.decoder_width
        )
        tower, patches = model.image, model.image.side**2
        others, visible = (
            tower.front + tower.registers,
            max(1, int(patches * (1.0 - self.mask_ratio))),
        )
        flops = (
            cast(ViTConfig, tower).kept_flops(visible)
            + 2 * (visible + others) * tower.token_width * decoder.width
        )
        flops += decoder.depth * layer_flops(decoder, patches + others, activation="gelu")
        return batch * (flops + 2 * patches * decoder.width * 3 * present(tower.patch) ** 2)


class MaskedAutoencoder(Objective):
    """The mean squared error on the pixels of masked patches, each normalised by its own mean and
    variance.

    The image tower, a ViT, encodes only the visible patches. The input of a light decoder, part of
    the objective, is their encodings, a learned mask token at every other position, and fixed
    position embeddings. The metric `target_variance` is the loss of a decoder that predicts the
    mean everywhere.
    """

    config: MaskedAutoencoderConfig = MaskedAutoencoderConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        tower, image = model.config.image, batch["image"]
        for problem in self.config.problems("objectives", tower):
            raise ConfigError(problem)
        patch, side = present(tower.patch), tower.side
        kept, restore = visible_patches(
            self.make_rng("dropout"), len(image), side**2, self.config.mask_ratio
        )
        tokens = model.encode_image(image, train=True, tokens=True, kept=kept).tokens
        # tokens around those of the patches
        front, behind = tower.front, tower.registers
        predicted = self.decode(present(tokens), restore, side, 3 * patch**2, front, behind, model)
        targets = patch_targets(image, patch)
        masked = (restore >= kept.shape[1]).astype(jnp.float32)

        def mean_over_masked(errors: jax.Array) -> jax.Array:
            return (errors.mean(axis=-1) * masked).sum() / masked.sum()

        loss = mean_over_masked(jnp.square(predicted.astype(jnp.float32) - targets))
        return Loss(loss, {"target_variance": mean_over_masked(jnp.square(targets))})

    def decode(
        self,
        tokens: jax.Array,
        restore: jax.Array,
        side: int,
        pixels: int,
        front: int,
        behind: int,
        model: VisionLanguageModel,
    ) -> jax.Array:
        """The decoder.

        Args:
          tokens: encodings of the visible patches, with other tokens around them.
          restore: as from `visible_patches`.
          side: patches along each axis.
          pixels: number of values of a patch.
          front: number of other tokens before the patches.
          behind: number of other tokens after them.
          model: the VisionLanguageModel.
        Returns: [B, N, pixels] of all patches.
        """
        width, heads, precision = (
            self.config.decoder_width,
            self.config.decoder_heads,
            model.precision,
        )
        dense = nn.initializers.xavier_uniform()
        x = precision.dense(width, ("embed", "mlp"), kernel_init=dense, name="in")(tokens)
        around = x[:, :front], x[:, x.shape[1] - behind :]
        visible = x[:, front : x.shape[1] - behind]
        init = with_logical_axes(nn.initializers.normal(0.02), (None, None, "embed"))
        token = self.param("mask_token", init, (1, 1, width), jnp.float32).astype(x.dtype)
        hidden = jnp.broadcast_to(token, (len(x), side**2 - visible.shape[1], width))
        x = jnp.take_along_axis(
            jnp.concatenate([visible, hidden], axis=1), restore[:, :, None], axis=1
        )
        x = jnp.concatenate(
            [around[0], x + jnp.asarray(sincos2d(side, width), x.dtype), around[1]], axis=1
        )
        options = LayerOptions(
            width=width,
            heads=heads,
            mlp_dim=4 * width,
            depth=self.config.decoder_depth,
            precision=precision,
        )
        x = options.normalisation("norm")(Transformer(options, train=True, name="decoder")(x))
        return precision.dense(pixels, ("embed", "patch"), kernel_init=dense, name="out")(
            x[:, front : x.shape[1] - behind]
        )


def visible_patches(
    key: jax.Array, batch: int, count: int, mask_ratio: float
) -> tuple[jax.Array, jax.Array]:
    """A random choice of the visible patches of each example.

    Returns: the visible patches, int32 [B, K]; and restore, int32 [B, N], the index of each patch
      in a row of the visible ones followed by the masked ones. restore >= K marks the masked ones.
    """
    order = jnp.argsort(jax.random.uniform(key, (batch, count)), axis=1)
    return order[:, : max(1, int(count * (1.0 - mask_ratio)))], jnp.argsort(order, axis=1)


def patch_targets(image: jax.Array, patch: int) -> jax.Array:
    """[B, H, W, 3] -> float32 [B, N, 3 patch^2]: each patch minus its mean, divided by its standard
    deviation.

    The deviation is unbiased, with 1e-6 added to the variance, as in the paper's code.
    """
    patches = rearrange(
        image.astype(jnp.float32), "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch
    )
    mean, variance = (
        patches.mean(axis=-1, keepdims=True),
        patches.var(axis=-1, keepdims=True, ddof=1),
    )
    return (patches - mean) * jax.lax.rsqrt(variance + 1e-6)
