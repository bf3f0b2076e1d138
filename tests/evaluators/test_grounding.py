"""Points and boxes of similarity maps against the same computation in float64, and on files of
RefCOCO, Visual Genome and COCO."""

import io
import types

import numpy as np
import pytest
from layout_files import coco_instances, genome_regions, genome_relationships, refcoco
from PIL import Image

from vlp_jax.config import load_config
from vlp_jax.data.images.boxes import View
from vlp_jax.data.images.preprocessing import ImagesConfig, evaluation_view
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.grounding import DETECTION_METRICS, GROUNDING_METRICS, GroundingTaskConfig
from vlp_jax.evaluators.map_boxes import located

SIDE = 24  # of the model's square


def bilinear(values, size):
    """A map at the centres of size x size pixels, by the formula with half-pixel centres."""
    for axis in (0, 1):
        count = values.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.minimum(np.floor(at).astype(int), count - 2)
        share = (at - low).reshape([-1 if own == axis else 1 for own in (0, 1)])
        values = (1 - share) * values.take(low, axis) + share * values.take(low + 1, axis)
    return values


def largest_region(above):
    """The pixels (row, column) of the largest region, found by walking over neighbours."""
    left, best = {*zip(*np.nonzero(above), strict=True)}, []
    while left:
        region, edge = [], [min(left)]
        left.discard(edge[0])
        while edge:
            row, column = edge.pop()
            region.append((row, column))
            for near in (
                (row + 1, column),
                (row - 1, column),
                (row, column + 1),
                (row, column - 1),
            ):
                if near in left:
                    left.discard(near)
                    edge.append(near)
        best = max(best, region, key=len)
    return np.array(best)


def in_picture(resize, shape):
    """How pixels of the square [SIDE, SIDE] become those of the image: (scale, offset) of x and y,
    of images whose sides SIDE divides."""
    width, height = shape
    if resize == "squash":
        return (width / SIDE, height / SIDE), (0, 0)
    side = (min if resize == "shortest_side_crop" else max)(shape)
    return (side / SIDE,) * 2, ((width - side) / 2, (height - side) / 2)


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("shape", [(48, 24), (24, 48), (48, 48)])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_points_and_boxes_are_those_of_float64(resize, shape, threshold):
    rng = np.random.default_rng(7)
    maps = rng.random((6, 6, 5)).astype(np.float32)
    view = evaluation_view(Image.new("RGB", shape), SIDE, ImagesConfig(resize=resize))
    (scale, start) = in_picture(resize, shape)
    ends = [[(0 - s) / f, (side - s) / f] for side, s, f in zip(shape, start, scale, strict=True)]
    for number, guess in enumerate(located(maps, view, SIDE, threshold)):
        values = maps[..., number].astype(np.float64)
        cell, pixel = (np.arange(6) + 0.5) * SIDE / 6, np.arange(SIDE) + 0.5
        seen = [
            ((at >= y[0]) & (at <= y[1]))[:, None] & (at >= x[0]) & (at <= x[1])
            for at in (cell, pixel)
            for x, y in [ends]
        ]
        best = max(zip(*np.nonzero(seen[0]), strict=True), key=lambda place: values[place])
        point = [cell[i] * f + s for i, f, s in zip(best[::-1], scale, start, strict=True)]
        np.testing.assert_allclose(guess.point, point, atol=1e-9)
        assert guess.score == pytest.approx(values[best])
        large = bilinear(values, SIDE)
        low, high = large[seen[1]].min(), large[seen[1]].max()
        region = largest_region(seen[1] & (large >= low + threshold * (high - low)))
        (top, left), (bottom, right) = region.min(axis=0), region.max(axis=0) + 1
        box = np.array([[left, top], [right, bottom]]) * scale + start
        np.testing.assert_allclose(guess.box, box.clip(0, shape).ravel(), atol=1e-9)


def test_a_point_of_the_square_is_where_a_box_there_comes_from():
    view = View((100, 50), (25.0, 0.0, 75.0, 50.0))
    box = np.array([[30.0, 10.0, 60.0, 45.0]])
    np.testing.assert_allclose(view.in_image(view(box).reshape(2, 2)).ravel(), box[0])
    assert view.in_image(np.array([0.5, 2.0])).tolist() == [50.0, 50.0]


class Scenes:
    """Pictures of 48 x 24 with a bright square, of which the middle half is seen."""

    spec = "memory:scenes"
    boxes = ([[12, 0, 24, 12]], [[24, 12, 36, 24], [12, 12, 24, 24]], [])

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, i):
        file = io.BytesIO()
        Image.new("RGB", (48, 24)).save(file, "PNG")
        names = ["cat", "dog"][: len(self.boxes[i])]
        metadata = {"boxes": self.boxes[i], "names": names}
        return Sample(str(i), file.getvalue() + b"%d" % i, ("a scene",), metadata)


