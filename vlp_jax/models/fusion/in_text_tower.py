"""Fusion by the layers of the text tower."""

import dataclasses

from vlp_jax.models.fusion.base import FusionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class InTextTowerConfig(FusionConfig):
    """A second pass through the text tower, with cross-attention to the image's tokens in each layer (BLIP)."""

    start_token: bool = True  # a learned token replaces each text's first, as BLIP's [Encode]
