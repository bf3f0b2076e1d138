"""Augmented pixels for training: the random changes of `Augmentation`, in its order."""

import math

import cv2
import numpy as np
from PIL import Image, ImageFilter

from vlp_jax.data.images import jpeg
from vlp_jax.data.images.boxes import View
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.cropping import crop_and_resize, inside, random_box
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import (
    ImagesConfig,
    composite,
    content_box,
    without_transparency,
)
from vlp_jax.data.images.randaugment import randaugment
from vlp_jax.data.images.transform import transformed
from vlp_jax.errors import ConfigError


def decode_and_augment(
    data: bytes,
    key: str,
    size: int,
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, View]:
    """Augmented pixels of an encoded image, and the part of the image that they show.

    A JPEG whose crop lies inside the image is decoded and resized by `jpeg`, at no more than the
    needed size, unless there is a rotation. Any other image is decoded by Pillow and goes through
    `training_pixels`.

    Args:
      data: the encoded image.
      key: key of the sample in errors.
      size: side S of the result in pixels.
      spec: preprocessing options.
      augmentation: random changes.
      rng: source of all draws.

    Returns: ([S, S, 3] uint8, the part of the image that they show, before rotation).

    Raises:
      SampleError: as `decode`.
    """
    header = None if augmentation.rotation else jpeg.read_header(data)
    if header is None or header.width * header.height > spec.maximum_pixels:
        return training_pixels(
            decode(data, key, spec.maximum_pixels), size, spec, augmentation, rng
        )
    shape = header.width, header.height
    box = random_box(shape, spec, augmentation, rng)
    pixels = jpeg.decode_box(data, key, header, box, size) if inside(box, shape) else None
    if pixels is None:
        pixels = crop_and_resize(decode(data, key, spec.maximum_pixels), box, size, spec)
    flipped = draw_flip(augmentation, rng)
    return change(pixels, flipped, spec, augmentation, rng), View(shape, box, flipped)


def training_pixels(
    image: Image.Image,
    size: int,
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, View]:
    """Augmented pixels of a decoded image, and the part that they show, as `decode_and_augment`
    returns them."""
    shape, whole = image.size, (0, 0, *image.size)
    content = content_box(image, spec.content_margin) if spec.crop_to_content else whole
    image = without_transparency(image if content == whole else image.crop(content), spec)
    if augmentation.background == "fixed":
        image = composite(image, spec.background)  # before anything is resized, as in evaluation
    if augmentation.rotation:
        angle = rng.uniform(-augmentation.rotation, augmentation.rotation)
        image = image.convert("RGBA").rotate(angle, Image.Resampling.BILINEAR)
    box = random_box(image.size, spec, augmentation, rng)
    flipped = draw_flip(augmentation, rng)
    pixels = change(crop_and_resize(image, box, size, spec), flipped, spec, augmentation, rng)
    left, top = content[:2]
    return pixels, View(shape, (box[0] + left, box[1] + top, box[2] + left, box[3] + top), flipped)


def draw_flip(augmentation: AugmentationConfig, rng: np.random.Generator) -> bool:
    """Whether an image is mirrored."""
    return augmentation.flip > 0 and rng.random() < augmentation.flip


