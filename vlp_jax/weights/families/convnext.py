"""ConvNeXt in Hugging Face folders (transformers' ConvNextModel; Liu et al. 2022). A classifier is
left out.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.rules import Rules, Shape, convolution, linear, norm, same, within
from vlp_jax.weights.settings import ACTIVATIONS, Given, Key, Settings

STAGES = 8  # of which rules are made


def stage(number: int) -> Rules:
    """The halving of a stage and its blocks."""
    return within(
        f"encoder.stages.{number}.",
        "",
        norm("downsampling_layer.0", f"stage_{number}_norm"),
        convolution("downsampling_layer.1", f"stage_{number}_halving"),
        within(
            "layers.{}.",
            f"stage_{number}_block_{{}}/",
            convolution("dwconv", "depthwise"),
            norm("layernorm", "norm"),
            linear("pwconv1", "in"),
            linear("pwconv2", "out"),
            same("layer_scale_parameter", "layer_scale"),
        ),
    )


class ConvNext(ImageAlone):
    """ConvNextModel."""

    title = "ConvNextModel"
    exports = False
    ignored = r"^classifier\."
    settings = Settings(
        keys=(
            Key("patch_size", "model.image.patch_size"),
            Key("image_size", "model.image.image_size"),
            Key("layer_norm_eps", "model.image.norm_epsilon"),
            Key("hidden_act", "model.image.activation", ACTIVATIONS),
        ),
        given=(Given("num_channels", 3),),
        fixed={"model.image.kind": "convnext"},
    )
    rules = within(
        "",
        "model/image/",
        convolution("embeddings.patch_embeddings", "stem"),
        norm("embeddings.layernorm", "stem_norm"),
        *(stage(number) for number in range(STAGES)),
        norm("layernorm", "norm"),
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head."""
        found = {name.removeprefix("convnext."): name for name in shapes}
        return {name: found[name] for name in super().names(dict.fromkeys(found, ()))}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises:
          CheckpointError: another number of stages than of widths.
        """
        widths, scale = tuple(theirs["hidden_sizes"]), theirs["layer_scale_init_value"]
        if theirs["num_stages"] != len(widths):
            raise CheckpointError(
                f"{place}: num_stages is {theirs['num_stages']}, hidden_sizes has {len(widths)}"
            )
        return {
            **super().config(theirs, shapes, place),
            "model.embedding_dim": widths[-1],
            "model.image.widths": widths,
            "model.image.blocks": tuple(theirs["depths"]),
            "model.image.layer_scale": scale if scale > 0 else None,
        }
