"""ALIGN in Hugging Face folders (transformers' AlignModel; Jia et al. 2021): EfficientNet and
BERT."""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.models.vision.efficientnet import EfficientNetConfig
from vlp_jax.weights.families import bert
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Rules, Shape, batch_norm, convolution, linear, same, within
from vlp_jax.weights.settings import Given, Key, Settings


def unit(theirs: str, norm: str, name: str) -> Rules:
    """A convolution and its norm."""
    return (*convolution(theirs, f"convolution_{name}"), *batch_norm(norm, f"norm_{name}"))


IMAGE = within(
    "vision_model.",
    "model/image/",
    unit("embeddings.convolution", "embeddings.batchnorm", "stem"),
    within(
        "encoder.blocks.{}.",
        "block_{}/",
        unit("expansion.expand_conv", "expansion.expand_bn", "expansion"),
        unit("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm", "depthwise"),
        linear("squeeze_excite.reduce", "squeeze"),
        linear("squeeze_excite.expand", "excite"),
        unit("projection.project_conv", "projection.project_bn", "projection"),
    ),
)
STEM_WIDTH = 32  # channels of the stem, before the coefficient
# {theirs: ours}, a number for each stage
STAGES = {
    "out_channels": "widths",
    "num_block_repeats": "blocks",
    "kernel_sizes": "kernels",
    "strides": "strides",
    "expand_ratios": "expansions",
}


class Align(Family):
    """AlignModel.

    The pooler of its text tower, which the class does not compute with, is left out, and so are the
    numbers of batches that a BatchNorm counts.
    """

    title, model_type = "AlignModel", "align"
    exports = False
    ignored = r"position_ids$|token_type_ids$|num_batches_tracked$|^text_model\.pooler\."
    settings = Settings(
        keys=(
            *bert.text("text_config."),
            Key("text_config.max_position_embeddings", "model.text.length"),
            Key("vision_config.image_size", "model.image.image_size"),
            Key("vision_config.width_coefficient", "model.image.width_coefficient"),
            Key("vision_config.depth_coefficient", "model.image.depth_coefficient"),
            Key("vision_config.squeeze_expansion_ratio", "model.image.squeeze"),
            Key("projection_dim", "model.embedding_dim"),
        ),
        given=(
            Given("vision_config.num_channels", 3),
            Given("vision_config.depth_divisor", 8),
            Given("vision_config.hidden_act", "swish", ("silu",)),
            Given("vision_config.pooling_type", "mean"),
            Given("vision_config.batch_norm_eps", 1e-3),
        ),
        fixed={
            **bert.TEXT_FIXED,
            "model.image.kind": "efficientnet",
            "model.image.head_width": None,
            "model.image.projection": "none",
            "model.text.projection": "linear_with_bias",
            "objectives.contrastive.kind": "clip",
            "objectives.contrastive.scale_parameter": "temperature",
            "objectives.contrastive.label_smoothing": 0.1,
        },
    )
    rules = (
        *IMAGE,
        *within("text_model.", "model/text/", bert.EMBEDDINGS, bert.LAYERS),
        *linear("text_projection", "model/text_projection"),
        same("temperature", "objectives_contrastive/temperature"),
    )
    text_tokens = bert.Bert.text_tokens
    default_tokens = bert.Bert.default_tokens

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises:
          CheckpointError: a stage whose input is not the output of the one before, or another
            padding.
        """
        image = theirs["vision_config"]
        wanted = [STEM_WIDTH, *image["out_channels"][:-1]]
        if list(image["in_channels"]) != wanted:
            raise CheckpointError(
                f"{place}: vision_config.in_channels is {list(image['in_channels'])}, and only "
                f"{wanted}, the output of the stem and of out_channels, is supported"
            )
        found = super().config(theirs, shapes, place)
        stages = {ours: tuple(image[name]) for name, ours in STAGES.items()}
        own: dict[str, Any] = {**stages, "stem_width": STEM_WIDTH}
        found |= {f"model.image.{key}": value for key, value in own.items()}
        return {**found, "model.image.padding": padding_of(image, found, place)}


def padding_of(image: Mapping[str, Any], found: Mapping[str, Any], place: str) -> str:
    """Our name of the padding before strides.

    There, the blocks in `depthwise_padding` pad alike on both sides, and the stem and all other
    blocks as for a map with an even side.

    Args:
      image: their config of the image tower.
      found: ours, {our dotted key: value}.
      place: the config's file, for messages.
    Raises:
      CheckpointError: neither of ours is the same.
    """
    section = "model.image."
    own = {key.removeprefix(section): found[key] for key in found if key.startswith(section)}
    del own["kind"]
    sides = EfficientNetConfig(**own).strided()
    alike = {number for number in image["depthwise_padding"] if number in sides}
    if not alike:
        return "floor"
    odd = {number for number, side in sides.items() if side % 2}
    if alike == odd and own["image_size"] % 2 == 0:
        return "same"
    raise CheckpointError(
        f"{place}: vision_config.depthwise_padding {sorted(alike)} is not supported for images of "
        f"{own['image_size']} pixels; expected [] or {sorted(odd)}, with an even number of pixels"
    )
