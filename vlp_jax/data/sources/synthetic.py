"""`synthetic:N`: N generated samples for benchmarks, JPEG images with captions, always the same.

Options: `height` and `width` of the images (375 and 500) and `caption_words` (8). The first word of
a caption is the number of the sample. An image is one of 16 smooth random images with some noise,
encoded at one of four qualities. The number of the sample is in a comment of the JPEG file, so that
no two files are equal. A process encodes each of the 16 images once; later reads cost little. The
bytes may differ between versions of Pillow.
"""

import functools
import io

import numpy as np
from PIL import Image

from vlp_jax.data.samples import Sample, check_index, fingerprint_of
from vlp_jax.data.sources.spec import split_options, whole_number
from vlp_jax.errors import DataError

PICTURES, QUALITIES = 16, (75, 85, 90, 95)
WORDS = [
    "river",
    "stone",
    "cloud",
    "apple",
    "window",
    "garden",
    "paper",
    "engine",
    "silver",
    "forest",
    "candle",
    "bridge",
    "mirror",
    "winter",
    "violin",
    "ladder",
    "harbour",
    "pepper",
    "feather",
    "castle",
]


@functools.lru_cache(maxsize=PICTURES * 4)
def picture(number: int, height: int, width: int) -> bytes:
    """One of the images as a JPEG file."""
    draw = np.random.default_rng([number, height, width])
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse, np.int16) + draw.integers(-8, 9, (height, width, 3), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=QUALITIES[number % len(QUALITIES)]
    )
    return file.getvalue()


class SyntheticSource:
    """Samples 0 to count - 1, generated when they are read."""

    def __init__(self, count: int, height: int, width: int, caption_words: int, spec: str):
        self.spec, self.count, self.height, self.width, self.caption_words = (
            spec,
            count,
            height,
            width,
            caption_words,
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, self.count)
        number = f"{index:08d}"
        comment = number.encode()
        start, rest = (data := picture(index % PICTURES, self.height, self.width))[:2], data[2:]
        image = start + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + rest
        drawn = np.random.default_rng(index).integers(len(WORDS), size=self.caption_words - 1)
        return Sample(number, image, (" ".join([number, *(WORDS[word] for word in drawn)]),), {})

    def fingerprint(self) -> str:
        """Hash of the number of samples, the size of their images and the number of words in their
        captions."""
        return fingerprint_of("synthetic", self.count, self.height, self.width, self.caption_words)


def open_synthetic(rest: str) -> SyntheticSource:
    """The samples of N?height=..&width=..&caption_words=...

    Raises:
      DataError: if a value is not a whole number from 1 on, or if an image is too large for JPEG.
    """
    spec = f"synthetic:{rest}"
    count, options = split_options(rest, "synthetic", ("height", "width", "caption_words"))
    if not count.isascii() or not count.isdigit() or int(count) < 1:
        raise DataError(f"{spec}: {count!r} is not a number of samples")
    sizes = (
        whole_number(options, name, default, spec)
        for name, default in (("height", 375), ("width", 500))
    )
    height, width = sizes
    if max(height, width) > 65_500:
        raise DataError(f"{spec}: a JPEG file has at most 65,500 pixels a side")
    return SyntheticSource(
        int(count), height, width, whole_number(options, "caption_words", 8, spec), spec
    )
