"""SigLIP's towers alone in Hugging Face folders: transformers' SiglipVisionModel and
SiglipTextModel. Prefixes of names are as in `clip_alone`.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.alone import ImageAlone, TextAlone
from vlp_jax.weights.families.clip import image, text
from vlp_jax.weights.families.clip_alone import with_prefix
from vlp_jax.weights.families.siglip import IMAGE, TEXT, Siglip
from vlp_jax.weights.rules import Shape, linear
from vlp_jax.weights.settings import Given, Key, Settings


class SiglipImage(ImageAlone):
    """SiglipVisionModel with its pooling head."""

    title = "SiglipVisionModel"
    model_type, image_processor = "siglip_vision_model", "SiglipImageProcessor"
    processor = "SiglipProcessor"
    settings = Settings(
        keys=image(""),
        given=(Given("num_channels", 3), Given("vision_use_head", True)),
        fixed={"model.image.pooling": "map", "model.image.projection": "none"},
    )
    rules = IMAGE

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "vision_model."."""
        return with_prefix("vision_model.", super().names(shapes), ())


class SiglipText(TextAlone):
    """SiglipTextModel; its head is our projection."""

    title = "SiglipTextModel"
    model_type, processor = "siglip_text_model", "SiglipProcessor"
    settings = Settings(
        keys=(*text(""), Key("projection_size", "model.embedding_dim")),
        fixed={
            "model.text.causal": False,
            "model.text.padding_mask": False,
            "model.text.pooling": "last",
            "model.text.projection": "linear_with_bias",
        },
    )
    rules = (*TEXT, *linear("text_model.head", "model/text_projection"))
    text_tokens, default_tokens = Siglip.text_tokens, Siglip.default_tokens

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "text_model."."""
        return with_prefix("text_model.", super().names(shapes), ())

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config; `projection_size` is by default the width."""
        size = theirs.get("projection_size") or theirs["hidden_size"]
        return super().config({**theirs, "projection_size": size}, shapes, place)
