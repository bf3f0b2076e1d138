"""Training's JPEGs, at the speed of libjpeg-turbo: the header first, then the crop at the size it is needed.

A picture twice, four or eight times as large as needed is decoded at that fraction of its size (by the DCT's low
frequencies, which costs less than decoding it whole). The crop then shrinks in a smoothed bilinear resize, which is as near
to Pillow's antialiased bicubic resize as Pillow's antialiased bilinear one is (about 44 dB on photographs), in a fraction of
the time: `benchmarks/image_decoding.py`. Whatever is not known here for certain is left to Pillow: `read_header` or
`decode_box` then gives None.
"""

import dataclasses
import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vlp_jax.data.samples import Reason, SampleError

cv2.setNumThreads(1)  # a row is one thread's work; the pipeline's threads and processes fill the cores

COLOURS = ("YCbCr", "Gray", "RGB")
EXIF, ORIENTATION = b"Exif\0\0", 0x0112
START_OF_SCAN, APPLICATION_1 = 0xDA, 0xE1
WITH_LENGTH = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))  # markers followed by a segment and its length
UPRIGHT = {  # by Exif orientation: views of a stored picture [H, W, 3] that are upright
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
    """What a JPEG says of itself: its upright shape in pixels, and the Exif orientation that it is stored in."""

    width: int
    height: int
    orientation: int


def read_header(data: bytes) -> Header | None:
    """None for what is no JPEG, is damaged, or has colours or an orientation that Pillow should see to."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    orientation = read_orientation(data)
    if colours not in COLOURS or orientation is None:
        return None
    return Header(height, width, orientation) if orientation >= 5 else Header(width, height, orientation)


def read_orientation(data: bytes) -> int | None:
    """The Exif orientation of a JPEG, 1 to 8, where Pillow would find it; None if that takes Pillow itself."""
    position, exif = 2, b""
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] in WITH_LENGTH:
        marker, length = data[position + 1], int.from_bytes(data[position + 2:position + 4])
        if marker == START_OF_SCAN:
            return orientation_of(exif) if exif else 1
        segment = data[position + 4:position + 2 + length] if marker == APPLICATION_1 else b""
        if segment.startswith(EXIF):
            exif += segment[len(EXIF):] if exif else segment
        elif b"Orientation" in segment:  # in XMP
            return None
        position += 2 + length
    return None


def orientation_of(exif: bytes) -> int:
    """The orientation in an Exif segment; 1, the picture as it is stored, where it is damaged or says nothing."""
    if b"\x01\x12" not in exif and b"\x12\x01" not in exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(ORIENTATION, 1)
    except Exception:  # of damaged Exif: SyntaxError, struct.error, ...
        return 1
    return orientation if orientation in UPRIGHT else 1


def decode_box(data: bytes, key: str, header: Header, box: tuple[float, float, float, float], size: int) -> np.ndarray | None:
    """`box` (left, top, right, bottom, inside the upright picture) at uint8 [size, size, 3]; None if Pillow should try.

    Raises: SampleError naming `key` for a picture that is cut off.
    """
    sides = box[2] - box[0], box[3] - box[1]
    factor = next((factor for factor in (8, 4, 2) if min(sides) >= factor * size), 1)
    stored = (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)
    at_least = (math.ceil(side / factor) if factor > 1 else 0 for side in stored)
    coarse = min(sides) >= 1.5 * size  # shrinking hides that chroma is not interpolated
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", False, coarse, *at_least)
    except ValueError as error:
        if "remature end" in str(error):  # Pillow would fill up with grey what is missing
            raise SampleError(Reason.DAMAGED_IMAGE, key, f"image cannot be decoded: {error}") from error
        return None
    pixels = UPRIGHT[header.orientation](pixels)
    left, top, right, bottom = (round(side / factor) for side in box)
    left, top = min(left, pixels.shape[1] - 1), min(top, pixels.shape[0] - 1)  # a box of less than a pixel is that pixel
    return resize(pixels[top:max(bottom, top + 1), left:max(right, left + 1)], size)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] -> [size, size, 3], antialiased: bilinear behind a smoothing filter of three taps. A side that shrinks
    by more than those can smooth is averaged over areas instead."""
    if pixels.strides[2] != 1 or not 0 < 3 * pixels.shape[1] <= pixels.strides[0]:  # turned views, which OpenCV cannot read
        pixels = np.ascontiguousarray(pixels)
    height, width = (size if side > LARGEST_SMOOTHED * size else side for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    across, down = smoothing(width / size), smoothing(height / size)
    if across or down:
        pixels = cv2.GaussianBlur(pixels, (3 if across else 1, 3 if down else 1), across, sigmaY=down)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


SMALLEST_SMOOTHED, LARGEST_SMOOTHED = 1.7, 2.6  # factors: below, a bilinear resize needs no smoothing; above, three taps are few


def smoothing(factor: float) -> float:
    """The standard deviation, in pixels, of the filter for a side that shrinks by `factor`; 0 for none. Its outer taps weigh
    0.28 (factor - 1.5) each, which was fitted to Pillow's bicubic resize of photographs."""
    if factor <= SMALLEST_SMOOTHED:
        return 0.0
    outer = 0.28 * (factor - 1.5)
    return math.sqrt(-0.5 / math.log(outer / (1 - 2 * outer)))