def context_of(source, patches, vectors):
    """A context whose model finds these patches [N, h, w, E] and vectors of texts."""
    preprocessor = Preprocessor(SIDE, ImagesConfig(), None)
    return types.SimpleNamespace(
        data=EvaluationSet(source),
        predictor=types.SimpleNamespace(preprocessor=preprocessor),
        feature_batches=lambda data, kind: iter([patches[:1], patches[1:]]),
        embed_texts=lambda texts: np.array([vectors(text) for text in texts], np.float32),
    )


def test_figures_are_those_of_the_pictures_made_by_hand():
    """Cats are along the first axis and dogs along the second; the view is of columns 12 to 36."""
    patches = np.zeros((3, 2, 2, 3), np.float32)
    patches[..., 2] = 1.0
    patches[0, 0, 0] = (1, 0, 0)  # a cat at the upper left, where it is
    patches[1, 1, 1] = (1, 0, 0)  # a cat at the lower right, where it is
    patches[1, 0, 1] = (0, 1, 0)  # a dog at the upper right, where it is not
    patches[2, 0, 0] = (0.5, 0, 0.75**0.5)
    words = {"a cat": (1, 0, 0), "a dog": (0, 1, 0)}
    context = context_of(Scenes(), patches, words.get)
    task = GroundingTaskConfig(texts_field="names", templates=("a {}",), detection=True)
    task.check(context)
    found = task.run(context)
    assert {*found} == {*GROUNDING_METRICS, *DETECTION_METRICS} == {*task.metric_names(None)}
    assert found["grounding_texts"] == 3
    assert found["grounding_pointing_accuracy"] == pytest.approx(2 / 3)
    # a box is a quarter of the view; the corner of three of them is the centre of the image
    assert found["grounding_pointing_centre"] == 1.0
    assert found["grounding_pointing_chance"] == pytest.approx(144 / (48 * 24))
    # the interpolated map is above the half up to the middle of the view
    assert found["grounding_mean_iou"] == pytest.approx(2 / 3)
    assert found["grounding_accuracy"] == pytest.approx(2 / 3)
    assert found["grounding_whole_image_mean_iou"] == pytest.approx(144 / (48 * 24))
    assert found["grounding_whole_image_accuracy"] == 0.0
    # cats: both are found before the wrong one; dogs: none is
    assert found["grounding_ap_50"] == pytest.approx(1 / 2)
    assert found["grounding_ap"] == pytest.approx(found["grounding_ap_75"])


def test_fractions_are_scaled_by_the_sides():
    class Fractions(Scenes):
        boxes = ([[0.25, 0, 0.5, 0.5]], [[0.5, 0.5, 0.75, 1.0]])

    patches = np.zeros((2, 2, 2, 2), np.float32)
    patches[..., 1] = 1.0
    patches[0, 0, 0] = patches[1, 1, 1] = (1, 0)
    context = context_of(Fractions(), patches, lambda text: (1, 0))
    found = GroundingTaskConfig(unit="fraction").run(context)
    assert found["grounding_texts"] == 2 and found["grounding_mean_iou"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("write", "settings"),
    [
        (refcoco, {}),
        (genome_regions, {}),
        (genome_relationships, {}),
        (coco_instances, {"texts_field": "classes", "detection": True}),
    ],
)
def test_boxes_of_public_sets_are_read(write, settings, tmp_path):
    source = open_source(write(tmp_path))
    rng = np.random.default_rng(0)
    data = EvaluationSet(source)
    patches = rng.standard_normal((len(data), 3, 3, 4)).astype(np.float32)
    context = context_of(source, patches, lambda text: np.resize([*text.encode()], 4) - 100.0)
    task = GroundingTaskConfig(**settings)
    task.check(context)
    found = task.run(context)
    texts = (
        sum(len({*sample.metadata["classes"]}) for sample in source)
        if settings
        else sum(len(sample.captions) for sample in source)
    )
    assert found["grounding_texts"] == texts
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"memory:scenes: 2: grounding needs boxes .* \(x.boxes_field\), which holds \[\]"),
        ({"boxes_field": "at"}, r"0: grounding needs boxes .* there are: boxes, names"),
        ({"texts_field": "at"}, r"a text for each of its 1 boxes in the metadata field 'at'"),
        ({"texts_field": "boxes"}, r"0: grounding needs a list with a text for each"),
        ({"texts_field": "names", "boxes_field": "at"}, "a text for each of its 0 boxes"),
    ],
)
def test_what_a_set_lacks_is_named(settings, message):
    with pytest.raises(DataError, match=message):
        GroundingTaskConfig(**settings).check(context_of(Scenes(), None, None), "x.")


def test_detection_without_classes_is_refused():
    config = load_config("configs/clip_emoji.py:smoke")
    (message,) = GroundingTaskConfig(detection=True).validate(
        "evaluators.x.tasks.grounding", config
    )
    assert message.endswith("detection: needs texts_field, a class for each box")
