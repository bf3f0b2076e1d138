"""A decoder by the layers of the text tower."""

import dataclasses
from typing import Literal

from vlp_jax.models.decoder.base import DecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class InTextTowerDecoderConfig(DecoderConfig):
    """The layers of `model.text`, with cross-attention and a causal mask (BLIP).

    They share all parameters with the text tower except `own`.
    """

    image: Literal["cross_attention", "none"] = "cross_attention"  # how the image's tokens are used, if at all
    tied: bool = True  # the output embeddings are the input embeddings
    own: tuple[Literal["attention", "cross", "mlp"], ...] = ("attention",)  # parts of a layer that are not shared
    start_token: bool = True  # a learned token replaces each text's first, as BLIP's [Decode]
