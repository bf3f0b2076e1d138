"""The keys of `data.augmentation`."""

import dataclasses
import math
from typing import Literal

from vlp_jax.config.fields import between, section
from vlp_jax.config.section import Section
from vlp_jax.data.images.randaugment import RandAugmentConfig
from vlp_jax.data.images.transform import ImageTransformConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Section):
    """Random changes to a training image, in this order.

    All are off by default; evaluation never uses them.

    The crop is drawn by `area` and `ratio` or, where `area` is None, by `scale`, `aspect` and
    `shift`.
    """

    rotation: float = between(0.0, 0.0, 180.0)  # degrees, drawn from [-rotation, rotation]
    # random resized crop (Inception, torchvision): fraction of the image's area
    area: tuple[float, float] | None = None
    # width/height of a crop by area, drawn uniformly in its logarithm
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    # side of the crop relative to the image: below 1 zooms in, above 1 zooms out
    scale: tuple[float, float] = (1.0, 1.0)
    # log width/height ratio of the crop, drawn from [-aspect, aspect]
    aspect: float = between(0.0, 0.0, 1.0)
    shift: float = between(0.0, 0.0, 1.0)  # of the crop's centre, as a fraction of the image side
    # probability; keep 0 where captions mention left and right
    flip: float = between(0.0, 0.0, 1.0)
    # colour behind transparent pixels; fixed: images.background
    background: Literal["random", "fixed"] = "fixed"
    randaugment: RandAugmentConfig = section(RandAugmentConfig)
    # factor drawn from [1 - x, 1 + x]; likewise contrast and saturation
    brightness: float = between(0.0, 0.0, 1.0)
    contrast: float = between(0.0, 0.0, 1.0)  # about mid-grey
    saturation: float = between(0.0, 0.0, 1.0)
    hue: float = between(0.0, 0.0, 0.5)  # shift drawn from [-x, x] turns of the colour circle
    grayscale: float = between(0.0, 0.0, 1.0)  # probability
    # probability of a Gaussian blur, with std 0.1 to 2 pixels at size 224
    blur: float = between(0.0, 0.0, 1.0)
    erase: float = between(0.0, 0.0, 1.0)  # probability of erasing one random rectangle
    # of that rectangle, as a fraction of the image's
    erase_area: tuple[float, float] = (0.02, 0.25)
    # its height/width, drawn uniformly in its logarithm
    erase_ratio: tuple[float, float] = (math.exp(-1), math.e)
    # one random colour, one per pixel, or images.mean
    erase_fill: Literal["colour", "noise", "mean"] = "colour"
    # of your own, by name and in order, after all others
    transforms: dict[str, ImageTransformConfig] = section(dict)
