"""EfficientNet in Hugging Face folders (transformers' EfficientNetModel; Tan & Le 2019). A
classifier is left out, and so are the numbers of batches that a BatchNorm counts.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.models.vision.efficientnet import EfficientNetConfig
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.rules import Rules, Shape, batch_norm, convolution, linear, within
from vlp_jax.weights.settings import Given, Key, Settings

STEM_WIDTH, HEAD_WIDTH = 32, 1280  # before the coefficient
# {theirs: ours}, a number for each stage
STAGES = {
    "out_channels": "widths",
    "num_block_repeats": "blocks",
    "kernel_sizes": "kernels",
    "strides": "strides",
    "expand_ratios": "expansions",
}
SECTION = "model.image."


def unit(theirs: str, norm: str, name: str) -> Rules:
    """A convolution and its norm."""
    return (*convolution(theirs, f"convolution_{name}"), *batch_norm(norm, f"norm_{name}"))


LAYERS: Rules = (
    *unit("embeddings.convolution", "embeddings.batchnorm", "stem"),
    *within(
        "encoder.blocks.{}.",
        "block_{}/",
        unit("expansion.expand_conv", "expansion.expand_bn", "expansion"),
        unit("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm", "depthwise"),
        linear("squeeze_excite.reduce", "squeeze"),
        linear("squeeze_excite.expand", "excite"),
        unit("projection.project_conv", "projection.project_bn", "projection"),
    ),
)
FIXED = {
    "model.image.kind": "efficientnet",
    "model.image.stem_width": STEM_WIDTH,
    "model.image.projection": "none",
}


def keys(theirs: str = "") -> tuple[Key, ...]:
    """The settings of the network, without those of its stages."""
    return (
        Key(f"{theirs}image_size", "model.image.image_size"),
        Key(f"{theirs}width_coefficient", "model.image.width_coefficient"),
        Key(f"{theirs}depth_coefficient", "model.image.depth_coefficient"),
        Key(f"{theirs}squeeze_expansion_ratio", "model.image.squeeze"),
    )


def given(theirs: str = "") -> tuple[Given, ...]:
    """The settings that we have no key for."""
    return (
        Given(f"{theirs}num_channels", 3),
        Given(f"{theirs}depth_divisor", 8),
        Given(f"{theirs}hidden_act", "swish", ("silu",)),
        Given(f"{theirs}pooling_type", "mean"),
        Given(f"{theirs}batch_norm_eps", 1e-3),
    )


def with_stages(image: Mapping[str, Any], found: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Our settings with those of the stages.

    Args:
      image: their config of the network.
      found: ours, {our dotted key: value}.
      place: the config's file, for messages.
    Raises:
      CheckpointError: a stage whose input is not the output of the one before, or another padding.
    """
    wanted = [STEM_WIDTH, *image["out_channels"][:-1]]
    if list(image["in_channels"]) != wanted:
        raise CheckpointError(
            f"{place}: in_channels is {list(image['in_channels'])}, and only {wanted}, the output "
            "of the stem and of out_channels, is supported"
        )
    stages = {f"{SECTION}{ours}": tuple(image[name]) for name, ours in STAGES.items()}
    found = {**found, **stages}
    return {**found, "model.image.padding": padding_of(image, tower_of(found), place)}


def tower_of(found: Mapping[str, Any]) -> EfficientNetConfig:
    """The tower of these settings, {our dotted key: value}."""
    own = {key.removeprefix(SECTION): found[key] for key in found if key.startswith(SECTION)}
    del own["kind"]
    return EfficientNetConfig(**own)


def padding_of(image: Mapping[str, Any], tower: EfficientNetConfig, place: str) -> str:
    """Our name of the padding before strides.

    There, the blocks in `depthwise_padding` pad alike on both sides, and the stem and all other
    blocks as for a map with an even side.

    Raises:
      CheckpointError: neither of ours is the same.
    """
    sides = tower.strided()
    alike = {number for number in image["depthwise_padding"] if number in sides}
    if not alike:
        return "floor"
    odd = {number for number, side in sides.items() if side % 2}
    if alike == odd and tower.image_size % 2 == 0:
        return "same"
    raise CheckpointError(
        f"{place}: depthwise_padding {sorted(alike)} is not supported for images of "
        f"{tower.image_size} pixels; expected [] or {sorted(odd)}, with an even number of pixels"
    )


class EfficientNet(ImageAlone):
    """EfficientNetModel."""

    title = "EfficientNetModel"
    exports = False
    ignored = r"num_batches_tracked$|^classifier\."
    settings = Settings(
        keys=keys(), given=given(), fixed={**FIXED, "model.image.head_width": HEAD_WIDTH}
    )
    rules = within("", "model/image/", LAYERS, unit("encoder.top_conv", "encoder.top_bn", "head"))

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head."""
        found = {name.removeprefix("efficientnet."): name for name in shapes}
        return {name: found[name] for name in super().names(dict.fromkeys(found, ()))}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises: as `with_stages`.
        """
        found = with_stages(theirs, super().config(theirs, shapes, place), place)
        return {**found, "model.embedding_dim": tower_of(found).token_width}
