"""Random erasing: how often, how large, of which shape, where, and with what, as Zhong et al. 2020
(algorithm 1) say."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.augmentation import check_augmentation, training_pixels
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError

SIZE, DRAWS = 96, 2000
PAPER = dict(erase_area=(0.02, 0.4), erase_ratio=(0.3, 1 / 0.3))  # section 4.1
BOUND = 1.95 / np.sqrt(DRAWS)  # of the distance of Kolmogorov and Smirnov, at 0.1%
SPEC = ImagesConfig(mean=(0.25, 0.5, 0.75))


def painted(seed, level=0, **options):
    return training_pixels(
        Image.new("RGB", (SIZE, SIZE), (level,) * 3),
        SIZE,
        SPEC,
        AugmentationConfig(erase=1.0, **options),
        np.random.default_rng(seed),
    )[0]


def rectangle(pixels, level=0):
    """(top, left, height, width) of what is not of that level."""
    rows, columns = np.nonzero((pixels != level).any(axis=-1))
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


def distance(found, cumulative):
    """The largest between the distribution of the found values and the one expected."""
    found = np.sort(found)
    expected = cumulative(found)
    steps = np.arange(len(found) + 1) / len(found)
    return max(np.abs(steps[1:] - expected).max(), np.abs(steps[:-1] - expected).max())


def uniform(low, high):
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


@pytest.fixture(scope="module")
def rectangles():
    return np.array([rectangle(painted(seed, erase_fill="mean", **PAPER)) for seed in range(DRAWS)])


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_it_happens_as_often_as_it_is_asked_for(probability):
    image, rng = Image.new("RGB", (8, 8)), np.random.default_rng(0)
    count = sum(
        training_pixels(image, 8, SPEC, AugmentationConfig(erase=probability), rng)[0].any()
        for _ in range(DRAWS)
    )
    assert abs(count - probability * DRAWS) < 4 * np.sqrt(DRAWS * probability * (1 - probability))


def test_areas_are_uniform_over_their_range(rectangles):
    """But for whole pixels: sides are rounded by up to half of one, the smallest are about 8 by
    23."""
    areas = rectangles[:, 2] * rectangles[:, 3] / SIZE**2
    assert distance(areas, uniform(*PAPER["erase_area"])) < BOUND + 0.005
    assert areas.min() < 0.03 and 0.39 < areas.max() < 0.41


def test_ratios_are_log_uniform_where_all_of_them_fit_and_as_wide_as_fits_where_not(rectangles):
    areas, ratios = (
        rectangles[:, 2] * rectangles[:, 3] / SIZE**2,
        np.log(rectangles[:, 2] / rectangles[:, 3]),
    )
    everywhere = ratios[areas < 0.29]
    assert (
        distance(everywhere, uniform(np.log(0.3), -np.log(0.3)))
        < 1.95 / np.sqrt(len(everywhere)) + 0.01
    )
    large = areas > 0.35
    assert np.abs(ratios[large]).max() < -np.log(0.34) and rectangles[large, 2:].max() == SIZE
    assert (
        distance(ratios[large], uniform(np.log(0.375), -np.log(0.375)))
        < 1.95 / np.sqrt(large.sum()) + 0.05
    )


def test_places_are_uniform_over_those_where_the_rectangle_fits(rectangles):
    rng = np.random.default_rng(1)
    for axis in (0, 1):
        room = SIZE - rectangles[:, 2 + axis]
        some = room > 20
        places = (rectangles[some, axis] + rng.random(some.sum())) / (room[some] + 1)
        assert distance(places, uniform(0, 1)) < 1.95 / np.sqrt(some.sum())


def test_a_fill_is_one_colour_one_a_pixel_or_the_mean_that_normalisation_takes_to_zero():
    first = {}
    for fill in ("colour", "noise", "mean"):
        found = [painted(seed, 3, erase_fill=fill) for seed in range(200)]
        top, left, height, width = rectangle(found[0], 3)
        first[fill] = found[0][top : top + height, left : left + width]
        middles = np.array(
            [
                pixels[a + h // 2, b + w // 2]
                for pixels in found
                for a, b, h, w in [rectangle(pixels, 3)]
            ]
        )
        if fill == "mean":
            assert (middles == [64, 128, 191]).all()
            np.testing.assert_allclose(middles[0] / 255, SPEC.mean, atol=0.5 / 255)
        else:
            assert (
                distance((middles.ravel() + 0.5) / 256, uniform(0, 1))
                < 1.95 / np.sqrt(600) + 1 / 256
            )
    assert (first["colour"] == first["colour"][0, 0]).all()
    noise = first["noise"].reshape(-1, 3)
    assert len(np.unique(noise, axis=0)) > 0.95 * len(noise)


def test_what_is_erased_is_a_function_of_seed_sample_and_epoch_and_drawn_for_each_view_by_itself():
    count, augmentation = 6, AugmentationConfig(erase=1.0, erase_fill="noise", **PAPER)
    source = open_source(f"synthetic:{count}")
    preprocessor = Preprocessor(16, ImagesConfig(), load_tokenizer(TextConfig(), 8, 4096))
    rows = TrainRows(
        Mixture((Part("", source, TextsConfig(), count),)),
        preprocessor,
        augmentation,
        seed=3,
        inputs=("second_view",),
    )
    other_seed = dataclasses.replace(rows, seed=4)
    of_views = dataclasses.replace(
        rows, augmentation=AugmentationConfig(), view_augmentation=augmentation
    )
    seen = {}
    for position in range(3 * count):
        row = rows.row(position)
        for name in ("image", "second_view"):
            np.testing.assert_array_equal(dataclasses.replace(rows).row(position)[name], row[name])
            seen.setdefault(tuple(row["image_id"]), []).append(row[name].tobytes())
        np.testing.assert_array_equal(of_views.row(position)["second_view"], row["second_view"])
        other = other_seed.row(position)
        seen.setdefault(tuple(other["image_id"]), []).append(other["image"].tobytes())
    # two views and another seed, in three epochs
    assert [len(set(pictures)) for pictures in seen.values()] == [9] * count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(erase=0.5, erase_area=(0.0, 0.4)),
            r"data.augmentation.erase_area: expected a range "
            r"above 0.*got \(0.0, 0.4\)",
        ),
        (dict(erase=0.5, erase_area=(0.5, 1.5)), "data.augmentation.erase_area: .* up to 1"),
        (
            dict(erase=0.5, erase_ratio=(3.0, 0.3)),
            "data.augmentation.erase_ratio: expected a range",
        ),
        (
            dict(erase_area=(0.02, 0.4)),
            "data.augmentation.erase_area: has no effect with data.augmentation.erase=0",
        ),
        (dict(erase_fill="mean"), "data.augmentation.erase_fill: has no effect"),
        (
            dict(erase=1.0, erase_area=(0.02, 0.6), erase_ratio=(2.0, 3.0)),
            r"height/width in \(2.0, "
            r"3.0\) "
            r".* "
            r"one "
            r"of 0.5 does",
        ),
        (
            dict(erase=1.0, erase_area=(0.02, 0.6), erase_ratio=(0.3, 0.5)),
            r"height/width in \(0.3, "
            r"0.5\) "
            r".* "
            r"one "
            r"of 0.5 does",
        ),
    ],
)
def test_ranges_that_are_empty_or_never_fit_and_settings_without_effect_are_config_errors(
    options, message
):
    with pytest.raises(ConfigError, match=message):
        check_augmentation(AugmentationConfig(**options))


def test_the_paper_s_ranges_and_the_largest_that_fit_are_allowed():
    check_augmentation(AugmentationConfig(erase=0.5, **PAPER))
    check_augmentation(
        AugmentationConfig(erase=0.5, erase_area=(0.02, 0.5), erase_ratio=(2.0, 3.0))
    )
    assert (
        rectangle(painted(0, erase_area=(0.5, 0.5), erase_ratio=(2.0, 3.0), erase_fill="mean"))[2]
        == SIZE
    )
