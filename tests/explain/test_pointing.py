"""Pointing, deletion and insertion, and randomised parameters, on maps made by hand."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.samples import Sample
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError
from vlp_jax.explain.faithfulness import (
    STEPS,
    deletion_and_insertion,
    rank_correlation,
    ranks_of,
    shuffled,
)
from vlp_jax.explain.pointing_game import Target, centre_accuracy, hits, of_sample, random_accuracy


def target(*box):
    return Target(np.zeros((16, 16, 3), np.uint8), "cat", np.array(box, float))


def test_a_map_hits_where_its_highest_point_is_in_the_box():
    maps = np.zeros((2, 4, 4))
    maps[:, 0, 3] = 1.0  # top right
    top_right, left = target(0.75, 0.0, 1.0, 0.25), target(0.0, 0.0, 0.5, 1.0)
    assert hits(maps, [top_right, left]).tolist() == [True, False]


def test_baselines_are_the_area_of_the_boxes_and_the_centre():
    targets = [target(0.0, 0.0, 0.5, 0.5), target(0.25, 0.25, 1.0, 1.0)]
    assert random_accuracy(targets) == pytest.approx((0.25 + 0.75**2) / 2)
    assert centre_accuracy(targets) == 1.0
    rng = np.random.default_rng(0)
    drawn = [hits(rng.random((2, 16, 16)), targets).mean() for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(random_accuracy(targets), abs=0.06)


class Brightness:
    """Pairs whose score is the mean brightness of the left half."""

    def __init__(self, image):
        self.batch = {"image": image}

    def scores_of(self, batch):
        return batch["image"][:, :, :8].mean(axis=(1, 2, 3))


def test_areas_of_deletion_and_insertion_are_those_of_the_curves():
    image = np.zeros((1, 16, 16, 3))
    image[:, :, :8] = 1.0  # the mean is 0.5
    left = np.zeros((1, 2, 2))
    left[:, :, 0] = 1.0
    deleted, inserted = deletion_and_insertion(Brightness(image), left)
    # the left half is gone, or there, after half of the steps: from 1 to 0.5, from 0.5 to 1
    share = np.minimum(np.arange(STEPS + 1) / STEPS * 2, 1)
    np.testing.assert_allclose(deleted, np.trapezoid(1 - share / 2, dx=1 / STEPS))
    np.testing.assert_allclose(inserted, np.trapezoid(0.5 + share / 2, dx=1 / STEPS))
    worse = deletion_and_insertion(Brightness(image), 1 - left)
    assert worse[0] > deleted and worse[1] < inserted


def test_ranks_begin_with_the_highest_value():
    assert ranks_of(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist() == [[0.75, 0.0], [0.25, 0.5]]


def test_rank_correlation_is_spearmans():
    maps = np.random.default_rng(0).random((3, 4, 4))
    assert rank_correlation(maps, maps**3) == pytest.approx(1.0)
    assert rank_correlation(maps, -maps) == pytest.approx(-1.0)
    assert rank_correlation(maps, np.ones_like(maps)) == 0.0


def test_randomised_parameters_have_the_same_values_in_another_order():
    variables = {"params": {"w": np.arange(24.0).reshape(4, 6)}, "other": {"s": np.ones(2)}}
    found = shuffled(variables)
    assert sorted(found["params"]["w"].reshape(-1)) == list(range(24))
    assert (found["params"]["w"] != variables["params"]["w"]).any()
    assert found["params"]["w"].shape == (4, 6) and found["other"] is variables["other"]


@pytest.mark.parametrize("name", ["emoji_scenes", "emoji_places"])
def test_the_boxes_of_a_scene_are_those_of_its_opaque_pixels(name):
    scenes = open_source(f"embedded:{name}/val_concept")
    for number in range(6):
        sample = scenes[number]
        mask = np.asarray(Image.open(io.BytesIO(sample.metadata["mask"])))
        objects, boxes = sample.metadata["objects"], sample.metadata["boxes"]
        assert len(objects) == len(boxes) == len(sample.metadata["classes"])
        covered = np.zeros(mask.shape, bool)
        for left, top, right, bottom in boxes:
            part = mask[top:bottom, left:right] < 255
            assert part.any(axis=0)[[0, -1]].all() and part.any(axis=1)[[0, -1]].all()
            covered[top:bottom, left:right] = True
        assert not (mask < 255)[~covered].any()
        assert scenes[number] == sample


def test_placed_scenes_have_a_caption_for_each_object_and_no_name_twice():
    scenes = open_source("embedded:emoji_places/val_concept")
    assert len(scenes) == len(open_source("embedded:emoji/val_concept"))
    samples = [scenes[number] for number in range(40)]
    assert {len(sample.captions) for sample in samples} >= {2, 3, 4}
    for sample in samples:
        assert list(sample.captions) == sample.metadata["objects"]
        assert len({*sample.captions}) == len(sample.captions)
    assert scenes.fingerprint() != open_source("embedded:emoji_scenes/val_concept").fingerprint()


def test_targets_are_named_once_and_their_boxes_are_fractions():
    from vlp_jax.config import load_config
    from vlp_jax.data.preprocessor import Preprocessor

    config = load_config("configs/clip_places.py:smoke")
    preprocessor = Preprocessor.from_config(config)
    sample = open_source("embedded:emoji_places/val_vendor")[0]
    found = of_sample(sample, preprocessor, "set")
    assert [one.text for one in found] == list(sample.captions)
    np.testing.assert_allclose([one.box for one in found], np.array(sample.metadata["boxes"]) / 128)
    twice = dataclasses.replace(
        sample, metadata={**sample.metadata, "objects": ["flag"] * len(found)}
    )
    assert of_sample(twice, preprocessor, "set") == []
    bare = Sample("key", sample.image, ("a",), {})
    with pytest.raises(DataError, match="needs the metadata `objects`"):
        of_sample(bare, preprocessor, "set")
