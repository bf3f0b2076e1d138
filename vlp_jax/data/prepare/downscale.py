"""Downscaling of images before they are stored, for data sets with images larger than any model
needs."""

import io

from PIL import Image

from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig

JPEG_QUALITY = 95


def downscale_image(data: bytes, size: int, key: str, lossless: bool = False) -> bytes:
    """The image with a shorter side of `size` pixels and the same aspect; `data` itself if that
    side is not longer.

    Resampling is bicubic with antialiasing, Exif orientation is applied, and transparency is kept.
    A JPEG becomes a JPEG of quality 95, or a PNG if `lossless`; a WebP becomes a lossless WebP; all
    others become PNG. Colour profiles and other metadata are left out, because this package does
    not read them.

    Args:
      data: the encoded image.
      size: length of the shorter side in pixels.
      key: key of the sample in errors.
      lossless: whether a JPEG becomes a PNG.

    Raises:
      SampleError: if the image is damaged or has too many pixels.
    """
    image = decode(data, key, ImagesConfig.maximum_pixels)
    if min(image.size) <= size:
        return data
    scale = size / min(image.size)
    width, height = (
        size if side == min(image.size) else round(side * scale) for side in image.size
    )
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    small.info = {}
    encoded = io.BytesIO()
    if data.startswith(b"\xff\xd8\xff") and not lossless:
        small.save(encoded, "JPEG", quality=JPEG_QUALITY)
    elif data.startswith(b"RIFF"):
        small.save(encoded, "WEBP", lossless=True, exact=False)
    else:
        small.save(encoded, "PNG")
    return encoded.getvalue()
