"""Boxes of regions: read from metadata, and moved as the picture is, against rectangles that are
painted where they are."""

import io

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.augmentation import decode_and_augment
from vlp_jax.data.images.boxes import BoxesConfig, View, boxes_in, boxes_of
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig, evaluation_pixels, evaluation_view
from vlp_jax.data.samples import Reason, SampleError

SIZE = 48
RED, BLUE = (255, 0, 0), (0, 0, 255)
BLACK = (0, 0, 0)
SPEC = BoxesConfig(field="b", count=2)


def painted(width, height, boxes, border=0):
    """A green picture with a red rectangle and a blue one; `border` of its pixels are transparent
    all round."""
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[border : height - border, border : width - border] = (0, 255, 0, 255)
    for (left, top, right, bottom), colour in zip(boxes, (RED, BLUE), strict=True):
        pixels[top:bottom, left:right] = (*colour, 255)
    return Image.fromarray(pixels if border else pixels[..., :3])


def file_of(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rectangle(pixels, colour):
    """Where that colour is, as fractions of the square; None where it is nowhere."""
    rows, columns = np.nonzero((np.abs(pixels.astype(int) - colour) < 128).all(axis=-1))
    return (
        np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / len(pixels)
        if len(rows)
        else None
    )


def check(pixels, boxes, metadata, view):
    """Each box that is seen is where its rectangle is; one that is not has none.

    Returns how many are seen.
    """
    found, seen = boxes_of("k", metadata, SPEC, view), 0
    for box, colour in zip(boxes, (RED, BLUE), strict=True):
        one = boxes_of("k", {"b": [box]}, BoxesConfig(field="b", count=1), view)[0]
        expected, whole = (
            rectangle(pixels, colour),
            boxes_of("k", {}, BoxesConfig(field="b", count=1), view)[0],
        )
        if expected is None:  # the whole picture, or less than half a pixel
            assert (one == whole).all() or min(one[2:] - one[:2]) < 0.6 / len(pixels)
        else:
            assert np.abs(one - expected).max() <= 1.5 / len(pixels), (one, expected)
            assert (found == one).all(axis=1).sum() == 1
            seen += 1
    return seen


AUGMENTATIONS = {
    "random resized crop": dict(area=(0.2, 0.6)),
    "flip": dict(flip=1.0),
    "both": dict(area=(0.1, 0.5), flip=0.5),
    "zoom out": dict(scale=(1.0, 1.6), aspect=0.3, shift=0.2, flip=0.5),
    "zoom in": dict(scale=(0.4, 0.7)),
}
BOXES = [[20, 30, 70, 60], [110, 12, 150, 100]]


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", dict(quality=95, subsampling=0))]
)
@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_training_s_boxes_are_where_their_rectangles_are(name, resize, kind, options):
    data = file_of(painted(160, 120, BOXES), kind, **options)
    spec, counts = ImagesConfig(resize=resize, background=BLACK), []
    for seed in range(12):
        pixels, view = decode_and_augment(
            data,
            "k",
            SIZE,
            spec,
            AugmentationConfig(**AUGMENTATIONS[name]),
            np.random.default_rng(seed),
        )
        counts.append(check(pixels, BOXES, {"b": BOXES}, view))
    assert max(counts) > 0


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(160, 120), (161, 333), (30, 20)])
def test_evaluation_s_boxes_are_where_their_rectangles_are(shape, resize):
    width, height = shape
    boxes = [
        [int(x * side) for x, side in zip(box, shape * 2, strict=True)]
        for box in ([0.1, 0.1, 0.5, 0.4], [0.6, 0.3, 0.95, 0.9])
    ]
    spec = ImagesConfig(resize=resize, background=BLACK)
    image = painted(width, height, boxes)
    view = evaluation_view(image, SIZE, spec)
    assert check(evaluation_pixels(image, SIZE, spec), boxes, {"b": boxes}, view) == 2
    fractions = {"b": (np.array(boxes) / (shape * 2)).tolist()}
    np.testing.assert_allclose(
        boxes_of("k", fractions, BoxesConfig(field="b", count=2, unit="fraction"), view),
        boxes_of("k", {"b": boxes}, SPEC, view),
        atol=1e-6,
    )


