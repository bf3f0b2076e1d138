"""The `model` section of a config."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section, Sizes, component, optional_component
from vlp_jax.errors import ConfigError
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.part import failures
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.vision.tower import ImageTowerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """An image and a text encoder with a shared embedding space, an optional fusion and an optional
    decoder.

    A fusion is for objectives on image and text together, a decoder for those that predict tokens.
    """

    image: ImageTowerConfig = component(ImageTowerConfig)
    text: TextTowerConfig = component(TextTowerConfig)
    embedding_dim: int | None = between(None, 1)  # None: the text tower's width
    fusion: FusionConfig | None = None
    decoder: DecoderConfig | None = optional_component("transformer")

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about the width of the shared space, where both towers are valid."""
        yield from super().validate(where, experiment)
        if not {*failures(self.image.check), *failures(self.text.check)}:
            yield from failures(embedding_dim, self)

    def smoke(self, sizes: Sizes) -> Self:
        """All parts reduced, with the shared space as wide as their tokens."""
        return dataclasses.replace(super().smoke(sizes), embedding_dim=sizes.width)

    def shapes(self, batch: int = 1) -> ModelShapes:
        """What the parts of the model need of each other.

        Args:
          batch: examples per step.
        Raises: ConfigError for a tower that is not possible, and as `embedding_dim`.
        """
        return ModelShapes(
            image=self.image.shapes,
            text=self.text.shapes,
            embedding_dim=embedding_dim(self),
            batch=batch,
        )


def embedding_dim(config: ModelConfig) -> int:
    """Width of the shared space.

    Raises: ConfigError where a tower without projection has another width.
    """
    dim = config.embedding_dim or config.text.pooled_width
    for tower in (config.image, config.text):
        if tower.projection == "none" and tower.pooled_width != dim:
            raise ConfigError(
                f"{tower.section}.projection: 'none' needs width {dim} "
                f"(model.embedding_dim), the tower has {tower.pooled_width}"
            )
    return dim
