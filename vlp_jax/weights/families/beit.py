"""BEiT in Hugging Face folders (transformers' BeitModel; Bao et al. 2022).

The mask token, which is for pretraining, and heads of other classes are left out.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.families.clip import image
from vlp_jax.weights.families.vit import layers
from vlp_jax.weights.rules import Shape, class_and_positions, norm, patches, same, within, zeros
from vlp_jax.weights.settings import Given, Settings

TABLE = "relative_position_bias.relative_position_bias_table"


class Beit(ImageAlone):
    """BeitModel with its pooler."""

    title = "BeitModel"
    exports = False
    ignored = r"^embeddings\.mask_token$|relative_position_index$|^(classifier|lm_head|layernorm_)"
    settings = Settings(
        keys=image(""), given=(Given("num_channels", 3),), fixed={"model.image.class_tokens": 1}
    )
    rules = within(
        "",
        "model/image/",
        same("embeddings.cls_token", "class_token"),
        zeros("class_position", "embeddings.cls_token", unless="embeddings.position_embeddings"),
        class_and_positions("embeddings.position_embeddings", dims=3),
        patches("embeddings.patch_embeddings.projection", "patch_embedding"),
        same(f"encoder.{TABLE}", "position_bias"),
        layers("encoder.layer.{}.", "transformer"),
        within(
            "encoder.layer.{}.",
            "transformer/layer_{}/",
            zeros(
                "attention/key/bias",
                "attention.attention.key.weight",
                unless="attention.attention.key.bias",
            ),
            same(f"attention.attention.{TABLE}", "position_bias"),
            same("lambda_1", "attention_layer_scale"),
            same("lambda_2", "mlp_layer_scale"),
        ),
        norm("layernorm", "norm"),
        norm("pooler.layernorm", "norm"),
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head."""
        found = {name.removeprefix("beit."): name for name in shapes}
        return {name: found[name] for name in super().names(dict.fromkeys(found, ()))}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises:
          CheckpointError: relative positions of all layers and of each.
        """
        shared, own = (theirs[f"use_{kind}relative_position_bias"] for kind in ("shared_", ""))
        if shared and own:
            raise CheckpointError(
                f"{place}: use_relative_position_bias and use_shared_relative_position_bias are "
                "both set, and only one of them is supported"
            )
        scale, absolute = (
            theirs["layer_scale_init_value"],
            theirs["use_absolute_position_embeddings"],
        )
        return {
            **super().config(theirs, shapes, place),
            "model.image.position": "learned" if absolute else "none",
            "model.image.position_bias": "shared" if shared else "layers" if own else "none",
            "model.image.pooling": "mean" if theirs["use_mean_pooling"] else "cls",
            "model.image.norm_before_pooling": not theirs["use_mean_pooling"],
            "model.image.layer_scale": scale if scale and scale > 0 else None,
        }
