"""Points and boxes from maps over an image."""

import dataclasses

import numpy as np
from scipy import ndimage

from vlp_jax.data.images.boxes import View
from vlp_jax.evaluators.similarity_maps import enlarged


@dataclasses.dataclass(frozen=True)
class Guess:
    """Where a map finds a text, in pixels of the image.

    Attributes:
      point: [2], (x, y).
      box: [4], (left, top, right, bottom).
      score: the map's maximum.
    """

    point: np.ndarray
    box: np.ndarray
    score: float


def located(maps: np.ndarray, view: View, size: int, threshold: float) -> list[Guess]:
    """The point and the box of each map of an image.

    The point is the centre of the cell with the highest value; the first of equal ones. The box is
    around the largest region of the map, interpolated to pixels bilinearly, whose values are at
    least min + `threshold` (max - min); pixels are connected by their sides. Cells and pixels
    whose centres lie outside of the image, where the view extends beyond it, are not considered.

    Args:
      maps: [h, w, T].
      view: the visible part of the image.
      size: side of the model's square in pixels.
      threshold: a fraction.
    """
    cells, pixels = inside(view, maps.shape[:2]), inside(view, (size, size))
    large, found = enlarged(maps, (size, size)), []
    for number in range(maps.shape[-1]):
        own = np.where(cells, maps[..., number], -np.inf)
        row, column = np.unravel_index(own.argmax(), own.shape)
        point = np.divide((column + 0.5, row + 0.5), own.shape[::-1])
        box = region_box(large[..., number], pixels, threshold) / size
        corners = view.in_image(box.reshape(2, 2)).reshape(4)
        found.append(Guess(view.in_image(point), corners, float(own.max())))
    return found


def inside(view: View, shape: tuple[int, ...]) -> np.ndarray:
    """Whether the centre of each cell of a grid over the square lies in the image, bool [h, w]."""
    (left, top, right, bottom) = view(np.array([[0.0, 0.0, *view.shape]]))[0]
    rows, columns = ((np.arange(count) + 0.5) / count for count in shape)
    return ((rows >= top) & (rows <= bottom))[:, None] & (columns >= left) & (columns <= right)


def region_box(values: np.ndarray, possible: np.ndarray, threshold: float) -> np.ndarray:
    """The box (left, top, right, bottom) around the largest region of a map, as of `located`; the
    first of regions of equal size.

    Args:
      values: [H, W].
      possible: bool [H, W], the pixels that are considered.
      threshold: a fraction.
    """
    low, high = values[possible].min(), values[possible].max()
    labels, count = ndimage.label(possible & (values >= low + threshold * (high - low)))
    largest = np.bincount(labels.ravel(), minlength=count + 1)[1:].argmax()
    rows, columns = ndimage.find_objects(labels)[largest]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], np.float64)
