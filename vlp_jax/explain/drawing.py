"""Maps drawn over images, and images with titles on one sheet."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

# red, green and blue from the lowest to the highest value, in even steps: dark blue to yellow
COLOURS = np.array(
    [(28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100), (251, 135, 97),
     (254, 194, 135), (252, 253, 191)],
    np.float64,
)  # fmt: skip
OPACITY = 0.6  # of the map over the image
MARGIN, TITLE = 6, 14  # pixels around an image, and of the line above it


def resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at (height, width) of an image, bilinear, float64."""
    height, width = shape
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float64)


def scaled(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1; zeros where all are equal."""
    low, high = values.min(), values.max()
    return np.zeros_like(values) if high <= low else (values - low) / (high - low)


def coloured(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as colours, float64 [..., 3] up to 255."""
    places = np.linspace(0.0, 1.0, len(COLOURS))
    return np.stack([np.interp(values, places, COLOURS[:, i]) for i in range(3)], axis=-1)


def over(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map [h, w] in colours over an image uint8 [H, W, 3], from its lowest to its highest
    value."""
    colours = coloured(scaled(resized(values, image.shape[:2])))
    gray = image.mean(axis=-1, keepdims=True)
    return np.clip((1 - OPACITY) * gray + OPACITY * colours, 0, 255).astype(np.uint8)


def sheet(
    panels: Sequence[tuple[str, np.ndarray]], side: int = 192, columns: int = 4
) -> Image.Image:
    """Images with their titles, row by row.

    Args:
      panels: (title, uint8 [H, W, 3]).
      side: of each image, in pixels.
      columns: number of images in a row, at most.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    across, down = side + MARGIN, side + MARGIN + TITLE
    page = Image.new("RGB", (columns * across + MARGIN, rows * down + MARGIN), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for number, (title, pixels) in enumerate(panels):
        left, top = MARGIN + number % columns * across, MARGIN + number // columns * down
        draw.text((left, top), shortened(draw, title, side), fill=(0, 0, 0))
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        page.paste(image, (left, top + TITLE))
    return page


def shortened(draw: ImageDraw.ImageDraw, title: str, width: int) -> str:
    """The beginning of a title that fits, with characters that the built-in font has."""
    title = title.encode("latin-1", "replace").decode("latin-1")
    while draw.textlength(title) > width:
        title = title[:-1]
    return title
