"""RandAugment: every operation gives torchvision's pixels, and the draws are uniform."""

import collections
import pathlib

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images import randaugment as module
from vlp_jax.data.images.randaugment import NAMES, RandAugmentConfig, apply, randaugment

# by make_torchvision.py
GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden" / "randaugment.npz")
THEIRS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
MAGNITUDES = (9, 17, 30)
FILL = (200, 30, 90)
PICTURE = Image.fromarray(GOLDEN["image"])


def test_all_of_torchvision_s_operations_are_there():
    assert {*THEIRS, "image"} == set(GOLDEN) and len(NAMES) == len(THEIRS) == 14


@pytest.mark.parametrize(("name", "theirs"), list(zip(NAMES, THEIRS, strict=True)))
def test_an_operation_gives_torchvision_s_pixels_at_every_magnitude_and_sign(name, theirs):
    for row, magnitude in enumerate(MAGNITUDES):
        for negative in (False, True):
            found = apply(name, PICTURE, magnitude, negative, FILL)
            np.testing.assert_array_equal(
                found, GOLDEN[theirs][row, int(negative)], err_msg=f"{magnitude} {negative}"
            )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_an_operation_at_full_magnitude_changes_the_picture(name):
    assert (np.asarray(apply(name, PICTURE, 30, False, FILL)) != GOLDEN["image"]).any()


def test_operations_and_signs_are_drawn_alike_often(monkeypatch):
    drawn = collections.Counter()
    monkeypatch.setattr(
        module,
        "apply",
        lambda name, image, magnitude, negative, fill: drawn.update([(name, negative)]) or image,
    )
    rng = np.random.default_rng(0)
    for _ in range(700):
        randaugment(PICTURE, RandAugmentConfig(operations=4), FILL, rng)
    # 100 expected each
    assert len(drawn) == 28 and min(drawn.values()) > 60 and max(drawn.values()) < 145


def test_no_operation_leaves_picture_and_generator_alone():
    rng = np.random.default_rng(3)
    assert randaugment(PICTURE, RandAugmentConfig(operations=0), FILL, rng) is PICTURE
    assert rng.random() == np.random.default_rng(3).random()


def test_operations_are_drawn_from_those_named_and_applied_as_often_as_their_probability(
    monkeypatch,
):
    """ALBEF: ten of the fourteen, each that is drawn in half of all cases
    (dataset/randaugment.py:323-331)."""
    drawn = collections.Counter()
    monkeypatch.setattr(
        module,
        "apply",
        lambda name, image, magnitude, negative, fill: drawn.update([name]) or image,
    )
    rng, names = np.random.default_rng(0), ("identity", "rotate", "equalize", "shear_x")
    for _ in range(1000):
        randaugment(
            PICTURE, RandAugmentConfig(operations=2, probability=0.5, names=names), FILL, rng
        )
    # 250 expected each
    assert {*drawn} == {*names} and min(drawn.values()) > 200 and max(drawn.values()) < 300
