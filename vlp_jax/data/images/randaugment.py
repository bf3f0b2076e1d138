"""RandAugment (Cubuk et al. 2020): a few operations drawn from fourteen, all at one magnitude.

Operations, their ranges and signs are those of torchvision's `RandAugment`, also with
nearest-neighbour interpolation.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section

Operation = Literal[
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
]
RANDAUGMENT = get_args(Operation)
BINS = 31
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugmentConfig(Section):
    """RandAugment (Cubuk et al. 2020), with torchvision's fourteen operations.

    Uncovered pixels show the background colour.
    """

    operations: int = between(0, 0)  # number drawn, applied one after the other; 0: off
    magnitude: int = between(9, 0, 30)  # of all operations, from weakest to strongest
    probability: float = between(1.0, 0.0, 1.0)  # of applying each drawn operation
    names: tuple[Operation, ...] = ()  # operations to draw from; empty: all fourteen


def affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    """An affine transform: output pixel (x, y) is the input at (a x + b y + c, d x + e y + f), and
    `fill` outside."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill
    )


def enhanced(kind: Callable) -> Callable:
    """The operation that applies an enhancer of Pillow with the factor 1 + magnitude."""
    return lambda image, magnitude, fill: kind(image).enhance(1.0 + magnitude)


# Name -> (operation on (image, magnitude, fill), its magnitudes from the weakest to the strongest,
# whether a sign is drawn)
OPERATIONS: dict[str, tuple[Callable, tuple[float, float], bool]] = {
    "identity": (lambda image, magnitude, fill: image, (0.0, 0.0), False),
    "shear_x": (
        lambda image, magnitude, fill: affine(image, (1, magnitude, 0, 0, 1, 0), fill),
        (0.0, 0.3),
        True,
    ),
    "shear_y": (
        lambda image, magnitude, fill: affine(image, (1, 0, 0, magnitude, 1, 0), fill),
        (0.0, 0.3),
        True,
    ),
    "translate_x": (
        lambda image, magnitude, fill: affine(
            image, (1, 0, -int(magnitude * image.width), 0, 1, 0), fill
        ),
        (0.0, 150 / 331),
        True,
    ),
    "translate_y": (
        lambda image, magnitude, fill: affine(
            image, (1, 0, 0, 0, 1, -int(magnitude * image.height)), fill
        ),
        (0.0, 150 / 331),
        True,
    ),
    "rotate": (
        lambda image, magnitude, fill: image.rotate(
            magnitude, Image.Resampling.NEAREST, fillcolor=fill
        ),
        (0.0, 30.0),
        True,
    ),
    "brightness": (enhanced(ImageEnhance.Brightness), (0.0, 0.9), True),
    "colour": (enhanced(ImageEnhance.Color), (0.0, 0.9), True),
    "contrast": (enhanced(ImageEnhance.Contrast), (0.0, 0.9), True),
    "sharpness": (enhanced(ImageEnhance.Sharpness), (0.0, 0.9), True),
    "posterize": (
        lambda image, magnitude, fill: ImageOps.posterize(image, 8 - round(magnitude)),
        (0.0, 4.0),
        False,
    ),
    "solarize": (
        lambda image, magnitude, fill: ImageOps.solarize(image, magnitude),
        (255.0, 0.0),
        False,
    ),
    "autocontrast": (
        lambda image, magnitude, fill: ImageOps.autocontrast(image),
        (0.0, 0.0),
        False,
    ),
    "equalize": (lambda image, magnitude, fill: ImageOps.equalize(image), (0.0, 0.0), False),
}
NAMES = tuple(OPERATIONS)


def apply(
    name: str, image: Image.Image, magnitude: int, negative: bool, fill: Colour
) -> Image.Image:
    """One operation on an RGB image.

    Args:
      name: name of the operation.
      image: the image.
      magnitude: 0 to 30, from the weakest to the strongest.
      negative: whether the sign of the amount is negative, where the operation has a sign.
      fill: colour of the parts that come from outside the image.
    """
    operation, (weakest, strongest), signed = OPERATIONS[name]
    amount = weakest + (strongest - weakest) * magnitude / (BINS - 1)
    return operation(image, -amount if signed and negative else amount, fill)


def randaugment(
    image: Image.Image, spec: RandAugmentConfig, fill: Colour, rng: np.random.Generator
) -> Image.Image:
    """`spec.operations` random operations on an RGB image, one after the other.

    Each is drawn from `spec.names`, or from all operations if there are none, and applied with the
    probability `spec.probability`.
    """
    names = spec.names or NAMES
    for _ in range(spec.operations):
        name, negative = names[rng.integers(len(names))], bool(rng.integers(2))
        if spec.probability == 1.0 or rng.random() < spec.probability:
            image = apply(name, image, spec.magnitude, negative, fill)
    return image
