"""The part of an image that training uses: the two random crops, and the resize of a crop with
Pillow."""

import math

import numpy as np
from PIL import Image

from vlp_jax.data.images.boxes import Box
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import RESAMPLING, ImagesConfig


def random_box(
    shape: tuple[int, int],
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> Box:
    """A random crop of an image of `shape` (width, height)."""
    if augmentation.area is None:
        return random_crop(shape, spec, augmentation, rng)
    return random_resized_crop(shape, augmentation.area, augmentation.ratio, rng)


def random_resized_crop(
    shape: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """Inception's crop (Szegedy et al. 2015), drawn as in torchvision's RandomResizedCrop.

    If ten draws do not fit, the result is the largest centred part with an allowed ratio.

    Args:
      shape: (width, height) of the image.
      area: range of the crop's fraction of the image area, drawn uniformly.
      ratio: range of width over height, drawn log-uniformly.
      rng: source of all draws.

    Returns: a box of whole pixels inside the image.
    """
    full_width, full_height = shape
    low, high = math.log(ratio[0]), math.log(ratio[1])
    # one call: each costs microseconds
    for area_draw, ratio_draw, left_draw, top_draw in rng.random((10, 4)).tolist():
        pixels = full_width * full_height * (area[0] + (area[1] - area[0]) * area_draw)
        aspect = math.exp(low + (high - low) * ratio_draw)
        width, height = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < width <= full_width and 0 < height <= full_height:
            left, top = (
                int((full_width - width + 1) * left_draw),
                int((full_height - height + 1) * top_draw),
            )
            return left, top, left + width, top + height
    width = max(1, min(full_width, round(full_height * ratio[1])))
    height = max(1, min(full_height, round(full_width / ratio[0])))
    left, top = (full_width - width) // 2, (full_height - height) // 2
    return left, top, left + width, top + height


def inside(box: Box, shape: tuple[int, int]) -> bool:
    """Whether the box lies inside an image of `shape` (width, height), up to rounding."""
    return min(box[:2]) > -1e-6 and box[2] < shape[0] + 1e-6 and box[3] < shape[1] + 1e-6


def random_crop(
    shape: tuple[int, int],
    spec: ImagesConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
) -> Box:
    """A crop drawn by `scale`, `aspect` and `shift`. It may extend beyond the image.

    Its sides are those of the resize rule, times a random scale and aspect. The smaller of crop and
    image lies anywhere inside the larger one, and a random shift is added.
    """
    width, height = shape
    base = {
        "shortest_side_crop": (min(shape),) * 2,
        "letterbox": (max(shape),) * 2,
        "squash": shape,
    }[spec.resize]
    scale, aspect = (
        rng.uniform(*augmentation.scale),
        math.exp(rng.uniform(-augmentation.aspect, augmentation.aspect) / 2),
    )
    sides = base[0] * scale * aspect, base[1] * scale / aspect
    shifts = rng.uniform(-augmentation.shift, augmentation.shift, 2)
    left, top = (
        rng.uniform(min(0.0, full - side), max(0.0, full - side)) + shift * full
        for full, side, shift in zip((width, height), sides, shifts, strict=True)
    )
    return left, top, left + sides[0], top + sides[1]


def crop_and_resize(image: Image.Image, box: Box, size: int, spec: ImagesConfig) -> Image.Image:
    """`box` of the image, resized to `size` x `size` pixels.

    Parts outside the image are transparent.
    """
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > image.width or bottom > image.height:
        x, y = math.floor(min(left, 0)), math.floor(min(top, 0))
        image = image.convert("RGBA").crop(
            (x, y, math.ceil(max(right, image.width)), math.ceil(max(bottom, image.height)))
        )
        left, top, right, bottom = left - x, top - y, right - x, bottom - y
    return image.resize(
        (size, size), RESAMPLING[spec.interpolation], box=(left, top, right, bottom)
    )
