"""Evaluation's pixels: the three resize rules, transparency, and what the device does to uint8."""

import math

import numpy as np
from PIL import Image

from vlp_jax.config.schema import Images

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR,
              "lanczos": Image.Resampling.LANCZOS}


def evaluation_pixels(image: Image.Image, size: int, spec: Images) -> np.ndarray:
    """The pixels evaluation sees: uint8 [size, size, 3].

    `shortest_side_crop` resizes the shorter side to `size`, cuts the other's new length to whole pixels, and takes the
    centre (CLIP; open_clip's "shortest", torchvision's Resize and CenterCrop). `squash` resizes both sides (SigLIP;
    open_clip's "squash"). `letterbox` resizes the longer side and fills up with the background colour (open_clip's
    "longest"). Pixels of RGB pictures are those of open_clip and of transformers' Pillow processors, exactly; CLIP's of
    transformers cuts out one pixel further up or left where the surplus is odd. Two references differ by design:
    big_vision resizes in TensorFlow without antialiasing, and open_clip drops transparency where this shows `background`.
    """
    image = crop_to_content(image, spec.content_margin) if spec.crop_to_content else image
    width, height = image.size
    if spec.resize == "shortest_side_crop":
        shape = (size, size * height // width) if width <= height else (size * width // height, size)
    elif spec.resize == "letterbox":
        scale = max(width, height) / size
        shape = max(1, round(width / scale)), max(1, round(height / scale))
    else:
        shape = size, size
    image = image if image.size == shape else image.resize(shape, RESAMPLING[spec.interpolation])
    left, top = (round((side - size) / 2) if side > size else -((size - side) // 2) for side in image.size)
    if image.size != (size, size):
        if min(image.size) < size:
            image = image.convert("RGBA")  # what crop() adds outside is transparent then
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(composite(image, spec.background))


def composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """`image` over one colour, mode RGB."""
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def crop_to_content(image: Image.Image, margin: float) -> Image.Image:
    """The smallest centred square around what is not transparent, grown by `margin` of its side on each side; the
    image itself where nothing is transparent, or everything."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    box = alpha.getbbox() if alpha and alpha.getextrema() != (255, 255) else None
    if box is None:
        return image
    left, top, right, bottom = box
    side = max(right - left, bottom - top) * (1 + 2 * margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    side = math.ceil(side)
    x, y = round(x - side / 2), round(y - side / 2)
    return image.crop((x, y, x + side, y + side))


def normalise(pixels, mean: tuple[float, ...], std: tuple[float, ...]):
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std; takes NumPy and JAX arrays alike."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std
