"""Conversion of every Pillow mode, and of arrays, to RGB or RGBA with 8 bits a channel.

Greys of 16 bits keep their upper 8 bits, as in libpng's `png_set_strip_16` and in Pillow's 16-bit
RGB. Floating point is in [0, 1], the convention of scikit-image and of torchvision. Integers of 32
bits have no convention, and are rejected.
"""

import re

import numpy as np
from PIL import Image, ImageFile

TRANSPARENT = ("RGBA", "LA", "PA")
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
HOLD_SIXTEEN = ("PNG", "PPM", "JPEG2000")  # formats in which mode I has 16 bits in a wider integer
# modes that Pillow converts correctly
CONVERTED = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", *TRANSPARENT)
# raw modes in which Pillow widens the values, but not the transparent value
STORED_BITS = {"L;2": 2, "L;4": 4, "I;12": 12}
# Start of a JPEG 2000 codestream (ISO/IEC 15444-1, A.5.1): SOC, SIZ, 36 bytes, the number of
# channels, three bytes for each of them
CODESTREAM = re.compile(rb"\xff\x4f\xff\x51.{36}(..)(.{3,12})", re.DOTALL)
LONGEST_HEADER = 1 << 20  # bytes before the codestream: an ICC profile, a palette
PHOTOMETRIC, BITS_PER_SAMPLE = 262, 258  # TIFF tags


def raw_mode(image: Image.Image) -> str:
    """How the pixels of an image that is not loaded yet are stored; "" for a loaded image."""
    tiles = getattr(image, "tile", None)
    given = tiles[0][3] if tiles else ""
    given = given[0] if isinstance(given, tuple) and given else given
    return given if isinstance(given, str) else ""


def check_depth(image: Image.Image) -> None:
    """Checks the depth of a JPEG 2000 image that is not loaded yet.

    Pillow reduces channels of more than 8 bits to 8 and rounds up, so that the brightest values
    become black.

    Raises:
      ValueError: if it has several channels and more than 8 bits.
    """
    if image.format != "JPEG2000" or image.mode in ("L", *SIXTEEN_BITS):
        return
    if not isinstance(image, ImageFile.ImageFile) or image.fp is None or not image.tile:
        return
    start, place = image.fp.tell(), image.tile[0][2]
    image.fp.seek(place)
    found = CODESTREAM.search(image.fp.read(LONGEST_HEADER))
    image.fp.seek(start)
    depths = found[2][::3][: int.from_bytes(found[1], "big")] if found else b""
    if any((depth & 0x7F) + 1 > 8 for depth in depths):
        raise ValueError(
            "JPEG 2000 of several channels is read with 8 bits a channel only; save "
            "it with 8 bits, or as PNG"
        )


def to_rgb_or_rgba(image: Image.Image, stored: str = "") -> Image.Image:
    """The image as RGBA if any pixel may be transparent, otherwise as RGB.

    Args:
      image: a loaded image.
      stored: `raw_mode` of the image before it was loaded.

    Raises:
      ValueError: if its pixels have no known meaning.
    """
    transparency = image.info.get("transparency")
    if image.mode == "RGBA" or image.mode == "RGB" and transparency is None:
        return image
    if image.mode in SIXTEEN_BITS or image.mode in ("I", "F"):
        return from_grey(image, stored)
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    elif image.mode not in CONVERTED:
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, which is not read")
    if transparency is None or image.mode in TRANSPARENT:
        return image.convert("RGBA" if image.mode in TRANSPARENT else "RGB")
    if isinstance(transparency, tuple) and (stored == "RGB;16B" or max(transparency) > 255):
        raise ValueError(
            "16-bit RGB with one transparent colour is not read; save it with an alpha channel"
        )
    if stored in STORED_BITS and isinstance(transparency, int):
        image = image.copy()
        image.info["transparency"] = transparency * 255 // (2 ** STORED_BITS[stored] - 1)
    return image.convert("RGBA")


def from_grey(image: Image.Image, stored: str) -> Image.Image:
    """`to_rgb_or_rgba` for greys with more than 8 bits."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        grey = from_fractions(values)
    elif image.mode == "I":
        if image.format not in HOLD_SIXTEEN:
            raise ValueError(
                "its pixels are whole numbers of 32 bits, whose range is unknown; "
                "save it with 8 or 16 bits"
            )
        grey = (values >> 8).clip(0, 255).astype(np.uint8)
    else:
        twelve = stored == "I;12" or tags.get(BITS_PER_SAMPLE) in (12, (12,))
        grey = (values >> (4 if twelve else 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero; Pillow inverts only 8 bits and fewer
        grey = 255 - grey
    transparency = image.info.get("transparency")
    if not isinstance(transparency, int):
        return Image.fromarray(grey).convert("RGB")
    alpha = np.where(values == transparency, 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey, alpha], axis=-1))


def from_fractions(values: np.ndarray) -> np.ndarray:
    """Floating point in [0, 1] as uint8.

    Raises:
      ValueError: if a value is outside this range or not finite.
    """
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
        raise ValueError(
            f"its pixels are floating point between {low:g} and {high:g}; expected 0 "
            "to 1, or save it with 8 bits"
        )
    return np.round(255.0 * values.astype(np.float64)).astype(np.uint8)


def from_array(array: np.ndarray) -> Image.Image:
    """An RGB or RGBA image of an array.

    Args:
      array: [H, W] or [H, W, C], uint8, uint16, bool, or floating point in [0, 1]. C = 1 is grey, 2
        grey and alpha, 3 RGB, 4 RGBA.

    Raises:
      ValueError: if it has another shape, dtype or range.
    """
    if (
        array.ndim not in (2, 3)
        or array.ndim == 3
        and array.shape[2] not in (1, 2, 3, 4)
        or not array.size
    ):
        raise ValueError(
            f"an array of shape {array.shape} is no image; expected [H, W], or [H, "
            "W, C] with C from 1 to 4"
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = from_fractions(array)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"an array of {array.dtype} is no image; expected uint8, uint16, bool, "
            "or floating point in [0, 1]"
        )
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return to_rgb_or_rgba(Image.fromarray(np.ascontiguousarray(array)))
