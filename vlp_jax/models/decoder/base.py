"""The base of all decoders."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax

from vlp_jax.config.registry import Kinds
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision
from vlp_jax.models.part import PartOnTowers
from vlp_jax.models.shapes import ModelShapes

if TYPE_CHECKING:
    from vlp_jax.models.decoder.packed_rows import PackedRows
    from vlp_jax.models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(PartOnTowers):
    """A decoder, which predicts the tokens of a text, each from those before it.

    A decoder has a key `image`, "none" where it does not use the image.

    Attributes:
      reads_text_tower: whether it continues from the text tower's tokens, in place of words.
    """

    section: ClassVar[str] = "model.decoder"
    if TYPE_CHECKING:
        image: str
        text_prefix: float = 0.0
    reads_text_tower: ClassVar[bool] = False
    kinds: ClassVar[Kinds] = Kinds(
        {
            "transformer": "vlp_jax.models.decoder.transformer:TextDecoderConfig",
            "on_text_tower": "vlp_jax.models.decoder.transformer:OnTextTowerDecoderConfig",
            "in_text_tower": "vlp_jax.models.decoder.in_text_tower:InTextTowerDecoderConfig",
            "lstm": "vlp_jax.models.decoder.recurrent:LstmDecoderConfig",
            "gru": "vlp_jax.models.decoder.recurrent:GruDecoderConfig",
        },
        default="transformer",
    )

    def build(self, shapes: ModelShapes, precision: Precision) -> nn.Module:
        """The submodule `decoder` of the model.

        Raises: ConfigError as `check`.
        """
        raise NotImplementedError

    @property
    def reads_image(self) -> bool:
        """Whether the image, or other tokens in its place, are attended to."""
        return self.image != "none"

    @property
    def answers(self) -> bool:
        """Whether it can predict a text other than the text tower's, from tokens other than the
        image's."""
        return False

    @property
    def has_prefix(self) -> bool:
        """Whether it is trained with a bidirectional prefix of each text."""
        return False

    @property
    def needs_row_each(self) -> tuple[str, ...]:
        """The keys whose values need a row of its own for each text; () where rows can hold several
        packed texts."""
        return ("kind",)

    def decode(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        mask: jax.Array | None,
        memory: Encoding | None,
        train: bool,
        encoding: Encoding | None,
        prefix: jax.Array | None,
        packed: "PackedRows | None",
    ) -> jax.Array:
        """`VisionLanguageModel.decode`."""
        raise NotImplementedError

    def decode_next(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        position: jax.Array,
        memory: Encoding | None,
    ) -> jax.Array:
        """`VisionLanguageModel.decode_next`."""
        raise NotImplementedError

    def flops(
        self,
        shapes: ModelShapes,
        pictures: int = 1,
        rows: int = 1,
        length: int | None = None,
        memory: tuple[int, int] | None = None,
    ) -> int:
        """The decoder and its vocabulary logits on one text, forward.

        Args:
          shapes: of the towers.
          pictures: number of images of a window of packed texts, all of which each row attends to;
            1 without packing.
          rows: number of rows of packed texts of a window; 1 without packing.
          length: of the text; None: that of the text tower.
          memory: (number, width) of the tokens attended to; None: those of the image.
        """
        return self.text_flops(
            shapes,
            pictures,
            rows,
            length or shapes.text.length,
            *(memory or (shapes.image.tokens, shapes.image.token_width)),
        )

    def text_flops(
        self, shapes: ModelShapes, pictures: int, rows: int, length: int, tokens: int, width: int
    ) -> int:
        """`flops` of texts of `length` tokens that attend to a memory of `tokens` tokens of `width`
        features."""
        raise NotImplementedError
