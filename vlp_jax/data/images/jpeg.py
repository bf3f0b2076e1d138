"""Fast decoding of JPEGs in training with libjpeg-turbo: first the header, then the crop at the
needed size.

An image two, four or eight times as large as needed is decoded at that fraction of its size (from
the low frequencies of the DCT, which is cheaper than full decoding). The crop is then reduced by a
smoothed bilinear resize. Its result is as near to Pillow's antialiased bicubic resize as Pillow's
antialiased bilinear one is (about 44 dB on photographs), in a fraction of the time:
`benchmarks/image_decoding.py`. Cases that this module does not handle with certainty are left to
Pillow: `read_header` or `decode_box` then returns None.
"""

import dataclasses
import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vlp_jax.data.samples import Reason, SampleError

cv2.setNumThreads(1)  # one thread makes a row; the pipeline's threads and processes use all cores

COLOURS = ("YCbCr", "Gray", "RGB")
EXIF, ORIENTATION = b"Exif\0\0", 0x0112
START_OF_SCAN, APPLICATION_1 = 0xDA, 0xE1
# markers followed by a segment and its length
WITH_LENGTH = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
UPRIGHT = {  # by Exif orientation: upright views of a stored image [H, W, 3]
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a JPEG: its upright width and height in pixels, and the Exif orientation in which
    it is stored."""

    width: int
    height: int
    orientation: int


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG; None if it is no JPEG, is damaged, or has colours or an orientation
    that need Pillow."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    orientation, height, width = read_orientation(data), int(found_height), int(found_width)
    if colours not in COLOURS or orientation is None:
        return None
    return (
        Header(height, width, orientation)
        if orientation >= 5
        else Header(width, height, orientation)
    )


def read_orientation(data: bytes) -> int | None:
    """The Exif orientation of a JPEG, 1 to 8, as Pillow would find it; None if only Pillow can find
    it."""
    position, exif = 2, b""
    while (
        position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] in WITH_LENGTH
    ):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if marker == START_OF_SCAN:
            return orientation_of(exif) if exif else 1
        segment = data[position + 4 : position + 2 + length] if marker == APPLICATION_1 else b""
        if segment.startswith(EXIF):
            exif += segment[len(EXIF) :] if exif else segment
        elif b"Orientation" in segment:  # an orientation in XMP
            return None
        position += 2 + length
    return None


def orientation_of(exif: bytes) -> int:
    """The orientation in an Exif segment; 1, the image as stored, where it is damaged or has
    none."""
    if b"\x01\x12" not in exif and b"\x12\x01" not in exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ORIENTATION, 1)
    except Exception:  # damaged Exif raises SyntaxError, struct.error, ...
        return 1
    return orientation if orientation in UPRIGHT else 1


def decode_box(
    data: bytes, key: str, header: Header, box: tuple[float, float, float, float], size: int
) -> np.ndarray | None:
    """The pixels of a crop, resized.

    Args:
      data: the JPEG.
      key: key of the sample in errors.
      header: its header.
      box: (left, top, right, bottom) inside the upright image.
      size: side S of the result in pixels.

    Returns: [S, S, 3], uint8; None if Pillow should decode the image.

    Raises:
      SampleError: if the image is truncated.
    """
    sides = box[2] - box[0], box[3] - box[1]
    factor = next((factor for factor in (8, 4, 2) if min(sides) >= factor * size), 1)
    stored = (
        (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)
    )
    height, width = (math.ceil(side / factor) if factor > 1 else 0 for side in stored)  # at least
    coarse = min(sides) >= 1.5 * size  # the reduction hides that chroma is not interpolated
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", False, coarse, height, width)
    except ValueError as error:
        if "remature end" in str(error):  # Pillow would fill the missing part with grey
            raise SampleError(
                Reason.DAMAGED_IMAGE, key, f"image cannot be decoded: {error}"
            ) from error
        return None
    pixels = UPRIGHT[header.orientation](pixels)
    left, top, right, bottom = (round(side / factor) for side in box)
    # a box smaller than a pixel becomes that pixel
    left, top = min(left, pixels.shape[1] - 1), min(top, pixels.shape[0] - 1)
    return resize(pixels[top : max(bottom, top + 1), left : max(right, left + 1)], size)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Antialiased resize: bilinear after a smoothing filter of three taps.

    A side that is reduced by more than three taps can smooth is first reduced by averaging over
    areas.

    Args:
      pixels: [H, W, 3], uint8.
      size: side S of the result.

    Returns: [S, S, 3], uint8.
    """
    # OpenCV cannot read rotated or mirrored views
    if pixels.strides[2] != 1 or not 0 < 3 * pixels.shape[1] <= pixels.strides[0]:
        pixels = np.ascontiguousarray(pixels)
    height, width = (size if side > LARGEST_SMOOTHED * size else side for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    across, down = smoothing(width / size), smoothing(height / size)
    if across or down:
        pixels = cv2.GaussianBlur(
            pixels, (3 if across else 1, 3 if down else 1), across, sigmaY=down
        )
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


# factors: a smaller one needs no smoothing, a larger one more than three taps
SMALLEST_SMOOTHED, LARGEST_SMOOTHED = 1.7, 2.6


def smoothing(factor: float) -> float:
    """Standard deviation, in pixels, of the filter for a side that is reduced by `factor`; 0 for no
    filter.

    Its outer taps have the weight 0.28 (factor - 1.5) each, which was fitted to Pillow's bicubic
    resize of photographs.
    """
    if factor <= SMALLEST_SMOOTHED:
        return 0.0
    outer = 0.28 * (factor - 1.5)
    return math.sqrt(-0.5 / math.log(outer / (1 - 2 * outer)))
