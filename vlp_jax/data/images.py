"""From encoded bytes to uint8 pixels: decoding, the evaluation resize rules, and training's random changes.

Everything works on Pillow images of mode RGB or RGBA, so that transparency survives until the colour behind it is
chosen; the transform's last step composites.
"""

import contextlib
import io
import math
import warnings

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from vlp_jax.config.schema import Augmentation, Images
from vlp_jax.data.samples import Reason, SampleError

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR,
              "lanczos": Image.Resampling.LANCZOS}


def decode(data: bytes, key: str, maximum_pixels: int) -> Image.Image:
    """The picture in `data` (PNG, JPEG, WebP, GIF, ...), upright, of mode RGB or RGBA.

    Raises: SampleError naming `key` for bytes that are no image, are cut off, or hold more than `maximum_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of pixel bombs; the cap below is ours
            image = Image.open(io.BytesIO(data), formats=format_of(data))
        if image.width * image.height > maximum_pixels:
            raise SampleError(Reason.TOO_LARGE, key, f"has {image.width}x{image.height} pixels, "
                              f"more than data.images.maximum_pixels={maximum_pixels}")
        image.load()
        with contextlib.suppress(Exception):  # of damaged Exif: the picture is shown as it is stored
            if image.getexif().get(0x0112, 1) != 1:
                image = ImageOps.exif_transpose(image)
        return to_rgb_or_rgba(image)
    except SampleError:
        raise
    except UnidentifiedImageError as error:  # its own message names an object in memory, another one each time
        raise SampleError(Reason.DAMAGED_IMAGE, key, "image is of no format that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise SampleError(Reason.TOO_LARGE, key, str(error)) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, RuntimeError, struct.error, NotImplementedError, ...
        raise SampleError(Reason.DAMAGED_IMAGE, key, f"image cannot be decoded: {error}") from error


def format_of(data: bytes) -> tuple[str] | None:
    """The format of the commonest files by their first bytes, so that Pillow need not try one after another; None of
    all others."""
    if data.startswith(b"\xff\xd8\xff"):
        return ("JPEG",)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("PNG",)
    return ("WEBP",) if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """Palettes, greys, CMYK and 16-bit greys as RGB; RGBA where anything may be transparent."""
    if image.mode == "RGBA" or image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    transparent = image.mode in ("LA", "PA", "La") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def evaluation_pixels(image: Image.Image, size: int, spec: Images) -> np.ndarray:
    """The pixels evaluation sees: uint8 [size, size, 3].

    `shortest_side_crop` resizes the shorter side to `size` and cuts out the centre (CLIP); `squash` resizes both sides
    (SigLIP); `letterbox` resizes the longer side and fills up with the background colour.
    """
    image = crop_to_content(image, spec.content_margin) if spec.crop_to_content else image
    width, height = image.size
    if spec.resize == "shortest_side_crop":
        shape = (size, size * height // width) if width <= height else (size * width // height, size)
    elif spec.resize == "letterbox":
        scale = size / max(width, height)
        shape = max(1, round(width * scale)), max(1, round(height * scale))
    else:
        shape = size, size
    image = image if image.size == shape else image.resize(shape, RESAMPLING[spec.interpolation])
    left, top = (round((side - size) / 2) for side in image.size)
    if image.size != (size, size):
        if min(image.size) < size:
            image = image.convert("RGBA")  # what crop() adds outside is transparent then
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(composite(image, spec.background))


def training_pixels(image: Image.Image, size: int, spec: Images, augmentation: Augmentation,
                    rng: np.random.Generator) -> np.ndarray:
    """Randomly changed pixels: uint8 [size, size, 3]; the changes are those of `Augmentation`, in its order."""
    image = crop_to_content(image, spec.content_margin) if spec.crop_to_content else image
    if augmentation.rotation:
        angle = rng.uniform(-augmentation.rotation, augmentation.rotation)
        image = image.convert("RGBA").rotate(angle, Image.Resampling.BILINEAR)
    box = random_crop(image.size, spec, augmentation, rng)
    image = crop_and_resize(image, box, size, spec)
    if augmentation.flip and rng.random() < augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    random_background = augmentation.background == "random"
    image = composite(image, tuple(rng.integers(0, 256, 3).tolist()) if random_background else spec.background)
    matrix = random_colours(augmentation, rng)
    if matrix is not None:
        image = image.convert("RGB", matrix)
    if augmentation.blur and rng.random() < augmentation.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0) * size / 224 * 2))
    pixels = np.array(image)
    if augmentation.erase and rng.random() < augmentation.erase:
        erase(pixels, rng)
    return pixels


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


def random_crop(shape: tuple[int, int], spec: Images, augmentation: Augmentation,
                rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in pixels, possibly reaching outside the picture.

    Its sides are those the resize rule would take, times a random scale and aspect; the smaller of crop and picture
    lies anywhere inside the larger, and a random shift comes on top.
    """
    width, height = shape
    base = {"shortest_side_crop": (min(shape),) * 2, "letterbox": (max(shape),) * 2, "squash": shape}[spec.resize]
    scale, aspect = rng.uniform(*augmentation.scale), math.exp(rng.uniform(-augmentation.aspect, augmentation.aspect) / 2)
    sides = base[0] * scale * aspect, base[1] * scale / aspect
    shifts = rng.uniform(-augmentation.shift, augmentation.shift, 2)
    left, top = (rng.uniform(min(0.0, full - side), max(0.0, full - side)) + shift * full
                 for full, side, shift in zip((width, height), sides, shifts, strict=True))
    return left, top, left + sides[0], top + sides[1]


