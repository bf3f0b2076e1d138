"""ResNets in Hugging Face folders (transformers' ResNetModel; He et al. 2016). A classifier is left
out, and so are the numbers of batches that a BatchNorm counts.
"""

from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.models.vision.resnet import EXPANSION, SIZES, ResNetConfig
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.rules import Rules, Shape, batch_norm, convolution, within
from vlp_jax.weights.settings import Given, Settings

STAGES = 8  # of which rules are made


def unit(theirs: str, name: str) -> Rules:
    """A convolution and its norm."""
    return within(
        f"{theirs}.",
        "",
        convolution("convolution", f"convolution_{name}"),
        batch_norm("normalization", f"norm_{name}"),
    )


def stage(number: int) -> Rules:
    """The blocks of a stage."""
    return within(
        f"encoder.stages.{number}.layers.{{}}.",
        f"stage_{number}_block_{{}}/",
        *(unit(f"layer.{i}", str(i)) for i in range(3)),
        unit("shortcut", "shortcut"),
    )


class HubResNet(ImageAlone):
    """ResNetModel."""

    title = "ResNetModel"
    model_type, image_processor = "resnet", "ConvNextImageProcessor"
    ignored = r"num_batches_tracked$|^classifier\."
    settings = Settings(
        keys=(),
        given=(
            Given("num_channels", 3),
            Given("hidden_act", "relu"),
            Given("downsample_in_first_stage", False),
            Given("downsample_in_bottleneck", False),
        ),
        fixed={"model.image.kind": "resnet"},
    )
    free = ("model.image.image_size",)  # the tensors are those of any size
    rules = within(
        "",
        "model/image/",
        unit("embedder.embedder", "stem"),
        *(stage(number) for number in range(STAGES)),
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Without the prefix of classes with a head."""
        found = {name.removeprefix("resnet."): name for name in shapes}
        return {name: found[name] for name in super().names(dict.fromkeys(found, ()))}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings.

        Raises:
          CheckpointError: widths that are not those of He et al. in proportion.
        """
        bottleneck = theirs["layer_type"] == "bottleneck"
        width, depths = theirs["embedding_size"], tuple(theirs["depths"])
        outer = width * (EXPANSION if bottleneck else 1)
        wanted = [outer * 2**stage for stage in range(len(depths))]
        if list(theirs["hidden_sizes"]) != wanted:
            raise CheckpointError(
                f"{place}: hidden_sizes is {theirs['hidden_sizes']}, and only {wanted} is supported"
            )
        usual = next((depth for depth, size in SIZES.items() if size == (depths, bottleneck)), None)
        return {
            **super().config(theirs, shapes, place),
            "model.embedding_dim": wanted[-1],
            "model.image.width": width,
            "model.image.depth": usual or (50 if bottleneck else 18),
            "model.image.blocks": () if usual else depths,
        }

    def their_config(self, config: Any) -> dict[str, Any]:
        """Their config.

        Raises:
          ConfigError: another tower.
        """
        tower = config.model.image
        if not isinstance(tower, ResNetConfig):
            raise ConfigError(f"model.image.kind: {tower.kind!r} is no ResNet")
        found = super().their_config(config)
        first = tower.width * (EXPANSION if tower.bottleneck else 1)
        return {
            **found,
            "embedding_size": tower.width,
            "hidden_sizes": [first * 2**stage for stage in range(len(tower.stages))],
            "depths": list(tower.stages),
            "layer_type": "bottleneck" if tower.bottleneck else "basic",
            "stage_names": ["stem", *(f"stage{i + 1}" for i in range(len(tower.stages)))],
            "out_features": None,
            "out_indices": None,
        }
