"""The random resized crop: its boxes are distributed as torchvision's."""

import pathlib

import numpy as np
import pytest

from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.cropping import random_box, random_resized_crop
from vlp_jax.data.images.preprocessing import ImagesConfig

# by make_torchvision.py
GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden" / "random_resized_crops.npz")
DRAWS = 5000


def boxes(shape, area, ratio):
    """[draws, 4]: left, top, width, height."""
    rng = np.random.default_rng(0)
    drawn = np.array([random_resized_crop(shape, area, ratio, rng) for _ in range(DRAWS)])
    return np.concatenate([drawn[:, :2], drawn[:, 2:] - drawn[:, :2]], axis=1)


def largest_gap(first, second):
    """Between the distribution functions of two samples (Kolmogorov and Smirnov)."""
    places = np.union1d(first, second)
    return max(
        abs(
            np.searchsorted(np.sort(first), places, "right") / len(first)
            - np.searchsorted(np.sort(second), places, "right") / len(second)
        )
    )


@pytest.mark.parametrize("case", range(len(GOLDEN["cases"])))
def test_boxes_are_distributed_as_torchvision_s(case):
    width, height, *ranges = GOLDEN["cases"][case].tolist()
    found, expected = (
        boxes((int(width), int(height)), ranges[:2], ranges[2:]),
        GOLDEN["boxes"][case],
    )
    for name, measure in {
        "left": lambda b: b[:, 0],
        "top": lambda b: b[:, 1],
        "width": lambda b: b[:, 2],
        "height": lambda b: b[:, 3],
        "area": lambda b: b[:, 2].astype(int) * b[:, 3],
        "ratio": lambda b: b[:, 2] / b[:, 3],
    }.items():
        # 1.8 / sqrt(1000 x 5/6): one in a thousand
        assert largest_gap(measure(found), measure(expected)) < 0.065, name


def test_where_nothing_fits_the_box_is_torchvision_s_in_the_middle():
    for case, (width, height, *ranges) in enumerate(GOLDEN["cases"].tolist()):
        found = {
            tuple(box) for box in boxes((int(width), int(height)), ranges[:2], ranges[2:]).tolist()
        }
        expected = {tuple(box) for box in GOLDEN["boxes"][case].tolist()}
        if len(expected) == 1:
            assert found == expected
    assert sum(len(np.unique(case, axis=0)) == 1 for case in GOLDEN["boxes"]) >= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_a_box_lies_inside_and_is_never_empty(shape):
    found = boxes(shape, (0.01, 1.0), (3 / 4, 4 / 3))
    assert (
        (found[:, :2] >= 0).all()
        and (found[:, 2:] >= 1).all()
        and (found[:, :2] + found[:, 2:] <= shape).all()
    )


def test_area_decides_which_crop_is_drawn():
    rng = np.random.default_rng(0)
    whole = random_box((40, 30), ImagesConfig(resize="squash"), AugmentationConfig(), rng)
    assert whole == (0, 0, 40, 30)
    left, top, right, bottom = random_box(
        (40, 30),
        ImagesConfig(resize="squash"),
        AugmentationConfig(area=(0.2, 0.2), ratio=(1.0, 1.0)),
        rng,
    )
    assert right - left == bottom - top == 15  # the root of 0.2 x 1200, rounded
