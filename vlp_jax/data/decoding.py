"""From encoded bytes to an upright Pillow image of mode RGB or RGBA: whatever Pillow reads, whole and exact.

Transparency survives until the colour behind it is chosen. Training's JPEGs take the faster way of `jpeg.py`.
"""

import contextlib
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vlp_jax.data.samples import Reason, SampleError


def decode(data: bytes, key: str, maximum_pixels: int) -> Image.Image:
    """The picture in `data` (PNG, JPEG, WebP, GIF, ...), upright, of mode RGB or RGBA.

    Raises: SampleError naming `key` for bytes that are no image, are cut off, or hold more than `maximum_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of pixel bombs; the cap below is ours
            image = Image.open(io.BytesIO(data), formats=format_of(data))
        if image.width * image.height > maximum_pixels:  # nothing is decoded yet
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
