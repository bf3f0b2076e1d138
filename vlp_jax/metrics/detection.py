"""COCO's average precision and recall of detected objects (Lin et al. 2014), by boxes or masks.

The values are those of pycocotools' `COCOeval`.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from vlp_jax.metrics.boxes import box_iou
from vlp_jax.metrics.masks import mask_iou

IOUS = np.linspace(0.5, 0.95, 10)  # from which on a detection counts as correct
RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is averaged
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}  # in pixels, with both ends
MOST = (1, 10, 100)  # detections of an image and category that count


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of an image, true or detected.

    Attributes:
      boxes: [N, 4], (left, top, width, height) in pixels.
      categories: [N], int.
      scores: [N], of detections.
      crowd: [N], bool, of true objects: groups, of which any number may be detected or none.
      areas: [N], of true objects. Default: those of the masks or boxes.
      masks: [N, H, W], bool; if given, they are compared and not the boxes.
    """

    boxes: np.ndarray
    categories: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: np.ndarray | None = None

    def select(self, chosen: np.ndarray) -> "Objects":
        """Some of the objects, by their indices."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **{name: value[chosen] for name, value in given.items() if value is not None}
        )

    @property
    def sizes(self) -> np.ndarray:
        """Areas in pixels, [N]."""
        if self.areas is not None:
            return self.areas
        if self.masks is not None:
            return self.masks.sum(axis=(1, 2))
        return self.boxes[:, 2] * self.boxes[:, 3]


@dataclasses.dataclass(frozen=True)
class Matches:
    """The detections of a category in an image, of the highest scores, compared with its objects.

    Attributes:
      scores: [D].
      correct: [T, D], bool, whether an object is matched at each IoU.
      ignored: [T, D], bool, detections that count neither as correct nor as wrong.
      objects: number of true objects that count.
    """

    scores: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray
    objects: int


def coco_scores(truth: Sequence[Objects], detections: Sequence[Objects]) -> dict[str, float]:
    """COCO's twelve figures.

    Args:
      truth: the true objects of each image.
      detections: the detected objects of each image, with scores.

    Returns:
      ap, ap_50, ap_75: average precision over the IoUs 0.5 to 0.95, and of IoU 0.5 and 0.75, each
        the mean over the categories that have objects.
      ap_small, ap_medium, ap_large: `ap` of objects of these areas.
      ar_1, ar_10, ar_100: recall with so many detections of an image and category.
      ar_small, ar_medium, ar_large: recall of objects of these areas.
      A figure without any object is -1, as in pycocotools.
    """
    precision = {name: [] for name in AREAS}  # of each category, [T, 101]
    recall = {(name, most): [] for name in AREAS for most in MOST}  # [T]
    for category in np.unique(np.concatenate([image.categories for image in truth])):
        pairs = list(_of_category(truth, detections, category))
        for name, area in AREAS.items():
            found = [matches(true, detected, overlap, area) for true, detected, overlap in pairs]
            if not sum(each.objects for each in found):
                continue
            reached = [curves(found, most) for most in MOST]
            precision[name].append(reached[-1][0])
            for most, (_, highest) in zip(MOST, reached, strict=True):
                recall[name, most].append(highest)
    points = {"ap": slice(None), "ap_50": slice(0, 1), "ap_75": slice(5, 6)}
    sizes = [name for name in AREAS if name != "all"]
    return (
        {
            name: _mean([each[chosen] for each in precision["all"]])
            for name, chosen in points.items()
        }
        | {f"ap_{name}": _mean(precision[name]) for name in sizes}
        | {f"ar_{most}": _mean(recall["all", most]) for most in MOST}
        | {f"ar_{name}": _mean(recall[name, MOST[-1]]) for name in sizes}
    )


def _mean(values: Sequence[np.ndarray]) -> float:
    return float(np.mean(values)) if values else -1.0


def _of_category(
    truth: Sequence[Objects], detections: Sequence[Objects], category: int
) -> Iterator[tuple[Objects, Objects, np.ndarray]]:
    """For each image the objects of a category, the detections by falling score, and their IoU."""
    for image, found in zip(truth, detections, strict=True):
        assert found.scores is not None
        true = image.select(np.flatnonzero(image.categories == category))
        chosen = np.flatnonzero(found.categories == category)
        order = np.argsort(-found.scores[chosen], kind="stable")[: MOST[-1]]
        detected = found.select(chosen[order])
        crowd = true.crowd
        if true.masks is not None and detected.masks is not None:
            yield true, detected, mask_iou(detected.masks, true.masks, crowd)
        else:
            yield true, detected, box_iou(detected.boxes, true.boxes, crowd)


def matches(
    true: Objects, detected: Objects, overlap: np.ndarray, area: tuple[float, float]
) -> Matches:
    """Matches each detection, by falling score, with the free object of the highest IoU.

    Objects of crowds and of other areas are matched last, and are ignored together with their
    detections; so are detections of other areas without a match. Of objects with the same IoU the
    last one counts.

    Args:
      true: the objects of a category in an image.
      detected: its detections, sorted.
      overlap: [D, G], IoU of each pair.
      area: lowest and highest area of the objects that count.
    """
    low, high = area
    crowd = np.zeros(len(true.boxes), bool) if true.crowd is None else true.crowd.astype(bool)
    ignored = crowd | (true.sizes < low) | (true.sizes > high)
    shape = (len(IOUS), len(detected.boxes))
    correct, onto_ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((len(IOUS), len(crowd)), bool)
    for number, row in enumerate(overlap if len(crowd) else ()):
        free = (row >= np.minimum(IOUS, 1 - 1e-10)[:, None]) & (~taken | crowd)
        regular = free & ~ignored
        free = np.where(regular.any(axis=1, keepdims=True), regular, free)
        best = len(crowd) - 1 - np.where(free, row, -1.0)[:, ::-1].argmax(axis=1)
        found = np.flatnonzero(free.any(axis=1))
        taken[found, best[found]] = True
        correct[found, number] = True
        onto_ignored[found, number] = ignored[best[found]]
    sizes = detected.sizes
    outside = (sizes < low) | (sizes > high)
    assert detected.scores is not None
    return Matches(
        detected.scores, correct, onto_ignored | (~correct & outside), int((~ignored).sum())
    )


def curves(found: Sequence[Matches], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at `RECALLS`, [T, 101], and the highest recall, [T], of a category.

    Args:
      found: the matches in each image.
      most: number of detections of an image that count.
    """
    order = np.argsort(-np.concatenate([each.scores[:most] for each in found]), kind="stable")
    correct, ignored = (
        np.concatenate([getattr(each, name)[:, :most] for each in found], axis=1)[:, order]
        for name in ("correct", "ignored")
    )
    right = np.cumsum(correct & ~ignored, axis=1).astype(np.float64)
    wrong = np.cumsum(~correct & ~ignored, axis=1).astype(np.float64)
    recall = right / sum(each.objects for each in found)
    precision = right / (right + wrong + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([highest, np.zeros((len(IOUS), 1))], axis=1)
    curve = [
        values[np.searchsorted(reached, RECALLS, side="left")]
        for values, reached in zip(padded, recall, strict=True)
    ]
    last = recall[:, -1] if len(order) else np.zeros(len(IOUS))
    return np.array(curve), last
