"""The regions of a picture: from boxes in a sample's metadata to where they lie in the square that the model sees."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlp_jax.config import schema
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.columns import pick

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclasses.dataclass(frozen=True)
class View:
    """What of a picture fills the model's square.

    shape: (width, height) of the picture in its file, upright. seen: the part of it, perhaps reaching outside. mirrored: whether
      left and right are in each other's place.
    """

    shape: tuple[int, int]
    seen: Box
    mirrored: bool = False

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """float64 [N, 4] in the picture's pixels -> the same as fractions of the square, cut off where picture or square end."""
        corners = np.clip(boxes.reshape(-1, 2, 2), 0, self.shape)
        begin, end = np.array(self.seen).reshape(2, 2)
        corners = np.clip((corners - begin) / (end - begin), 0.0, 1.0)
        if self.mirrored:
            corners[..., 0] = 1.0 - corners[:, ::-1, 0]
        return corners.reshape(-1, 4)


def boxes_of(key: str, metadata: Mapping[str, Any], spec: schema.Boxes, view: View) -> np.ndarray:
    """float32 [R, 4], as fractions of what the model sees: the first R boxes of a sample of which something is seen, in their
    order, NaN behind them. Where there is none, the whole picture is the one region. Raises: SampleError, as `boxes_in` does."""
    width, height = view.shape
    given = boxes_in(key, metadata, spec) * (1 if spec.unit == "pixels" else (width, height, width, height))
    seen = shown(view(given))
    seen = seen if len(seen) else shown(view(np.array([[0.0, 0.0, width, height]])))
    boxes = np.full((spec.count, 4), np.nan, np.float32)
    boxes[:len(seen)] = seen[:spec.count]
    return boxes


def shown(boxes: np.ndarray) -> np.ndarray:
    """Those of boxes [N, 4] of which something is left, float32."""
    boxes = boxes.astype(np.float32)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def boxes_in(key: str, metadata: Mapping[str, Any], spec: schema.Boxes) -> np.ndarray:
    """float64 [N, 4]: the boxes that a field of metadata holds, N = 0 where there is no such field.

    Raises: SampleError with WRONG_BOXES unless each is four finite numbers, left < right and top < bottom.
    """
    held = pick(metadata, spec.field)
    if held is None or isinstance(held, list | tuple | np.ndarray) and not len(held):
        return np.zeros((0, 4))
    try:
        boxes = np.asarray(held)
    except ValueError:  # lists of several lengths
        boxes = np.zeros(0)
    if boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype.kind in "iuf":
        boxes = boxes.astype(np.float64)
        wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1))
        if not wrong.any():
            return boxes
        held = boxes[wrong][0].tolist()
    raise SampleError(Reason.WRONG_BOXES, key, f"its {spec.field} holds {str(held)[:100]}; a box is four finite numbers [left, "
                      "top, right, bottom] with left < right and top < bottom")
