"""Evaluation pixels: the three resize rules, transparency, and the normalisation on the device."""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from PIL import Image

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.data.images.boxes import View

if TYPE_CHECKING:
    import jax

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesConfig(Section):
    """Conversion of an image to pixels. The size is the model's (`model.image.image_size`)."""

    # Resize the shorter side and crop the centre, resize both sides, or resize the longer side and
    # pad.
    resize: Literal["shortest_side_crop", "squash", "letterbox"] = "shortest_side_crop"
    # the cropped centre as a fraction of the sides to which the image is resized (timm's crop_pct)
    crop_fraction: float = between(1.0, 0.01, 1.0)
    # of half a pixel, where the surplus is odd: to the even number, as in torchvision, or down, as
    # in transformers
    crop_offset: Literal["round", "floor"] = "round"
    # training downscales JPEGs by a faster filter
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    # CLIP's, of values in [0, 1]
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = between((0.26862954, 0.26130258, 0.27577711), 1e-6)
    # composite: transparent pixels show the background colour. drop: their own, hidden colour, as
    # with Pillow's convert("RGB"), and so in the loaders of nearly all published recipes.
    transparency: Literal["composite", "drop"] = "composite"
    background: tuple[int, int, int] = (255, 255, 255)  # behind transparent pixels, sRGB
    crop_to_content: bool = False  # crop a transparent border first; the image stays square
    # left around the content, as a fraction of its side
    content_margin: float = between(0.0, 0.0, 1.0)
    # Larger images are rejected, not decoded: 8192x6144 takes up to 0.4 GB and 3 s of a core, in
    # each of `data.threads`.
    maximum_pixels: int = between(8192 * 6144, 1)


def evaluation_pixels(image: Image.Image, size: int, spec: ImagesConfig) -> np.ndarray:
    """The pixels for evaluation, [size, size, 3] uint8.

    Resize rules:
      shortest_side_crop: resizes the shorter side to `size`, rounds the new length of the other
        side down to whole pixels, and takes the centre (CLIP; open_clip's "shortest", torchvision's
        Resize and CenterCrop).
      squash: resizes both sides (SigLIP; open_clip's "squash").
      Either resizes to size / crop_fraction first where `crop_fraction` is below 1.
      letterbox: resizes the longer side and fills the rest with the background colour (open_clip's
        "longest").

    Transparency is removed first: composited over `background`, or dropped. For images of every
    mode, the pixels are exactly those of transformers' Pillow processors with
    transparency="composite" over white; with "drop" they are exactly those of open_clip's
    transforms on RGB images, which its loaders make ("pilrgb"). The CLIP processor of transformers
    crops as with crop_offset="floor"; big_vision differs, as it resizes in TensorFlow without
    antialiasing.

    Args:
      image: of mode RGB or RGBA.
      size: side in pixels.
      spec: preprocessing options.
    """
    image = crop_to_content(image, spec.content_margin) if spec.crop_to_content else image
    image = composite(without_transparency(image, spec), spec.background)
    shape, (left, top) = resized(image.size, size, spec)
    image = image if image.size == shape else image.resize(shape, RESAMPLING[spec.interpolation])
    if image.size != (size, size):
        if min(image.size) < size:
            image = image.convert("RGBA")  # so that the area which crop() adds is transparent
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(composite(image, spec.background))


def resized(
    shape: tuple[int, int], size: int, spec: ImagesConfig
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The geometry of evaluation for an image of `shape` (width, height).

    Returns: the shape to which the image is resized, and the corner (left, top) of the square of
      `size` in it.
    """
    width, height = shape
    # the small addend undoes the rounding of a fraction
    side = math.floor(size / spec.crop_fraction + 1e-6)
    if spec.resize == "shortest_side_crop":
        shape = (
            (side, side * height // width) if width <= height else (side * width // height, side)
        )
    elif spec.resize == "letterbox":
        scale = max(width, height) / size
        shape = max(1, round(width / scale)), max(1, round(height / scale))
    else:
        shape = side, side
    whole = round if spec.crop_offset == "round" else math.floor
    left, top = (
        whole((side - size) / 2) if side > size else -((size - side) // 2) for side in shape
    )
    return shape, (left, top)


def evaluation_view(image: Image.Image, size: int, spec: ImagesConfig) -> View:
    """The part of an image that `evaluation_pixels` shows."""
    left, top, right, bottom = (
        content_box(image, spec.content_margin) if spec.crop_to_content else (0, 0, *image.size)
    )
    sides = right - left, bottom - top
    shape, start = resized(sides, size, spec)
    scale = np.divide(sides, shape)
    begin = (left, top) + start * scale
    (left, top), (right, bottom) = begin, begin + size * scale
    return View(image.size, (left, top, right, bottom))


def without_transparency(image: Image.Image, spec: ImagesConfig) -> Image.Image:
    """`image` in mode RGB where `spec` drops transparency: transparent pixels then keep their own
    colours."""
    return image.convert("RGB") if spec.transparency == "drop" else image


def composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """`image` over one colour, in mode RGB."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def crop_to_content(image: Image.Image, margin: float) -> Image.Image:
    """The smallest centred square around what is not transparent, extended by `margin` of its side
    on each side.

    The image is returned unchanged where nothing is transparent, or everything is.
    """
    box = content_box(image, margin)
    return image if box == (0, 0, *image.size) else image.crop(box)


def content_box(image: Image.Image, margin: float) -> tuple[int, int, int, int]:
    """The part of an image that `crop_to_content` returns; the complete image where that is
    unchanged."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    box = alpha.getbbox() if alpha and alpha.getextrema() != (255, 255) else None
    if box is None:
        return 0, 0, *image.size
    left, top, right, bottom = box
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    side = math.ceil(side)
    x, y = round(x - side / 2), round(y - side / 2)
    return x, y, x + side, y + side


@overload
def normalise(
    pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray: ...
@overload
def normalise(
    pixels: "jax.Array", mean: tuple[float, ...], std: tuple[float, ...]
) -> "jax.Array": ...
def normalise(
    pixels: "np.ndarray | jax.Array", mean: tuple[float, ...], std: tuple[float, ...]
) -> "np.ndarray | jax.Array":
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std. Accepts NumPy and JAX arrays."""
    return (
        pixels.astype(np.float32) / np.float32(255) - np.asarray(mean, np.float32)
    ) / np.asarray(std, np.float32)
