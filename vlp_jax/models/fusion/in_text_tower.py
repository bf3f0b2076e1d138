"""Fusion by the layers of the text tower."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from vlp_jax.models.fusion.base import FusedEncoding, FusionConfig
from vlp_jax.models.layers.flops import cross_flops
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import LayerOptions, Precision, present
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.text.transformer import TextMode

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class InTextTowerConfig(FusionConfig):
    """A second pass through the text tower, with cross-attention to the image's tokens in each
    layer (BLIP)."""

    encodes_text: ClassVar[bool] = True

    start_token: bool = True  # a learned token replaces each text's first, as BLIP's [Encode]

    def build(self, shapes: ModelShapes, precision: Precision) -> None:
        """None, after `check`: the layers are the text tower's."""
        self.check(shapes)

    def check(self, shapes: ModelShapes) -> None:
        """Checks that the text tower has transformer layers.

        Raises: ConfigError where it has none.
        """
        self.layers(shapes)

    def layers(self, shapes: ModelShapes) -> LayerOptions:
        """The text tower's layers.

        Raises: ConfigError where it has none.
        """
        return shapes.text.layers_for(f"{self.section}.kind={self.kind!r}", Precision())

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about a learned start token without one to replace."""
        yield from super().validate(where, experiment)
        if self.start_token and experiment.data.text.start_token is None:
            yield (
                f"{where}.start_token: has no effect without data.text.start_token, whose place "
                "it takes"
            )

    @property
    def mode(self) -> TextMode:
        """The text tower's mode as image-grounded encoder."""
        return TextMode("encode_token" if self.start_token else None, cross_attention=True)

    def fuse(
        self, model: "VisionLanguageModel", image: Encoding, text: Encoding, train: bool
    ) -> FusedEncoding:
        """A second pass of the text's ids through the text tower, which attends to the image."""
        # without the class token in front
        mask = None if text.mask is None else text.mask[:, -present(text.ids).shape[1] :]
        fused = model.text(text.ids, mask, train, text_mode=self.mode, memory=image)
        return FusedEncoding(fused.tokens, fused.mask, fused.pooled, fused.ids)

    def fused_width(self, shapes: ModelShapes) -> int:
        """The width of the text tower's tokens."""
        return shapes.text.token_width

    def flops(self, shapes: ModelShapes) -> int:
        """The text tower once more, with cross-attention in each layer."""
        layers, image = self.layers(shapes), shapes.image
        cross = cross_flops(
            layers.width,
            shapes.text.layer_tokens,
            memory=image.tokens,
            memory_width=image.token_width,
        )
        return shapes.text.flops + layers.depth * cross