@pytest.mark.parametrize("training", [True, False])
def test_boxes_follow_the_crop_to_what_is_not_transparent(training):
    boxes, spec = (
        [[40, 40, 60, 55], [70, 40, 90, 90]],
        ImagesConfig(crop_to_content=True, content_margin=0.1, background=BLACK),
    )
    data = file_of(painted(160, 120, boxes, border=30), "PNG")
    if training:
        pixels, view = decode_and_augment(
            data, "k", SIZE, spec, AugmentationConfig(flip=1.0), np.random.default_rng(0)
        )
    else:
        image = decode(data, "k", 10**6)
        pixels, view = evaluation_pixels(image, SIZE, spec), evaluation_view(image, SIZE, spec)
    assert check(pixels, boxes, {"b": boxes}, view) == 2


def test_boxes_are_of_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(painted(160, 120, BOXES).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    pixels, view = decode_and_augment(
        data,
        "k",
        SIZE,
        ImagesConfig(resize="squash"),
        AugmentationConfig(),
        np.random.default_rng(0),
    )
    assert check(pixels, BOXES, {"b": BOXES}, view) == 2


def test_boxes_are_cut_off_at_the_ends_and_those_of_which_nothing_is_seen_make_room_for_others():
    view = View((100, 50), (20.0, 0.0, 70.0, 50.0))
    boxes = [[0, 0, 10, 10], [-30, -5, 45, 10], [60, 30, 500, 70], [30, 10, 40, 20], [80, 0, 90, 9]]
    expected = [[0.0, 0.0, 0.5, 0.2], [0.8, 0.6, 1.0, 1.0], [0.2, 0.2, 0.4, 0.4]]
    for count in (1, 2, 3, 4):
        found = boxes_of("k", {"b": boxes}, BoxesConfig(field="b", count=count), view)
        assert found.shape == (count, 4) and found.dtype == np.float32
        np.testing.assert_allclose(found[:3], expected[:count], atol=1e-6)
        assert np.isnan(found[3:]).all()
    letterboxed = View((100, 50), (0.0, -25.0, 100.0, 75.0))
    np.testing.assert_allclose(
        boxes_of("k", {"b": [[-20, -20, 50, 90]]}, SPEC, letterboxed)[0], [0.0, 0.25, 0.5, 0.75]
    )


def test_an_image_without_visible_boxes_is_one_region_of_all_that_is_visible():
    view = View((100, 50), (0.0, -25.0, 100.0, 75.0), mirrored=True)  # letterboxed
    for metadata in ({}, {"b": None}, {"b": []}, {"b": [[-9, 3, -2, 9]]}):
        found = boxes_of("k", metadata, SPEC, view)
        np.testing.assert_allclose(found[0], [0.0, 0.25, 1.0, 0.75])
        assert np.isnan(found[1]).all()
    assert np.isnan(boxes_of("k", {}, SPEC, View((100, 50), (200.0, 0.0, 300.0, 100.0)))).all()


def test_boxes_may_be_nested_and_come_as_arrays():
    spec = BoxesConfig(field="objects.bbox")
    for metadata in (
        {"objects": [{"bbox": [1, 2, 3, 4]}, {"bbox": [5, 6, 7, 8.5]}]},
        {"objects": {"bbox": np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]], np.float32)}},
    ):
        np.testing.assert_array_equal(boxes_in("k", metadata, spec), [[1, 2, 3, 4], [5, 6, 7, 8.5]])


@pytest.mark.parametrize(
    "held",
    [
        [[3, 1, 3, 2]],
        [[1, 4, 3, 2]],
        [[1, 2, 3]],
        [[1, 2, 3, 4], [1, 2, 3]],
        [1, 2, 3, 4],
        [[1, 2, float("nan"), 4]],
        [[1, 2, float("inf"), 4]],
        [["1", "2", "3", "4"]],
        [[1, 2, None, 4]],
        [None],
        7,
        "1 2 3 4",
        {"a": 1},
        [[False, False, True, True]],
        [[0, 0, 10**400, 1]],
        [[]],
    ],
)
def test_what_is_no_list_of_boxes_is_a_bad_sample(held):
    with pytest.raises(SampleError, match="its b holds .* a box is four finite numbers") as error:
        boxes_in("k", {"b": held}, SPEC)
    assert error.value.reason == Reason.WRONG_BOXES and error.value.key == "k"
