"""The `model` section of a config."""

import dataclasses
from typing import Self

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section, Sizes, component, optional_component
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.vision.tower import ImageTowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """An image and a text encoder with a shared embedding space, an optional fusion and an optional decoder.

    A fusion is for objectives on image and text together, a decoder for those that predict tokens.
    """

    image: ImageTowerConfig = component(ImageTowerConfig)
    text: TextTowerConfig = component(TextTowerConfig)
    embedding_dim: int | None = between(None, 1)  # None: the text tower's width
    fusion: FusionConfig | None = None
    decoder: DecoderConfig | None = optional_component("transformer")

    def smoke(self, sizes: Sizes) -> Self:
        return dataclasses.replace(super().smoke(sizes), embedding_dim=sizes.width)

    def shapes(self, batch: int = 1) -> ModelShapes:
        """What the parts of the model need of each other.

        Args:
          batch: examples per step.
        Raises: ConfigError for a tower that is not possible.
        """
        text = self.text.shapes
        return ModelShapes(image=self.image.shapes, text=text, embedding_dim=self.embedding_dim or text.pooled_width, batch=batch)
