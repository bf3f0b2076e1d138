"""Metrics of semantic segmentation, from the confusion matrix of the pixels of a set."""

import dataclasses

import numpy as np

from vlp_jax.metrics.per_class import confusion_matrix


def pixel_confusion(
    predicted: np.ndarray, labels: np.ndarray, classes: int, unlabelled: int = 255
) -> np.ndarray:
    """How often pixels of each class are predicted as each class; those of several images add up.

    Args:
      predicted: int, of any shape.
      labels: int, of the same shape.
      classes: number of classes C.
      unlabelled: the label of pixels that do not count.

    Returns: [C, C], int64, rows are true classes.

    Raises:
      ValueError: if a class is not below `classes`.
    """
    counted = labels != unlabelled
    found, true = (np.asarray(x)[counted].astype(np.int64) for x in (predicted, labels))
    if (
        found.size
        and not 0 <= min(found.min(), true.min()) <= max(found.max(), true.max()) < classes
    ):
        raise ValueError(f"classes of pixels are not all in 0 to {classes - 1}")
    return confusion_matrix(found, true, classes)


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """Metrics of the pixels of a set (Long et al. 2015, section 5).

    Attributes:
      iou: [C], float64, intersection over union of each class; NaN for one that does not occur.
      mean_iou: the mean of the classes that occur, in labels or predictions.
      pixel_accuracy: fraction of correct pixels.
      mean_accuracy: mean over the classes in labels of the fraction of correct pixels.
      frequency_weighted_iou: the mean IoU, weighted by the number of pixels of each class.
    """

    iou: np.ndarray
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float


def segmentation_scores(confusion: np.ndarray) -> SegmentationScores:
    """The metrics of a confusion matrix [C, C] of pixels; rows are true classes.

    Raises:
      ValueError: if it counts no pixel.
    """
    if confusion.sum() == 0:
        raise ValueError("no pixel has a label")
    right, labelled = np.diag(confusion), confusion.sum(axis=1)
    union = labelled + confusion.sum(axis=0) - right
    iou = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    present = labelled > 0
    return SegmentationScores(
        iou=iou,
        mean_iou=float(np.nanmean(iou)),
        pixel_accuracy=float(right.sum() / confusion.sum()),
        mean_accuracy=float((right[present] / labelled[present]).mean()),
        frequency_weighted_iou=float((labelled * np.nan_to_num(iou)).sum() / confusion.sum()),
    )
