"""timm's ResNets (He et al. 2016), VGGs (Simonyan & Zisserman 2015) and Inception-v3 (Szegedy et
al. 2016). Classifiers, and Inception's auxiliary one, are left out.
"""

import re
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.models.vision.inception import BLOCKS, STEM_WIDTH
from vlp_jax.models.vision.resnet import SIZES
from vlp_jax.models.vision.vgg import DEPTHS
from vlp_jax.weights.families.alone import ImageAlone
from vlp_jax.weights.rules import Rule, Rules, Shape, batch_norm, convolution, one, same, within
from vlp_jax.weights.settings import Settings

STAGES = 4  # of a ResNet


class Convolutional(ImageAlone):
    """A convolutional network of timm."""

    exports = False
    settings = Settings(keys=())
    ignored = r"(num_batches_tracked|^fc\..*|^head\..*|^AuxLogits\..*)$"

    def image(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The keys of the section `model.image`, and the width of the pooled vector as `pooled`."""
        raise NotImplementedError

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The settings; the size of an image is that of its preprocessing."""
        found = self.image(theirs, shapes, place)
        size = theirs.get("pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1]
        return {
            **super().config(theirs, shapes, place),
            "model.embedding_dim": found.pop("pooled"),
            "model.image.image_size": size,
            **{f"model.image.{key}": value for key, value in found.items()},
        }


def block(theirs: str, ours: str) -> Rules:
    """A residual block."""
    return within(
        theirs,
        ours,
        *(
            each
            for i in range(3)
            for each in (
                *convolution(f"conv{i + 1}", f"convolution_{i}"),
                *batch_norm(f"bn{i + 1}", f"norm_{i}"),
            )
        ),
        convolution("downsample.0", "convolution_shortcut"),
        batch_norm("downsample.1", "norm_shortcut"),
    )


class TimmResNet(Convolutional):
    """A ResNet with the stem and the blocks of He et al."""

    title = "timm ResNet"
    rules = within(
        "",
        "model/image/",
        convolution("conv1", "convolution_stem"),
        batch_norm("bn1", "norm_stem"),
        *(
            block(f"layer{stage + 1}.{{}}.", f"stage_{stage}_block_{{}}/")
            for stage in range(STAGES)
        ),
    )

    def image(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The depth by the name, the blocks by the tensors."""
        depth = int(theirs["architecture"].removeprefix("resnet"))
        blocks = tuple(
            sum(
                bool(re.fullmatch(rf"layer{stage + 1}\.\d+\.conv1\.weight", name))
                for name in shapes
            )
            for stage in range(STAGES)
        )
        last = "conv3" if SIZES[depth][1] else "conv2"
        name = f"layer{STAGES}.0.{last}.weight"
        if name not in shapes or "conv1.weight" not in shapes:
            raise CheckpointError(f"{place}: lacks {name}, as a ResNet of depth {depth} has it")
        return {
            "kind": "resnet",
            "depth": depth,
            "blocks": blocks,
            "width": shapes["conv1.weight"][0],
            "pooled": shapes[name][0],
        }


def whole_map(theirs: str, ours: str) -> Rule:
    """The weight of a layer on a whole map, [hidden, C, h, w], to [h w, C, hidden]."""
    return one(
        theirs,
        ours,
        lambda array, shape: array.transpose(2, 3, 1, 0).reshape(shape),
        lambda array: array.transpose(2, 1, 0).reshape(*array.shape[:0:-1], *side(array)),
        "transposed",
    )


def side(array: Any) -> tuple[int, int]:
    """The sides of a square map, whose places are the first axis."""
    length = round(len(array) ** 0.5)
    return length, length


class TimmVgg(Convolutional):
    """A VGG with its two fully connected layers; names are those that `names` makes, by stage."""

    title = "timm VGG"
    rules = within(
        "",
        "model/image/",
        *(
            within(
                f"stages.{stage}.{{}}.",
                f"stage_{stage}/",
                convolution("conv", "convolution_{}"),
                batch_norm("bn", "norm_{}"),
            )
            for stage in range(5)
        ),
        whole_map("pre_logits.fc1.weight", "hidden_0/kernel"),
        same("pre_logits.fc1.bias", "hidden_0/bias"),
        one(
            "pre_logits.fc2.weight",
            "hidden_1/kernel",
            lambda array, shape: array.T.reshape(shape),
            lambda array: array.T[:, :, None, None],
            "transposed",
        ),
        same("pre_logits.fc2.bias", "hidden_1/bias"),
    )

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Numbers among all layers as stage and convolution: a stage ends with pooling, which takes
        one number more."""
        found = super().names(shapes)
        numbers = {
            int(match[1]): len(shape)
            for name, shape in shapes.items()
            if (match := re.fullmatch(r"features\.(\d+)\.weight", name))
        }
        convolutions = sorted(number for number, axes in numbers.items() if axes == 4)
        step = 2 + any(axes == 1 for axes in numbers.values())
        places: dict[int, str] = {}
        stage, index, last = 0, 0, None
        for number in convolutions:
            if last is not None:
                new = number - last > step
                stage, index = (stage + 1, 0) if new else (stage, index + 1)
            places[number] = f"stages.{stage}.{index}.conv"
            places[number + 1] = f"stages.{stage}.{index}.bn"
            last = number
        return {in_stage(name, places): file for name, file in found.items()}

    def image(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The depth and the norm by the name."""
        depth, _, norm = theirs["architecture"].removeprefix("vgg").partition("_")
        name = f"stages.4.{DEPTHS[int(depth)][4] - 1}.conv.weight"
        if name not in shapes:
            raise CheckpointError(f"{place}: has not the layers of a VGG of depth {depth}")
        hidden = shapes.get("pre_logits.fc1.weight")
        pooled = {"pooled": shapes[name][0]}
        if hidden is not None:
            pooled = {"pooled": hidden[0], "pooling": "hidden", "hidden_dim": hidden[0]}
        return {
            "kind": "vgg",
            "depth": int(depth),
            "norm": "batch" if norm else "none",
            "width": shapes["stages.0.0.conv.weight"][0],
            **pooled,
        }


def in_stage(name: str, places: Mapping[int, str]) -> str:
    """features.5.weight -> stages.1.0.conv.weight."""
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    place = places.get(int(match[1])) if match else None
    return f"{place}.{match[2]}" if match and place else name


# timm's names of Inception's blocks and of their branches, in our order; a name that ends in _ is
# followed by the number of the convolution, and by a letter for one of two in parallel
NARROW = ("branch1x1", "branch5x5_", "branch3x3dbl_", "branch_pool")
FACTORISED = ("branch1x1", "branch7x7_", "branch7x7dbl_", "branch_pool")
SPREAD = ("branch1x1", "branch3x3_", "branch3x3dbl_", "branch_pool")
INCEPTION = (
    ("5b", NARROW),
    ("5c", NARROW),
    ("5d", NARROW),
    ("6a", ("branch3x3", "branch3x3dbl_", "")),
    *((f"6{letter}", FACTORISED) for letter in "bcde"),
    ("7a", ("branch3x3_", "branch7x7x3_", "")),
    ("7b", SPREAD),
    ("7c", SPREAD),
)
STEM = {
    0: "Conv2d_1a_3x3",
    1: "Conv2d_2a_3x3",
    2: "Conv2d_2b_3x3",
    4: "Conv2d_3b_1x1",
    5: "Conv2d_4a_3x3",
}


def unit(theirs: str, block: int, place: str) -> Rules:
    """A convolution and its norm."""
    return within(
        f"{theirs}.",
        f"block_{block}/",
        convolution("conv", f"convolution_{place}"),
        batch_norm("bn", f"norm_{place}"),
    )


def inception_rules() -> Rules:
    """The rules of all blocks."""
    found = [rule for step, name in STEM.items() for rule in unit(name, 0, f"0_{step}")]
    for number, (block, names) in enumerate(INCEPTION, 1):
        for branch, steps in enumerate(BLOCKS[number]):
            for index, step in enumerate(steps):
                name = f"Mixed_{block}.{names[branch]}"
                if isinstance(step, tuple):
                    for fork in range(2):
                        place = f"{branch}_{index}_{fork}"
                        found += unit(f"{name}{index + 1}{'ab'[fork]}", number, place)
                elif step.channels:
                    count = index + 1 if name.endswith("_") else ""
                    found += unit(f"{name}{count}", number, f"{branch}_{index}")
    return tuple(found)


class TimmInception(Convolutional):
    """Inception-v3."""

    title = "timm InceptionV3"
    rules = within("", "model/image/", *inception_rules())

    def image(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """The width by the first convolution."""
        first = "Conv2d_1a_3x3.conv.weight"
        if first not in shapes:
            raise CheckpointError(f"{place}: lacks {first}")
        width = shapes[first][0]
        return {"kind": "inception_v3", "width": width, "pooled": 2048 * width // STEM_WIDTH}
