"""Masks of objects as COCO's annotations hold them: polygons, or run lengths in columns.

The pixels are those of pycocotools (`maskApi.c`), which marks the outline of a polygon on a grid
five times as fine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.metrics.masks import decoded, encoded

FINER = 5


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask of one object, bool [height, width].

    Args:
      segmentation: a list of polygons [x, y, x, y, ...], or {"size": [height, width], "counts"},
        where `counts` is a list of lengths or their text in COCO's code.
      height: that of the image.
      width: that of the image.

    Raises:
      ValueError: if run lengths do not fill the image, or for anything else.
    """
    if isinstance(segmentation, Mapping):
        return runs_of(segmentation, height, width)
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= polygon_mask(polygon, height, width)
    return mask


def runs_of(segmentation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask of run lengths, of zeros first, in the order of columns."""
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"run lengths of {segmentation['size']} in an image of {height}x{width}")
    return decoded(segmentation)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask, [height, width], as {"size", "counts"} with a list of lengths."""
    return {"size": list(mask.shape), "counts": encoded(mask)}


def polygon_mask(polygon: Sequence[float], height: int, width: int) -> np.ndarray:
    """The mask of one polygon, bool [height, width]; see `rleFrPoly` in `maskApi.c`."""
    corners = (FINER * np.asarray(polygon, np.float64).reshape(-1, 2) + 0.5).astype(np.int64)
    x, y = outline(np.concatenate([corners, corners[:1]]))
    crossed = np.flatnonzero(x[1:] != x[:-1])
    columns = (np.minimum(x[crossed + 1], x[crossed]) + 0.5) / FINER - 0.5
    rows = np.ceil(np.clip((np.minimum(y[crossed + 1], y[crossed]) + 0.5) / FINER - 0.5, 0, height))
    kept = (columns == np.floor(columns)) & (columns >= 0) & (columns <= width - 1)
    places = (columns[kept] * height + rows[kept]).astype(np.int64)
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2 == 1).reshape(width, height).T


def outline(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of the fine grid on the edges between corners, [N, 2], in their order."""
    parts = [edge(*pair) for pair in zip(corners[:-1], corners[1:], strict=True)]
    points = np.concatenate(parts)
    return points[:, 0], points[:, 1]


def edge(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The points from one corner to the next, a step of one along the longer side."""
    sides = np.abs(end - start)
    longer = 0 if sides[0] >= sides[1] else 1
    steps = np.arange(sides[longer] + 1)
    backward = start[longer] > end[longer]
    low, high = (end, start) if backward else (start, end)
    slope = (high - low)[1 - longer] / max(1, sides[longer])
    points = np.empty((len(steps), 2), np.int64)
    points[:, longer] = low[longer] + steps
    points[:, 1 - longer] = (low[1 - longer] + slope * steps + 0.5).astype(np.int64)
    return points[::-1] if backward else points
