"""Overlap of boxes, and accuracies of boxes and points that a text refers to."""

from collections.abc import Sequence

import numpy as np


def corners(boxes: np.ndarray) -> np.ndarray:
    """COCO's boxes (left, top, width, height) as (left, top, right, bottom), [..., 4]."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def from_corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (left, top, right, bottom) as COCO's (left, top, width, height), [..., 4]."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def box_iou(first: np.ndarray, second: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each pair of boxes, as pycocotools' `mask.iou`.

    Args:
      first: [N, 4], (left, top, width, height).
      second: [M, 4], likewise.
      crowd: [M], bool, boxes of crowds, of which the intersection is divided by the area of the box
        in `first`. Default: none.

    Returns: [N, M], float64; 0 for two boxes without area.
    """
    first, second = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (first, second))
    one, other = corners(first)[:, None], corners(second)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.maximum(sides, 0).prod(axis=-1)
    return over_union(common, first[:, 2:].prod(axis=1), second[:, 2:].prod(axis=1), crowd)


def over_union(
    common: np.ndarray, first: np.ndarray, second: np.ndarray, crowd: np.ndarray | None
) -> np.ndarray:
    """Intersections over unions.

    Args:
      common: [N, M], areas of the intersections.
      first: [N], areas.
      second: [M], areas.
      crowd: [M], bool, where the union is the area in `first`; None: nowhere.
    """
    union = first[:, None] + second[None] - common
    if crowd is not None:
        union = np.where(np.asarray(crowd, bool)[None], first[:, None], union)
    return common / np.where(union > 0, union, 1.0)


def grounding_accuracy(predicted: np.ndarray, true: np.ndarray, least: float = 0.5) -> float:
    """Fraction of texts whose predicted box has an IoU of at least `least` with the true one, as in
    evaluations on RefCOCO (Yu et al. 2016).

    Args:
      predicted: [N, 4], (left, top, width, height).
      true: [N, 4], likewise.
      least: the IoU that counts as correct.
    """
    pairs = zip(np.asarray(predicted), np.asarray(true), strict=True)
    return float(np.mean([box_iou(one[None], other[None])[0, 0] >= least for one, other in pairs]))


def pointing_accuracy(
    points: np.ndarray, regions: Sequence[np.ndarray], tolerance: float = 0.0
) -> float:
    """Fraction of points that hit a region of their text (Zhang et al. 2018, "Top-down neural
    attention by excitation backprop", section 4.1).

    Args:
      points: [N, 2], (x, y), such as the maximum of a heat map.
      regions: for each point the boxes [K, 4] (left, top, width, height), or a mask [H, W] of bool.
      tolerance: distance from a box at which a point still counts, in pixels; 15 in the paper.
    """
    hits = [hit(point, region, tolerance) for point, region in zip(points, regions, strict=True)]
    return float(np.mean(hits))


def hit(point: np.ndarray, region: np.ndarray, tolerance: float) -> bool:
    """Whether a point is in a region; arguments as of `pointing_accuracy`."""
    if region.dtype == bool:
        x, y = np.floor(point).astype(int)
        inside = 0 <= y < region.shape[0] and 0 <= x < region.shape[1]
        return bool(inside and region[y, x])
    boxes = corners(region)
    outside = np.maximum(boxes[:, :2] - point, 0) + np.maximum(point - boxes[:, 2:], 0)
    return bool((np.linalg.norm(outside, axis=1) <= tolerance).any())
