"""`nlvr2:FILE?root=images`: statements about two images, true or false (Suhr et al. 2019).

Lines {"identifier": "dev-850-0-0", "sentence", "label"}; those of the training split also have the
`directory` of their images. The images are dev-850-0-img0.png and dev-850-0-img1.png.

A sample has one image: both side by side, left and right, scaled to the lower of their heights,
stored as PNG. Released code for NLVR2 (METER, ALBEF) instead encodes two images with the statement
and joins two outputs, which no model here does. Metadata: `label`, the texts True and False,
`identifier`, and `left_image` and `right_image`, the names of the files.
"""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.layouts.documents import read_lines
from vlp_jax.data.layouts.records import Notes, RecordSource, Rows, split_layout
from vlp_jax.errors import DataError

LEFT, RIGHT = "left_image", "right_image"


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two images next to each other, scaled to the lower of their heights."""
    height = min(left.height, right.height)
    mode = "RGBA" if "RGBA" in (left.mode, right.mode) else "RGB"
    left, right = (scaled(image.convert(mode), height) for image in (left, right))
    both = Image.new(mode, (left.width + right.width, height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def scaled(image: Image.Image, height: int) -> Image.Image:
    """An image of this height and of its own shape."""
    width = max(1, round(image.width * height / image.height))
    return (
        image if image.height == height else image.resize((width, height), Image.Resampling.BICUBIC)
    )


class PairSource(RecordSource):
    """Rows with a left and a right image, which become one."""

    def described(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the names of both images as its image."""
        return {**row, "image": (row[LEFT], row[RIGHT])}

    def read_image(self, key: str, row: Mapping[str, Any]) -> tuple[bytes, str]:
        """Both images in a PNG, and the names of both."""
        halves = [
            decode(self.images.read(0, name, key)[0], f"{key}: {name}", ImagesConfig.maximum_pixels)
            for name in row["image"]
        ]
        file = io.BytesIO()
        side_by_side(*halves).save(file, "PNG", compress_level=1)
        return file.getvalue(), self.image_file(row)

    def image_file(self, row: Mapping[str, Any]) -> str:
        """The names of both files."""
        return "|".join(self.images.name(0, name) for name in row["image"])


def open_nlvr2(rest: str) -> PairSource:
    """The statements of FILE?root=...

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "nlvr2")

    def read(notes: Notes) -> Rows:
        for line in read_lines(path):
            identifier = line.text("identifier")
            pair = identifier.rpartition("-")[0]
            if not pair:
                raise DataError(f"{line}: {identifier!r} is not SPLIT-SET-PAIR-SENTENCE")
            folder = f"{line.get('directory')}/" if "directory" in line else ""
            images = {LEFT: f"{folder}{pair}-img0.png", RIGHT: f"{folder}{pair}-img1.png"}
            label = {"label": str(line.get("label"))} if "label" in line else {}
            sentence = line.text("sentence")
            yield identifier, {"sentence": sentence, **label, "identifier": identifier, **images}

    return PairSource(path, (), spec, options, read, "sentence")
