"""SigLIP 2 of any aspect ratio (NaFlex) in Hugging Face folders (transformers' Siglip2Model;
Tschannen et al. 2025), read as a model of square images of a fixed size."""

import math
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.siglip import IMAGE, Siglip
from vlp_jax.weights.rules import Shape, linear, within

PATCHES = "vision_model.embeddings.patch_embedding"


class Siglip2(Siglip):
    """transformers' Siglip2Model.

    The patches are given to it as rows of pixels, so that their embedding is a linear layer; the
    positions are those of its square grid.
    """

    title = "Siglip2Model"
    model_type, image_processor, processor = "siglip2", "Siglip2ImageProcessor", "Siglip2Processor"
    exports = False
    rules = (
        *within(
            "vision_model.", "model/image/", linear("embeddings.patch_embedding", "patch_embedding")
        ),
        *(rule for rule in IMAGE if not rule.theirs[0].startswith(PATCHES)),
        *(rule for rule in Siglip.rules if rule not in IMAGE),
    )

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """Their config, with the size of an image whose patches fill the table of positions.

        Raises:
          CheckpointError: the table is no square.
        """
        image = dict(theirs["vision_config"])
        side = math.isqrt(image["num_patches"])
        if side**2 != image["num_patches"]:
            raise CheckpointError(
                f"{place}: vision_config.num_patches is {image['num_patches']}, which is no square"
            )
        image["image_size"] = side * image["patch_size"]
        return super().config({**theirs, "vision_config": image}, shapes, place)
