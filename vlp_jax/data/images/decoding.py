"""From encoded bytes, arrays and Pillow images to an upright Pillow image of mode RGB or RGBA,
complete and exact.

All of them end in `finished`, so one image has the same pixels in every form. Transparency is kept
until a background colour is chosen. In training, JPEGs are decoded faster by `jpeg.py`.
"""

import contextlib
import io
import warnings
from collections.abc import Generator

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlp_jax.data.images.image_formats import NAMES, OPENED_AS, formats_of, refusal
from vlp_jax.data.images.pixel_modes import check_depth, from_array, raw_mode, to_rgb_or_rgba
from vlp_jax.data.samples import Reason, SampleError

ORIENTATION = 0x0112
TILE_SIDES = (322, 323)  # TIFF tags
UPRIGHT = {  # by Exif orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, key: str, maximum_pixels: int) -> Image.Image:
    """The image in `data`, upright, of mode RGB or RGBA; the first one of several.

    Args:
      data: an image in one of `image_formats.FORMATS`.
      key: key of the sample in errors.
      maximum_pixels: limit that is checked on the header, before anything is decoded.

    Raises:
      SampleError: if the bytes are no such image or are truncated, if the pixels have no known
        meaning, or if there are more than `maximum_pixels`.
    """
    with named_errors(key, data):
        return finished(open_image(data), key, maximum_pixels)


def open_image(data: bytes) -> Image.Image:
    """An opened image. Only its header has been read.

    Raises:
      Exception: whatever Pillow raises; `named_errors` converts it.
    """
    with warnings.catch_warnings():
        # Pillow warns about decompression bombs; `check_pixels` has its own limit
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=formats_of(data))


def convert_image(image: Image.Image, key: str, maximum_pixels: int) -> Image.Image:
    """A Pillow image, loaded or just opened, converted as `decode` converts that of its file.

    Raises:
      SampleError: as `decode`.
    """
    with named_errors(key):
        if not isinstance(image, Image.Image):
            raise SampleError(
                Reason.WRONG_TYPE,
                key,
                f"a {type(image).__name__} is no image; "
                "expected a Pillow image, a NumPy "
                "array, encoded bytes, or a path",
            )
        if image.format is not None and image.format not in OPENED_AS:
            raise SampleError(
                Reason.DAMAGED_IMAGE,
                key,
                f"image is {image.format}, which is not read; expected {NAMES}",
            )
        return finished(image, key, maximum_pixels)


def convert_array(array: np.ndarray, key: str, maximum_pixels: int) -> Image.Image:
    """The image of an array, as `pixel_modes.from_array` converts it.

    Raises:
      SampleError: as `decode`.
    """
    with named_errors(key):
        check_pixels(array.shape[:2][::-1], key, maximum_pixels)
        return from_array(array)


def finished(image: Image.Image, key: str, maximum_pixels: int) -> Image.Image:
    """An opened image, upright, of mode RGB or RGBA.

    Its size is checked before anything is decoded.
    """
    check_pixels(image.size, key, maximum_pixels)
    tile = [getattr(image, "tag_v2", {}).get(tag, 1) for tag in TILE_SIDES]
    # a TIFF decodes whole tiles, however small the image is
    check_pixels(tile, key, maximum_pixels)
    stored = raw_mode(image)
    check_depth(image)
    image.load()
    upright = UPRIGHT.get(orientation_of(image))
    converted = to_rgb_or_rgba(image, stored)
    return converted if upright is None else converted.transpose(upright)


def check_pixels(sides: tuple[int, ...] | list[int], key: str, maximum_pixels: int) -> None:
    """Checks the number of pixels.

    Raises:
      SampleError: with TOO_LARGE, if it is larger than `maximum_pixels`.
    """
    if len(sides) == 2 and sides[0] * sides[1] > maximum_pixels:
        raise SampleError(
            Reason.TOO_LARGE,
            key,
            f"has {sides[0]}x{sides[1]} pixels, more than "
            f"data.images.maximum_pixels={maximum_pixels}",
        )


def orientation_of(image: Image.Image) -> int:
    """The Exif orientation of a loaded image; 1, as stored, where it is damaged."""
    with contextlib.suppress(Exception):  # SyntaxError, struct.error, ...
        return image.getexif().get(ORIENTATION, 1)
    return 1


@contextlib.contextmanager
def named_errors(key: str, data: bytes = b"") -> Generator[None, None, None]:
    """Context that converts whatever Pillow raises to a SampleError with the key of the sample."""
    try:
        yield
    except SampleError:
        raise
    # its own message contains a memory address, which changes each time
    except UnidentifiedImageError as error:
        raise SampleError(Reason.DAMAGED_IMAGE, key, f"image {refusal(data)}") from error
    except Image.DecompressionBombError as error:
        raise SampleError(Reason.TOO_LARGE, key, str(error)) from error
    # decoders raise OSError, SyntaxError, RuntimeError, struct.error, NotImplementedError, ...
    except Exception as error:
        raise SampleError(Reason.DAMAGED_IMAGE, key, f"image cannot be decoded: {error}") from error
