"""Masks of classes in a sample's metadata, seen through the preprocessing of the image."""

import io
from typing import Any

import numpy as np
from PIL import Image

from vlp_jax.data.images.boxes import View


def read_mask(value: Any) -> np.ndarray | None:
    """The class of each pixel, int64 [H, W]; None where `value` is no mask.

    Args:
      value: an encoded image with one channel, whose stored values are the classes (indices into a
        palette, too), or rows of integers.
    """
    if isinstance(value, bytes):
        try:
            image = Image.open(io.BytesIO(value))
            array = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
    else:
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths
            return None
    whole = array.dtype.kind in "iub" and array.ndim == 2 and array.size > 0
    return array.astype(np.int64) if whole else None


def visible_mask(mask: np.ndarray, view: View, size: int, outside: int) -> np.ndarray:
    """The part of a mask that evaluation shows, by the nearest pixel, int64 [size, size].

    Args:
      mask: int [H, W], of the complete image, at any resolution.
      view: the part of the image (see `evaluation_view`).
      size: side of the result.
      outside: value where the view extends beyond the image.
    """
    height, width = mask.shape
    left, top, right, bottom = view.seen
    middle = (np.arange(size) + 0.5) / size
    columns = np.floor((left + middle * (right - left)) * width / view.shape[0]).astype(np.int64)
    rows = np.floor((top + middle * (bottom - top)) * height / view.shape[1]).astype(np.int64)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    near = mask[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    return np.where(inside, near, outside)
