"""Schema of the `model` section."""

import dataclasses

from vlp_jax.config.decoder_schema import AnyDecoder
from vlp_jax.config.fields import between, of_kind, section
from vlp_jax.config.fusion_schema import Fusion
from vlp_jax.config.tower_schema import AnyImageTower, AnyTextTower, ImageTower, TextTower


@dataclasses.dataclass(frozen=True)
class Model:
    """An image and a text encoder with a shared embedding space, an optional fusion and an optional decoder.

    A fusion is for objectives on image and text together, a decoder for those that predict tokens.
    """

    image: AnyImageTower = section(ImageTower)
    text: AnyTextTower = section(TextTower)
    embedding_dim: int | None = between(None, 1)  # None: the text tower's width
    fusion: Fusion | None = None
    decoder: AnyDecoder | None = of_kind("transformer")
