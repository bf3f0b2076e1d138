"""RefCOCO, COCO's objects and panoptic segments, beside pycocotools."""

import json
import pickle
import shlex
import subprocess
import sys

import numpy as np
import pytest
from layout_files import (
    COCO_INSTANCES,
    REFS,
    SEGMENT,
    SIDE,
    coco_captions,
    coco_instances,
    coco_panoptic,
    put_json,
    refcoco,
)

from vlp_jax.data.images.boxes import BoxesConfig, boxes_in
from vlp_jax.data.layouts.masks import mask_of, run_lengths
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError


def corners(box):
    left, top, width, height = box
    return [left, top, left + width, top + height]


def test_an_object_has_all_its_expressions_and_one_box(tmp_path):
    spec = refcoco(tmp_path)
    assert len(open_source(spec)) == 2
    (sample,) = open_source(f"{spec}&split=testA")
    assert sample.captions == ("the lady 1", "left one")
    assert sample.metadata == {
        "boxes": [[3, 4, 9, 11]],
        "category": "person",
        "segmentation": COCO_INSTANCES["annotations"][2]["segmentation"],
        "ref_id": 1,
        "ann_id": 82446,
        "image_id": 397133,
        "split": "testA",
    }
    assert sample.image_file == "000000397133.jpg"
    with pytest.raises(DataError, match="no split 'val'; splits: testA, train"):
        open_source(f"{spec}&split=val")


def test_a_pickle_is_refused_and_the_command_in_the_message_converts_it(tmp_path):
    spec = refcoco(tmp_path)
    for protocol in (0, 2):
        with open(tmp_path / "refs(unc).p", "wb") as file:
            pickle.dump(REFS, file, protocol)
        (tmp_path / "refs(unc).json").unlink()
        with pytest.raises(DataError, match="is a pickle, which could run any code") as caught:
            open_source(f"refcoco:{tmp_path}/refs(unc).p?root=train2014")
        command = shlex.split(str(caught.value).partition("write it as JSON: ")[2])
        subprocess.run([sys.executable, *command[1:]], check=True)
        assert len(open_source(spec)) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ann_id", 5, r"json: \[1\]: its ann_id 5 is not in .*instances.json"),
        ("sentences", "x", r"\[1\]: its sentences is str, not a list"),
    ],
)
def test_a_wrong_reference_is_named(field, value, message, tmp_path):
    spec = refcoco(tmp_path)
    put_json(tmp_path / "refs(unc).json", [REFS[0], {**REFS[1], field: value}])
    with pytest.raises(DataError, match=message):
        open_source(spec)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DataError, match="instances.json is missing; name COCO's file"):
        open_source(spec)


def test_objects_are_those_of_pycocotools(tmp_path):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    source = open_source(coco_instances(tmp_path))
    reference = COCO(f"{tmp_path}/instances_val2017.json")
    assert source.left_out == {"images without an object": 1}
    assert source.class_names == {"classes": ["person", "bottle"]}
    assert [sample.captions for sample in source] == [("bottle, person",), ("person",)]
    for sample in source:
        annotations = reference.loadAnns(reference.getAnnIds([sample.metadata["image_id"]]))
        assert sample.metadata["boxes"] == [corners(a["bbox"]) for a in annotations]
        assert sample.metadata["iscrowd"] == [a["iscrowd"] for a in annotations]
        assert sample.metadata["annotation_ids"] == [a["id"] for a in annotations]
        assert boxes_in("", sample.metadata, BoxesConfig(field="boxes")).shape[1] == 4
        for held, annotation in zip(sample.metadata["segmentation"], annotations, strict=True):
            np.testing.assert_array_equal(
                mask_of(held, SIDE, SIDE), reference.annToMask(annotation)
            )


def test_captions_of_another_file(tmp_path):
    coco_captions(tmp_path)
    source = open_source(f"{coco_instances(tmp_path)}&captions=captions_val2017.json")
    assert source[0].captions == ("A man is in a kitchen making pizzas.",)
    assert len(source[1].captions) == 2 and source[1].metadata["classes"] == ["person"]
    assert source.left_out == {"images without a caption": 1}


def test_segments_are_read_from_the_colours_of_their_image(tmp_path):
    spec = coco_panoptic(tmp_path)
    (sample,) = open_source(spec)
    metadata = sample.metadata
    assert sample.captions == ("person, sky-other-merged",)
    assert metadata["boxes"] == [[0, 0, 12, 24], [12, 0, 24, 12]]
    assert (metadata["isthing"], metadata["annotation_ids"]) == ([1, 0], [SEGMENT, 7])
    person, sky = (mask_of(segment, SIDE, SIDE) for segment in metadata["segmentation"])
    assert person[:, :12].all() and not person[:, 12:].any()
    assert sky[:12, 12:].all() and sky.sum() == metadata["area"][1]
    (bare,) = open_source(spec.partition("&masks")[0])
    assert "segmentation" not in bare.metadata and "masks" not in bare.metadata
    with pytest.raises(DataError, match="masks: .*nowhere is no folder"):
        open_source(spec.replace("masks=panoptic_val2017", "masks=nowhere"))


@pytest.mark.parametrize("seed", range(40))
def test_masks_of_polygons_are_those_of_pycocotools(seed):
    mask = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 60, 2).tolist()
    polygons = [
        (generator.normal(0.5, 0.4, (corners, 2)) * (width, height)).round(2).ravel().tolist()
        for corners in generator.integers(3, 9, 3)
    ]
    polygons[0] = np.round(polygons[0]).tolist()  # also corners on the grid
    encoded = mask.merge(mask.frPyObjects(polygons, height, width))
    expected = mask.decode(encoded)
    np.testing.assert_array_equal(mask_of(polygons, height, width), expected)
    np.testing.assert_array_equal(mask_of(encoded, height, width), expected)
    text = {**encoded, "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(mask_of(text, height, width), expected)
    lengths = run_lengths(expected)
    assert mask.decode(mask.frPyObjects(lengths, height, width)).tolist() == expected.tolist()
    np.testing.assert_array_equal(mask_of(json.loads(json.dumps(lengths)), height, width), expected)


def test_run_lengths_of_another_image_are_refused():
    with pytest.raises(ValueError, match=r"run lengths of \[2, 2\] in an image of 3x2"):
        mask_of({"size": [2, 2], "counts": [1, 3]}, 3, 2)
