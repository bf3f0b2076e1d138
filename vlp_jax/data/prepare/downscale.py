"""Pictures made smaller before they are stored, for data sets whose pictures are larger than any model wants them."""

import io

from PIL import Image

from vlp_jax.config.schema import Images
from vlp_jax.data.images.decoding import decode

JPEG_QUALITY = 95


def downscale_image(data: bytes, size: int, key: str, lossless: bool = False) -> bytes:
    """The picture with its shorter side at `size` pixels and its aspect kept, or `data` itself where it is no longer.

    Resampling is bicubic with antialiasing, Exif orientation is applied, transparency stays. A JPEG becomes a JPEG of
    quality 95, or with `lossless` a PNG; a WebP a lossless WebP; all others PNG. Colour profiles and other metadata are
    left out, as nothing here reads them. Raises: SampleError for a picture that is damaged or has too many pixels.
    """
    image = decode(data, key, Images.maximum_pixels)
    if min(image.size) <= size:
        return data
    scale = size / min(image.size)
    shape = tuple(size if side == min(image.size) else round(side * scale) for side in image.size)
    small = image.resize(shape, Image.Resampling.BICUBIC)
    small.info = {}
    encoded = io.BytesIO()
    if data.startswith(b"\xff\xd8\xff") and not lossless:
        small.save(encoded, "JPEG", quality=JPEG_QUALITY)
    elif data.startswith(b"RIFF"):
        small.save(encoded, "WEBP", lossless=True, exact=False)
    else:
        small.save(encoded, "PNG")
    return encoded.getvalue()