def crop_and_resize(image: Image.Image, box: tuple[float, float, float, float], size: int, spec: Images) -> Image.Image:
    """`box` of the picture at [size, size]; what lies outside the picture is transparent."""
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > image.width or bottom > image.height:
        x, y = math.floor(min(left, 0)), math.floor(min(top, 0))
        image = image.convert("RGBA").crop((x, y, math.ceil(max(right, image.width)), math.ceil(max(bottom, image.height))))
        left, top, right, bottom = left - x, top - y, right - x, bottom - y
    return image.resize((size, size), RESAMPLING[spec.interpolation], box=(left, top, right, bottom))


def random_colours(augmentation: Augmentation, rng: np.random.Generator) -> tuple[float, ...] | None:
    """One 3x4 matrix on RGB that holds brightness, contrast (about mid-grey), saturation, hue and grayscale, row by
    row; None where nothing is asked for. Hue turns the chroma plane of YIQ; saturation scales it."""
    if not (augmentation.brightness or augmentation.contrast or augmentation.saturation or augmentation.hue
            or augmentation.grayscale):
        return None
    brightness, contrast, saturation = (
        rng.uniform(1 - x, 1 + x) for x in (augmentation.brightness, augmentation.contrast, augmentation.saturation))
    angle = 2 * math.pi * rng.uniform(-augmentation.hue, augmentation.hue)
    if rng.random() < augmentation.grayscale:
        saturation = 0.0
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    chroma = _RGB_FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _YIQ_FROM_RGB
    offset = 127.5 * (1 - contrast)
    return tuple(float(value) for row in brightness * contrast * chroma for value in (*row, offset))


_YIQ_FROM_RGB = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)


def erase(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Paints a random rectangle of 2% to 25% of the area with one random colour, in place (Zhong et al. 2020)."""
    size = len(pixels)
    area, aspect = rng.uniform(0.02, 0.25) * size * size, math.exp(rng.uniform(-1.0, 1.0))
    height, width = (max(1, min(size, round(side))) for side in (math.sqrt(area * aspect), math.sqrt(area / aspect)))
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    pixels[top:top + height, left:left + width] = rng.integers(0, 256, 3)


def normalise(pixels, mean: tuple[float, ...], std: tuple[float, ...]):
    """uint8 [..., 3] -> float32 (x / 255 - mean) / std; takes NumPy and JAX arrays alike."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


