"""Vision Transformers in Hugging Face folders: transformers' ViTModel (Dosovitskiy et al. 2021) and
DeiTModel (Touvron et al. 2021).

Of the classes with a head for image classification the tower is read, and the head is left out.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.rules import (
    Rules,
    Shape,
    attention,
    class_and_positions,
    joined,
    linear,
    norm,
    patches,
    same,
    within,
)
from vlp_jax.weights.settings import Given, Settings

ATTENTION = attention(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    out="attention.output.dense",
)


def layers(theirs: str, ours: str) -> Rules:
    """The layers of a stack.

    Args:
      theirs: the prefix of a layer's names, with `{}`.
      ours: the path of the stack.
    """
    return within(
        theirs,
        f"{ours}/layer_{{}}/",
        norm("layernorm_before", "attention_norm"),
        ATTENTION,
        norm("layernorm_after", "mlp_norm"),
        linear("intermediate.dense", "mlp/in"),
        linear("output.dense", "mlp/out"),
    )


TOWER = within(
    "",
    "model/image/",
    patches("embeddings.patch_embeddings.projection", "patch_embedding"),
    class_and_positions("embeddings.position_embeddings", dims=3),
    layers("encoder.layer.{}.", "transformer"),
    norm("layernorm", "norm"),
    linear("pooler.dense", "pooler"),
)
GIVEN = (Given("num_channels", 3), Given("qkv_bias", True), Given("pooler_act", "tanh"))
CLASS_TOKEN = {"model.image.pooling": "cls", "model.image.projection": "none"}
# The prefix of names in classes with a head, and the heads of these classes.
PREFIX = ("vit.", "deit.")
HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.")


class Vit(ImageAlone):
    """ViTModel with and without its pooler."""

    title = "ViTModel"
    model_type, image_processor = "vit", "ViTImageProcessor"
    free = ("model.image.norm_before_pooling",)
    settings = Settings(keys=image(""), given=GIVEN, fixed=CLASS_TOKEN)
    rules = (same("embeddings.cls_token", "model/image/class_token"), *TOWER)
    # the mask token is of a class for masked images
    ignored = r"^embeddings\.mask_token$|position_ids$"

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head, and without the head."""
        found = {
            next((name.removeprefix(each) for each in PREFIX if name.startswith(each)), name): name
            for name in shapes
            if not name.startswith(HEADS)
        }
        kept = super().names(dict.fromkeys(found, ()))
        return {name: found[name] for name in kept}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings; there is a pooler where it has tensors."""
        width = theirs["hidden_size"]
        if theirs.get("pooler_output_size") not in (None, width):
            raise CheckpointError(
                f"{place}: pooler_output_size is {theirs['pooler_output_size']}, and only that of "
                f"the layers, {width}, is supported"
            )
        pooler = "pooler.dense.weight" in shapes or theirs.get("pooler", False)
        return {**super().config(theirs, shapes, place), "model.image.pooler": pooler}

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config; whether there is a pooler is not part of it, but noted for reading."""
        found = super().their_config(config)
        return {
            **found,
            "pooler_output_size": found["hidden_size"],
            "pooler": config.model.image.pooler,
        }


class Deit(Vit):
    """DeiTModel with and without its pooler: a second class token, for distillation."""

    title = "DeiTModel"
    model_type, image_processor = "deit", "DeiTImageProcessor"
    exports = False
    settings = Settings(
        keys=image(""), given=GIVEN, fixed={**CLASS_TOKEN, "model.image.class_tokens": 2}
    )
    rules = (
        joined(
            ("embeddings.cls_token", "embeddings.distillation_token"), "model/image/class_token"
        ),
        *TOWER,
    )
