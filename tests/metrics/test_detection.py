"""COCO's figures, overlaps and encodings against pycocotools and scikit-learn
(`make_detection.py`), and accuracies of boxes and points by their definitions."""

import json
import pathlib

import numpy as np
import pytest

from vlp_jax.metrics.boxes import (
    box_iou,
    corners,
    from_corners,
    grounding_accuracy,
    pointing_accuracy,
)
from vlp_jax.metrics.detection import Objects, coco_scores
from vlp_jax.metrics.masks import compressed, decoded, encoded, mask_iou, uncompressed
from vlp_jax.metrics.segmentation import pixel_confusion, segmentation_scores

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden/detection.json").read_text())
CASES = GOLDEN["cases"]


def objects_of(rows, kind):
    """The objects of an image; those of masks have no boxes that are read."""
    regions = [row["bbox" if kind == "bbox" else "segmentation"] for row in rows]
    many = len(rows)
    shape = CASES[-1]["objects"][0]["segmentation"]["size"]
    return Objects(
        boxes=np.array(regions if kind == "bbox" else [[0] * 4] * many, np.float64).reshape(-1, 4),
        categories=np.array([row["category_id"] for row in rows], int),
        scores=np.array([row.get("score", 0) for row in rows], np.float64),
        crowd=np.array([row.get("iscrowd", 0) for row in rows], bool),
        areas=np.array([row["area"] for row in rows]) if rows and "area" in rows[0] else None,
        masks=None if kind == "bbox" else np.array(
            [decoded(region) for region in regions], bool
        ).reshape(many, *shape),
    )  # fmt: skip


def images_of(case, name):
    return [
        objects_of([row for row in case[name] if row["image_id"] == image], case["kind"])
        for image in range(1, case["images"] + 1)
    ]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_average_precision_and_recall_are_those_of_cocoeval(case):
    found = coco_scores(images_of(case, "objects"), images_of(case, "detections"))
    assert list(found) == list(case["scores"])
    for name, value in case["scores"].items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_overlaps_are_those_of_pycocotools(case):
    true, detected = (
        images_of(case, name)[case["image"] - 1] for name in ("objects", "detections")
    )
    assert len(true.categories) > 1 and len(detected.categories) > 1
    if case["kind"] == "bbox":
        found = box_iou(detected.boxes, true.boxes, true.crowd)
    else:
        found = mask_iou(detected.masks, true.masks, true.crowd)
    np.testing.assert_allclose(found, np.reshape(case["overlap"], found.shape), rtol=0, atol=1e-12)


def test_run_lengths_are_written_as_pycocotools_reads_them():
    for row in CASES[-1]["objects"]:
        encoding = row["segmentation"]
        mask = decoded(encoding)
        assert mask.sum() == row["area"]
        runs = encoded(mask)
        assert runs == uncompressed(encoding["counts"])
        assert compressed(runs) == encoding["counts"]
        np.testing.assert_array_equal(decoded({"size": encoding["size"], "counts": runs}), mask)


@pytest.mark.parametrize("first", [False, True])
def test_a_mask_of_one_value_has_one_or_two_runs(first):
    assert encoded(np.full((2, 3), first)) == ([0, 6] if first else [6])
    with pytest.raises(ValueError, match="5 pixels in a mask of 2 x 3"):
        decoded({"size": [2, 3], "counts": [5]})


@pytest.mark.parametrize("case", GOLDEN["pixels"], ids=range(len(GOLDEN["pixels"])))
def test_scores_of_pixels_are_those_of_scikit_learn(case):
    labels, predicted = np.array(case["labels"], np.uint8), np.array(case["predicted"])
    labels_of_two = np.concatenate([labels, np.full_like(labels, 255)])  # a half without labels
    confusion = pixel_confusion(np.concatenate([predicted] * 2), labels_of_two, case["classes"])
    found = segmentation_scores(confusion)
    np.testing.assert_allclose(found.iou[:-1], case["iou"], rtol=0, atol=1e-12)
    assert np.isnan(found.iou[-1])
    for name in ("mean_iou", "frequency_weighted_iou", "pixel_accuracy", "mean_accuracy"):
        assert getattr(found, name) == pytest.approx(case[name], abs=1e-12), name


def test_classes_out_of_range_and_pixels_without_labels_are_errors():
    with pytest.raises(ValueError, match="not all in 0 to 2"):
        pixel_confusion(np.array([3]), np.array([0]), 3)
    with pytest.raises(ValueError, match="no pixel has a label"):
        segmentation_scores(pixel_confusion(np.array([1]), np.array([255]), 3))


def test_boxes_are_converted_between_both_forms():
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(corners(boxes), [[1, 2, 4, 6]])
    np.testing.assert_array_equal(from_corners(corners(boxes)), boxes)


def test_a_grounded_box_is_correct_from_an_iou_of_one_half():
    true = np.tile([0.0, 0.0, 10.0, 10.0], (4, 1))
    predicted = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.9], [20, 20, 5, 5]])
    assert grounding_accuracy(predicted, true) == 0.5
    assert grounding_accuracy(predicted, true, least=0.9) == 0.25


def test_a_point_hits_one_of_several_boxes_or_a_mask():
    boxes = np.array([[0.0, 0.0, 2.0, 2.0], [10.0, 10.0, 2.0, 2.0]])
    mask = np.zeros((4, 6), bool)
    mask[1, 5] = True
    points = np.array([[1, 1], [12, 12], [5, 5], [5.5, 1.9], [4.9, 1], [9, 1]])
    regions = [boxes, boxes, boxes, mask, mask, mask]
    assert pointing_accuracy(points, regions) == 3 / 6
    assert pointing_accuracy(points[:3], regions[:3], tolerance=5) == 1
    assert pointing_accuracy(points[2:3], regions[2:3], tolerance=4.2) == 0  # 3 * 2**0.5 = 4.24