def change(
    image: Image.Image | np.ndarray,
    flipped: bool,
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """The random changes after the crop.

    The image is converted between a Pillow image and an array only where a change needs it.

    Args:
      image: Pillow image of S x S pixels, mode RGB or RGBA, or [S, S, 3] uint8.
      flipped: whether it is mirrored.
      spec: preprocessing options.
      augmentation: random changes.
      rng: source of all draws.

    Returns: [S, S, 3], uint8.
    """
    if flipped:
        image = (
            cv2.flip(image, 1)
            if isinstance(image, np.ndarray)
            else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        )
    random_background = augmentation.background == "random"
    background = tuple(rng.integers(0, 256, 3).tolist()) if random_background else spec.background
    image = image if isinstance(image, np.ndarray) else composite(image, background)
    if augmentation.randaugment.operations:
        image = randaugment(as_picture(image), augmentation.randaugment, background, rng)
    matrix = random_colours(augmentation, rng)
    if matrix is not None:
        image = as_picture(image).convert("RGB", matrix)
    if augmentation.blur and rng.random() < augmentation.blur:
        radius = rng.uniform(0.1, 2.0) * as_picture(image).width / 224
        image = as_picture(image).filter(ImageFilter.GaussianBlur(radius))
    pixels = image if isinstance(image, np.ndarray) else np.array(image)
    if augmentation.erase and rng.random() < augmentation.erase:
        erase(pixels, spec, augmentation, rng)
    return transformed(pixels, augmentation.transforms, rng)


def as_picture(image: Image.Image | np.ndarray) -> Image.Image:
    """A Pillow image of pixels [H, W, 3] uint8; a Pillow image is returned as it is."""
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def random_colours(
    augmentation: AugmentationConfig, rng: np.random.Generator
) -> tuple[float, ...] | None:
    """One 3x4 matrix on RGB, row by row, for brightness, contrast (about mid-grey), saturation, hue
    and grayscale.

    Hue rotates the chroma plane of YIQ, and saturation scales it.

    Returns: 12 numbers, or None where no change of colour is configured.
    """
    if not (
        augmentation.brightness
        or augmentation.contrast
        or augmentation.saturation
        or augmentation.hue
        or augmentation.grayscale
    ):
        return None
    brightness, contrast, saturation = (
        rng.uniform(1 - x, 1 + x)
        for x in (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    )
    angle = 2 * math.pi * rng.uniform(-augmentation.hue, augmentation.hue)
    if rng.random() < augmentation.grayscale:
        saturation = 0.0
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    chroma = _RGB_FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _YIQ_FROM_RGB
    offset = 127.5 * (1 - contrast)
    return tuple(float(value) for row in brightness * contrast * chroma for value in (*row, offset))


_YIQ_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)


def erase(
    pixels: np.ndarray,
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> None:
    """Fills a random rectangle, in place (Zhong et al. 2020, algorithm 1).

    Its area is drawn uniformly. Its ratio is drawn log-uniformly from the ratios with which that
    area fits into the image. The paper draws both uniformly, and repeats the draw where they do not
    fit.

    Args:
      pixels: [S, S, 3], uint8, changed in place.
      spec: preprocessing options, for the mean colour.
      augmentation: area, ratio and fill of the rectangle.
      rng: source of all draws.
    """
    size = len(pixels)
    fraction = rng.uniform(*augmentation.erase_area)
    low, high = (
        max(augmentation.erase_ratio[0], fraction),
        min(augmentation.erase_ratio[1], 1 / fraction),
    )
    area, aspect = fraction * size * size, math.exp(rng.uniform(math.log(low), math.log(high)))
    height, width = (
        max(1, min(size, round(side)))
        for side in (math.sqrt(area * aspect), math.sqrt(area / aspect))
    )
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    if augmentation.erase_fill == "mean":
        fill = np.round(255 * np.array(spec.mean))
    else:
        fill = rng.integers(
            0, 256, 3 if augmentation.erase_fill == "colour" else (height, width, 3)
        )
    pixels[top : top + height, left : left + width] = fill


def check_augmentation(augmentation: AugmentationConfig, place: str = "data.augmentation") -> None:
    """Checks an augmentation.

    Args:
      augmentation: the section of the config.
      place: its key in messages.

    Raises:
      ConfigError: naming the key, for an empty range, for two kinds of crop at once, and for a
        rectangle to erase that is configured but never drawn, or that does not fit.
    """
    for name, highest in (
        ("scale", math.inf),
        ("area", 1.0),
        ("ratio", math.inf),
        ("erase_area", 1.0),
        ("erase_ratio", math.inf),
    ):
        low, high = getattr(augmentation, name) or (1.0, 1.0)
        if not 0 < low <= high <= highest:
            raise ConfigError(
                f"{place}.{name}: expected a range above 0, the lower end "
                f"first{', of fractions up to 1' if highest == 1 else ''}; got "
                f"{(low, high)}"
            )
    unused = [
        name
        for name, default in (("scale", (1.0, 1.0)), ("aspect", 0.0), ("shift", 0.0))
        if getattr(augmentation, name) != default
    ]
    if augmentation.area is not None and unused:
        raise ConfigError(
            f"{place}.area: with it the crop is drawn by area and ratio, and "
            f"{', '.join(unused)} would do nothing; set area=None, or leave them at "
            "their defaults"
        )
    check_erasing(augmentation, place)


def check_erasing(augmentation: AugmentationConfig, place: str) -> None:
    """Checks the options of `erase`.

    Args:
      augmentation: the section of the config.
      place: its key in messages.

    Raises:
      ConfigError: for an option without effect, or a rectangle that does not fit into any image.
    """
    default = AugmentationConfig()
    for name in ("erase_area", "erase_ratio", "erase_fill"):
        if not augmentation.erase and getattr(augmentation, name) != getattr(default, name):
            raise ConfigError(
                f"{place}.{name}: has no effect with {place}.erase=0, the probability of erasing"
            )
    largest, (low, high) = augmentation.erase_area[1], augmentation.erase_ratio
    if low * largest > 1 or high < largest:
        raise ConfigError(
            f"{place}.erase_ratio: with no height/width in {low, high} a rectangle "
            f"of {largest} of the area fits into the square image; one of "
            f"{1 / low if low > 1 else high:.3g} does"
        )
