"""pycocotools' COCOeval and mask functions, and scikit-learn's Jaccard scores of pixels, on random
and hand-made objects, written to `detection.json`.

pip install pycocotools==2.0.11 scikit-learn==1.9.1
python tests/golden/make_detection.py
"""

import collections
import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn import metrics

SIDE = 40  # of images with masks
NAMES = (
    "ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


def random_boxes(rng: np.random.Generator, images: int, most: int, high: int) -> tuple:
    """(objects, detections) of boxes, most detections near an object, with equal scores too."""
    objects, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, most)):
            box = [*rng.integers(0, high, 2).tolist(), *rng.integers(3, high, 2).tolist()]
            crowd = int(rng.random() < 0.15)
            row = {"image_id": image, "category_id": int(rng.integers(1, 4)), "bbox": box}
            area = round(box[2] * box[3] * float(rng.choice([1.0, 0.6])), 3)
            objects.append({**row, "iscrowd": crowd, "area": area})
            for _ in range(rng.integers(0, 4)):
                moved = [value + int(rng.integers(-2, 3)) for value in box]
                other = row["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 5))
                score = round(float(rng.random()), 1)
                detections.append(
                    {"image_id": image, "category_id": other, "bbox": moved, "score": score}
                )
    return images, objects, detections


def hand_made() -> tuple:
    """Equal boxes, a crowd with several detections, an image with more than 100 detections, and one
    without objects."""

    def row(image, box, **more):
        return {"image_id": image, "category_id": 1, "bbox": box, **more}

    objects = [
        row(1, [10, 10, 30, 30], iscrowd=0, area=900),
        row(1, [10, 10, 30, 30], iscrowd=0, area=900),
        row(1, [0, 0, 200, 200], iscrowd=1, area=40000),
        row(2, [50, 50, 100, 100], iscrowd=0, area=10000),
        row(4, [0, 0, 32, 32], iscrowd=0, area=1024),
    ]
    detections = [
        row(1, [10, 10, 30, 30], score=0.9),
        row(1, [10, 10, 30, 30], score=0.9),
        row(1, [10, 10, 30, 30], score=0.8),
        row(1, [100, 100, 20, 20], score=0.95),
        row(1, [300, 300, 20, 20], score=0.5),
        *[row(2, [50 + i, 50, 100, 100], score=0.3 + (i % 7) / 10) for i in range(120, -1, -1)],
        row(3, [0, 0, 500, 500], score=0.4),
        row(4, [0, 0, 32, 16], score=0.7),
    ]
    return 4, objects, detections


def random_masks(rng: np.random.Generator, images: int) -> tuple:
    """(objects, detections) of masks: rectangles with holes."""

    def drawn(box):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        left, top, width, height = box
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = 1
        mask[rng.random(mask.shape) < 0.1] = 0
        found = masks.encode(np.asfortranarray(mask))
        return {"size": found["size"], "counts": found["counts"].decode()}

    _, objects, detections = random_boxes(rng, images, 5, 20)
    for row in (*objects, *detections):
        row["segmentation"] = drawn(row.pop("bbox"))
    for row in objects:
        row["area"] = float(masks.area(row["segmentation"]))
    return images, objects, detections


def scores(images: int, objects: list, detections: list, kind: str) -> dict[str, float]:
    """The twelve figures of COCOeval."""
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": i} for i in range(1, 5)],
        "annotations": [{**row, "id": i} for i, row in enumerate(objects, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = coco.loadRes([dict(row) for row in detections])
        evaluation = COCOeval(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True))


def case(images: int, objects: list, detections: list, kind: str) -> dict:
    """The objects with their figures and the overlaps in the image with most objects."""
    image = collections.Counter(row["image_id"] for row in objects).most_common(1)[0][0]
    regions = [
        [row["bbox" if kind == "bbox" else "segmentation"] for row in rows]
        for rows in (
            [row for row in detections if row["image_id"] == image],
            [row for row in objects if row["image_id"] == image],
        )
    ]
    crowd = [row["iscrowd"] for row in objects if row["image_id"] == image]
    if kind == "bbox":
        regions = [np.array(rows, np.float64).reshape(-1, 4) for rows in regions]
    overlap = np.array(masks.iou(*regions, crowd)).reshape(len(regions[0]), len(regions[1]))
    figures = scores(images, objects, detections, kind)
    return {
        "kind": kind, "images": images, "objects": objects, "detections": detections,
        "scores": figures, "image": image, "overlap": overlap.tolist(),
    }  # fmt: skip


def pixels(rng: np.random.Generator, classes: int) -> dict:
    """Classes of pixels, of which one does not occur, and scikit-learn's Jaccard scores."""
    labels, predicted = rng.integers(0, classes - 1, (2, 12, 15))
    kept = np.arange(classes - 1)
    flat = labels.ravel(), predicted.ravel()
    return {
        "labels": labels.tolist(), "predicted": predicted.tolist(), "classes": classes,
        "iou": metrics.jaccard_score(*flat, labels=kept, average=None).tolist(),
        "mean_iou": metrics.jaccard_score(*flat, labels=kept, average="macro"),
        "frequency_weighted_iou": metrics.jaccard_score(*flat, labels=kept, average="weighted"),
        "pixel_accuracy": metrics.accuracy_score(*flat),
        "mean_accuracy": metrics.balanced_accuracy_score(*flat),
    }  # fmt: skip


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    found = {
        "cases": [
            case(*random_boxes(generator, 8, 8, 150), "bbox"),
            case(*random_boxes(generator, 5, 3, 30), "bbox"),
            case(*hand_made(), "bbox"),
            case(*random_masks(generator, 6), "segm"),
        ],
        "pixels": [pixels(generator, classes) for classes in (4, 9)],
    }
    place = pathlib.Path(__file__).with_name("detection.json")
    place.write_text(json.dumps(found) + "\n")
