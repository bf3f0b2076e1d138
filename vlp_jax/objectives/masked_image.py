"""Masked image modelling: prediction of the codes of masked patches (Bao et al. 2022, "BEiT")."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.options import present
from vlp_jax.models.quantizer import patch_codes, random_codebook
from vlp_jax.models.text.lm_head import WordHead
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.block_masking import hidden_patches
from vlp_jax.objectives.tokens import entropy_of, log_likelihood

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPatchesConfig(ObjectiveConfig):
    """Fields shared by the objectives that predict the codes of masked patches (Bao et al.
    2022)."""

    image_rate: float = between(0.4, 0.01, 0.99)  # fraction of masked patches
    smallest_block: int = between(16, 1)  # smallest area of the masked rectangles, in patches
    codes: int = between(8192, 2)  # of a random-projection quantizer (Chiu et al. 2022)
    code_width: int = between(16, 1)  # width of its projection of a patch
    codebook_seed: int = between(0, 0, 2**31 - 1)

    reads_pixels = True

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about a tower whose patches cannot be hidden, and about blocks that are too
        large."""
        yield from super().validate(where, experiment)
        yield from self.problems(where, experiment.model.image)

    def problems(self, where: str, tower: ImageTowerConfig) -> Iterator[str]:
        """Why patches of the tower's images cannot be hidden."""
        if tower.patch is None or tower.token_drop:
            yield (
                f"{where}: to hide patches, model.image.kind must be 'vit' and "
                "model.image.token_drop 0"
            )
            return
        patches = tower.side**2
        count = self.count_of(patches)
        if self.smallest_block > count:
            yield (
                f"{where}: smallest_block {self.smallest_block} is more than the {count} "
                f"patches of {patches} that image_rate={self.image_rate} hides; set it to "
                f"{count} or less"
            )

    def smoke(self, sizes: Sizes) -> Self:
        """Few codes and small blocks, which fit a small grid."""
        return dataclasses.replace(super().smoke(sizes), codes=256, smallest_block=2)

    def coding_flops(self, model: ModelConfig, width: int) -> int:
        """The head on the masked patches' tokens, and a third of the quantizer.

        The quantizer has no backward pass.

        Args:
          model: the config.
          width: of the tokens.
        """
        own, patch, patches = (
            model.image.token_width,
            present(model.image.patch),
            model.image.side**2,
        )
        quantizer = 2 * patches * self.code_width * (3 * patch**2 + self.codes)
        return 2 * self.count_of(patches) * own * (width + self.codes) + quantizer // 3

    def count_of(self, patches: int) -> int:
        """The number of masked patches."""
        return max(1, round(self.image_rate * patches))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedImageConfig(MaskedPatchesConfig):
    """The codes of masked patches from the visible ones."""

    takes_packed = True  # no text is used

    def build(self) -> "MaskedImage":
        """The module that predicts codes from the image alone."""
        return MaskedImage(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The image tower on masked images, and the prediction of the codes."""
        return batch * (
            model.image.flops(0, embedded=False) + self.coding_flops(model, model.image.token_width)
        )


@flax.struct.dataclass
class HiddenPatches:
    """The masked patches of a batch.

    Attributes:
      places: int32 [B, K], indices of the masked patches.
      mask: bool [B, N], True for them.
      codes: int32 [B, N], of all patches.
    """

    places: jax.Array
    mask: jax.Array
    codes: jax.Array

    @property
    def hidden_codes(self) -> jax.Array:
        """The codes of the masked patches, int32 [B, K]."""
        return jnp.take_along_axis(self.codes, self.places, axis=1)


class MaskedPatches(Objective):
    """Base class of the objectives that predict the codes of masked patches."""

    config: MaskedPatchesConfig

    def hide(self, image: jax.Array, model: VisionLanguageModel) -> HiddenPatches:
        """Draws the masked patches of each image.

        Raises: ConfigError for a tower that does not support it, and for a `smallest_block` above
          the number of masked patches.
        """
        tower, config = model.config.image, self.config
        for problem in config.problems("objectives", tower):
            raise ConfigError(problem)
        patch, side = present(tower.patch), tower.side
        count = config.count_of(side**2)
        places = hidden_patches(
            self.make_rng("dropout"), len(image), side, count, config.smallest_block
        )
        mask = (places[:, :, None] == jnp.arange(side**2)).any(axis=1)
        codebook = random_codebook(
            config.codebook_seed, 3 * patch**2, config.codes, config.code_width
        )
        return HiddenPatches(places, mask, patch_codes(image, patch, codebook))

    def code_logits(
        self,
        tokens: jax.Array,
        hidden: HiddenPatches,
        model: VisionLanguageModel,
        name: str = "head",
    ) -> jax.Array:
        """All of an image's tokens [B, M, D'] -> logits float32 [B, K, V] of the masked patches'
        codes."""
        # a class token comes before the patches
        places = hidden.places + model.config.image.front
        tokens = jnp.take_along_axis(tokens, places[:, :, None], axis=1)
        return WordHead(
            cast(ViTConfig, model.config.image).layer_options(model.precision),
            self.config.codes,
            name=name,
        )(tokens)


class MaskedImage(MaskedPatches):
    """Cross-entropy of the codes of masked patches.

    They are predicted from the visible ones: a learned token replaces them in the image tower's
    input. The head is the one for masked tokens (`WordHead`). The codes are those of a random
    projection (see `models.quantizer`).

    Metrics: `accuracy`, and the reference `code_entropy`: the loss of the best guess without
    context, from the frequencies of this batch's masked codes (less than from those of the whole
    data).
    """

    config: MaskedImageConfig = MaskedImageConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        hidden = self.hide(batch["image"], model)
        tokens = model.encode_image(batch["image"], self.training, masked=hidden.mask).tokens
        return code_loss(self.code_logits(present(tokens), hidden, model), hidden)


def code_loss(logits: jax.Array, hidden: HiddenPatches) -> Loss:
    """The mean over masked patches of -log softmax(logits)[code].

    Args:
      logits: float32 [B, K, V], of the K masked patches of each image.
      hidden: the masked patches and the codes of all.
    Returns: a `Loss`: its `value`, float32 [], and the metrics `accuracy` and `code_entropy`.
    """
    codes = hidden.hidden_codes
    counts = jnp.zeros(logits.shape[-1], jnp.float32).at[codes].add(1.0)
    return Loss(
        -log_likelihood(logits, codes).mean(),
        {
            "accuracy": (logits.argmax(axis=-1) == codes).mean(dtype=jnp.float32),
            "code_entropy": entropy_of(counts),
        },
    )
