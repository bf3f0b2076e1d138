"""Families of one tower alone. The other tower, which their checkpoints lack, is the smallest that
a config allows: it has no layers, and its parameters are fresh.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape

NARROW = {"width": 8, "heads": 1, "mlp_dim": 8, "depth": 0}
NO_TEXT = {
    **{f"model.text.{key}": value for key, value in NARROW.items()},
    "model.text.vocab_size": 4096,
    "model.text.length": 16,
    "model.text.projection": "linear",
}
NO_IMAGE = {
    **{f"model.image.{key}": value for key, value in NARROW.items()},
    "model.image.image_size": 32,
    "model.image.patch_size": 32,
    "model.image.projection": "linear",
}
CONTRASTIVE = {"objectives.contrastive.kind": "clip"}


class ImageAlone(Family):
    """An image tower."""

    absent, stand_in = "text", NO_TEXT
    parts = ("model/image/", "model/image_projection/")

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings of the image tower; its pooled vector is the embedding, unless they have a
        projection.
        """
        found = super().config(theirs, shapes, place)
        unprojected = {"model.image.projection": "none"}
        if "model.image.width" in found:
            unprojected["model.embedding_dim"] = found["model.image.width"]
        return {**CONTRASTIVE, **NO_TEXT, **unprojected, **found}

    def text_settings(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """None: the tokenizer is the embedded one, the default."""
        return {}


class TextAlone(Family):
    """A text tower."""

    absent, stand_in = "image", NO_IMAGE
    parts = ("model/text/", "model/text_projection/")

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings of the text tower; its pooled vector is the embedding, unless they have a
        projection.
        """
        found = super().config(theirs, shapes, place)
        unprojected = {
            "model.text.projection": "none",
            "model.embedding_dim": found["model.text.width"],
        }
        return {**CONTRASTIVE, **NO_IMAGE, **unprojected, **found}
