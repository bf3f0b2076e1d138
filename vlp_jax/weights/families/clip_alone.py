"""CLIP's towers alone in Hugging Face folders: transformers' CLIPVisionModel and CLIPTextModel, and
their classes with a projection.

Names have the prefix "vision_model." or "text_model.", which transformers writes for the classes
with a projection, and wrote for all until version 5.6; it reads the prefix for all of them.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.weights.families.alone import ImageAlone, TextAlone
from vlp_jax.weights.families.clip import IMAGE, IMAGE_FIXED, TEXT, TEXT_FIXED, Clip, image, text
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape, linear
from vlp_jax.weights.settings import Given, Key, Settings


def with_prefix(prefix: str, names: Mapping[str, str], others: tuple[str, ...]) -> dict[str, str]:
    """{name with the prefix: name in the file}; names with a prefix of `others` have none."""
    return {
        name if name.startswith((prefix, *others)) else f"{prefix}{name}": file
        for name, file in names.items()
    }


class Projected(Family):
    """A class with a projection, and its sibling without one, which differ in the presence of one
    tensor.

    Attributes:
      projection: the name of that tensor.
      tower: the tower, "image" or "text".
      plain: the name of the class without a projection.
    """

    projection: str
    tower: str
    plain: str

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings, with those of the projection where the checkpoint has one."""
        found = super().config(theirs, shapes, place)
        if self.projection in shapes or self.title in (theirs.get("architectures") or ()):
            return found
        return {
            **found,
            f"model.{self.tower}.projection": "none",
            "model.embedding_dim": found[f"model.{self.tower}.width"],
        }

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config, which names its class."""
        found = super().their_config(config)
        projected = getattr(config.model, self.tower).projection != "none"
        return {**found, "architectures": [self.title if projected else self.plain]}


class ClipImage(Projected, ImageAlone):
    """CLIPVisionModelWithProjection and CLIPVisionModel."""

    title, plain = "CLIPVisionModelWithProjection", "CLIPVisionModel"
    projection, tower = "visual_projection.weight", "image"
    model_type, image_processor = "clip_vision_model", "CLIPImageProcessor"
    processor = "CLIPProcessor"
    free = ("model.image.norm_before_pooling",)
    settings = Settings(
        keys=(*image(""), Key("projection_dim", "model.embedding_dim")),
        given=(Given("num_channels", 3),),
        fixed=IMAGE_FIXED,
    )
    rules = (*IMAGE, *linear("visual_projection", "model/image_projection"))

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "vision_model."."""
        return with_prefix("vision_model.", super().names(shapes), ("visual_projection.",))


class ClipText(Projected, TextAlone):
    """CLIPTextModelWithProjection and CLIPTextModel."""

    title, plain = "CLIPTextModelWithProjection", "CLIPTextModel"
    projection, tower = "text_projection.weight", "text"
    model_type, processor = "clip_text_model", "CLIPProcessor"
    free = Clip.free
    settings = Settings(
        keys=(*text(""), Key("projection_dim", "model.embedding_dim")), fixed=TEXT_FIXED
    )
    rules = (*TEXT, *linear("text_projection", "model/text_projection"))
    text_tokens, default_tokens = Clip.text_tokens, Clip.default_tokens

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """With the prefix "text_model."."""
        return with_prefix("text_model.", super().names(shapes), ("text_projection.",))
