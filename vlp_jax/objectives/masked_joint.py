"""Masked multimodal modelling of patches and tokens at once (Singh et al. 2022, "FLAVA", section
3.2)."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import flax.linen as nn
import jax

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.options import present
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss
from vlp_jax.objectives.masked_image import MaskedPatches, MaskedPatchesConfig, code_loss
from vlp_jax.objectives.masked_language import (
    MaskedTextConfig,
    masked_loss,
    masked_text,
    unigram_entropy,
    word_logits,
)

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedJointConfig(MaskedTextConfig, MaskedPatchesConfig):
    """Masked patches and masked tokens at once, from a fusion (Singh et al. 2022)."""

    uses_fusion = True

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about a fusion of boxes, which leaves no patches to predict."""
        yield from super().validate(where, experiment)
        if getattr(experiment.model.fusion, "reads_boxes", False):
            yield (
                f"model.fusion.regions: 'boxes' leaves no patches that {where} could predict; "
                "set 'grid'"
            )

    def build(self) -> "MaskedJoint":
        """The module that predicts codes and words from a fusion."""
        return MaskedJoint(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """Both towers, the fusion, and the predictions of codes and words."""
        shapes = model.shapes()
        width, text = present(model.fusion).fused_width(shapes), shapes.text.token_width
        towers = model.image.flops(0, embedded=False) + model.text.flops(0, embedded=False)
        words = 2 * model.text.length * text * (width + model.text.vocab_size)
        return batch * (
            towers + present(model.fusion).flops(shapes) + self.coding_flops(model, width) + words
        )


class MaskedJoint(MaskedPatches):
    """Patches masked as in `MaskedImage` and tokens masked as in `MaskedLanguage`, both predicted
    from a fusion.

    Each has a head of its own, and the loss is the sum of the two.

    Metrics: those of the two, with the prefixes `image_` and `text_`: `image_loss`,
    `image_accuracy`, `image_code_entropy`, `text_loss`, `text_accuracy`, `text_masked`,
    `text_unigram_entropy`.
    """

    config: MaskedJointConfig = MaskedJointConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        hidden = self.hide(batch["image"], model)
        masked = masked_text(self.config, self.make_rng("dropout"), batch, model)
        image = model.encode_image(batch["image"], self.training, masked=hidden.mask)
        text = model.encode_text(
            masked.text, batch["text_mask"], self.training, edges=batch.get("word_edges")
        )
        fused = model.fuse(image, text, self.training)
        if fused.image_tokens is None:
            raise ConfigError(
                f"model.fusion.kind: {present(model.config.fusion).kind!r} gives no "
                "tokens of the image to predict masked patches from; use 'merged', "
                "'co_attention' or 'graph'"
            )
        patches = code_loss(
            self.code_logits(fused.image_tokens, hidden, model, "image_head"), hidden
        )
        logits = word_logits(
            present(fused.tokens), batch["text"], model, self.config.tied, "text_head"
        )
        words = masked_loss(logits, batch["text"], masked.chosen)
        metrics = {
            "image_loss": patches.value,
            "text_loss": words.value,
            "text_masked": masked.share,
            "text_unigram_entropy": unigram_entropy(batch["text"], masked, model),
        }
        metrics |= {f"image_{name}": value for name, value in patches.metrics.items()}
        metrics |= {f"text_{name}": value for name, value in words.metrics.items()}
        return Loss(patches.value + words.value, metrics)
