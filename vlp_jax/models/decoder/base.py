"""The base of all decoders."""

import dataclasses
from typing import ClassVar

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(Component):
    """A decoder, which predicts the tokens of a text, each from those before it."""

    kinds: ClassVar[Kinds] = Kinds({
        "transformer": "vlp_jax.models.decoder.transformer:TextDecoderConfig",
        "on_text_tower": "vlp_jax.models.decoder.transformer:OnTextTowerDecoderConfig",
        "in_text_tower": "vlp_jax.models.decoder.in_text_tower:InTextTowerDecoderConfig",
        "lstm": "vlp_jax.models.decoder.recurrent:LstmDecoderConfig",
        "gru": "vlp_jax.models.decoder.recurrent:GruDecoderConfig",
    }, default="transformer")
