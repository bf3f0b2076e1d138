"""A decoder by the layers of the text tower."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import jax

from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.layers.attention_inputs import Cache
from vlp_jax.models.layers.flops import cross_flops, layer_flops
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import LayerOptions, Precision
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.text.lm_head import WordHead
from vlp_jax.models.text.transformer import TextMode
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.models.decoder.packed_rows import PackedRows
    from vlp_jax.models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class InTextTowerDecoderConfig(DecoderConfig):
    """The layers of `model.text`, with cross-attention and a causal mask (BLIP).

    They share all parameters with the text tower except `own`.
    """

    # how the image's tokens are used, if at all
    image: Literal["cross_attention", "none"] = "cross_attention"
    tied: bool = True  # the output embeddings are the input embeddings
    # parts of a layer that are not shared
    own: tuple[Literal["attention", "cross", "mlp"], ...] = ("attention",)
    start_token: bool = True  # a learned token replaces each text's first, as BLIP's [Decode]

    def build(self, shapes: ModelShapes, precision: Precision) -> WordHead:
        """The head on the text tower's tokens; the layers are the tower's."""
        self.check(shapes)
        return WordHead(self.layers(shapes, precision), shapes.text.vocab_size)

    def layers(self, shapes: ModelShapes, precision: Precision) -> LayerOptions:
        """The text tower's layers.

        Raises: ConfigError where it has none.
        """
        return shapes.text.layers_for(f"{self.section}.kind={self.kind!r}", precision)

    def check(self, shapes: ModelShapes) -> None:
        """Checks that the text tower has transformer layers.

        Raises: ConfigError where it has none.
        """
        self.layers(shapes, Precision())

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
        """The text tower's mode as decoder."""
        return TextMode(
            "decode_token" if self.start_token else None,
            self.image == "cross_attention",
            True,
            self.own,
        )

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
        """Logits by a causal pass through the text tower; encoding, prefix and packed rows are not
        used."""
        return self.logits(model, text, mask, memory, train)

    def decode_next(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        position: jax.Array,
        memory: Encoding | None,
    ) -> jax.Array:
        """Logits by a causal pass through the text tower, whose layers cache keys and values."""
        return self.logits(
            model, text, None, memory, cache=Cache(position, model.config.text.length)
        )

    def logits(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        mask: jax.Array | None,
        memory: Encoding | None,
        train: bool = False,
        cache: Cache | None = None,
    ) -> jax.Array:
        """The logits of each next token, by the text tower in the mode of a decoder."""
        tokens = model.text(
            text, mask, train, cache=cache, text_mode=self.mode, memory=memory
        ).tokens
        return constrain(
            model.decoder(tokens, model.word_table() if self.tied else None),
            ("batch", None, "vocab"),
        )

    def text_flops(
        self, shapes: ModelShapes, pictures: int, rows: int, length: int, tokens: int, width: int
    ) -> int:
        """The text tower's layers, cross-attention to the image where there is any, and the
        head."""
        options = self.layers(shapes, Precision())
        cross = (
            cross_flops(options.width, length, memory=tokens * pictures, memory_width=width)
            if self.reads_image
            else 0
        )
        head = 2 * length * options.width * (options.width + shapes.text.vocab_size)
        return rows * (
            head
            + options.depth * (layer_flops(options, length, activation=options.activation) + cross)
        )
