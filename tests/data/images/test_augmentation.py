"""Training's pixels: what every random change does, and that pictures which are not JPEG keep
theirs for ever."""

import collections
import colorsys
import dataclasses
import pathlib
import re
import runpy

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.augmentation import check_augmentation, decode_and_augment, training_pixels
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig, evaluation_pixels
from vlp_jax.data.images.randaugment import RandAugmentConfig
from vlp_jax.data.images.transform import ImageTransformConfig
from vlp_jax.errors import ConfigError, DataError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
SIZE = 32
MAGENTA = (255, 0, 255)


def noise(width=SIZE, height=SIZE, channels=3, seed=0):
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def flat(colour, width=SIZE, height=SIZE):
    return Image.new("RGB", (width, height), colour)


def content(left, top, right, bottom, size=40):
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[top:bottom, left:right] = (*MAGENTA, 255)
    return Image.fromarray(pixels)


def largest_difference(found, expected):
    return np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()


def trained(image, seed=0, size=SIZE, resize="squash", behind=(255, 255, 255), **options):
    spec = ImagesConfig(resize=resize, background=behind)
    return training_pixels(
        image, size, spec, AugmentationConfig(**options), np.random.default_rng(seed)
    )[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Negative(ImageTransformConfig):
    """The negative of an image, or pixels of another type."""

    dtype: str = "uint8"

    def apply(self, pixels, rng):
        return (255 - pixels).astype(self.dtype)


OPTIONS = {
    "rotation": 30.0,
    "area": (0.3, 0.5),
    "scale": (0.5, 0.8),
    "aspect": 0.5,
    "shift": 0.3,
    "flip": 1.0,
    "background": "random",
    "randaugment": RandAugmentConfig(operations=3),
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.3,
    "grayscale": 1.0,
    "blur": 1.0,
    "erase": 1.0,
    "transforms": {"negative": Negative()},
}


def test_every_augmentation_option_is_tested_here():
    erasing = {"erase_area", "erase_ratio", "erase_fill"}  # in test_erasing.py
    assert {*OPTIONS, "ratio"} | erasing == {
        field.name for field in dataclasses.fields(AugmentationConfig)
    }


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_pixels_and_keeps_their_shape_and_dtype(option, resize):
    image = noise(channels=4)
    plain, changed = (
        trained(image, resize=resize),
        trained(image, resize=resize, **{option: OPTIONS[option]}),
    )
    assert (changed != plain).any()
    assert (changed.shape, changed.dtype) == ((SIZE, SIZE, 3), np.uint8)


def test_transforms_come_last_in_the_order_of_their_entries():
    image = noise(channels=3)
    once, twice = (
        trained(image, transforms=dict.fromkeys(names, Negative())) for names in ("a", "ab")
    )
    np.testing.assert_array_equal(255 - once, twice)
    np.testing.assert_array_equal(twice, trained(image))


def test_a_transform_that_returns_something_else_is_named():
    with pytest.raises(
        DataError,
        match=re.escape(
            "data.augmentation.transforms.mine: returned float32 (32, 32, 3), expected uint8"
        ),
    ):
        trained(noise(channels=3), transforms={"mine": Negative(dtype="float32")})


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
@pytest.mark.parametrize("area", [None, (0.3, 0.5)])
@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_pixels_depend_on_the_generator_alone(resize, area, shape):
    options = OPTIONS | {"area": area}
    first, again, other = (
        trained(noise(*shape, 4), seed, resize=resize, **options) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("resize", "shape"),
    [
        ("squash", (40, 70)),
        ("squash", (70, 40)),
        ("shortest_side_crop", (49, 49)),
        ("letterbox", (49, 49)),
        ("squash", (SIZE, SIZE)),
        ("shortest_side_crop", (20, 20)),
        ("letterbox", (20, 20)),
    ],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_with_all_options_off_training_sees_what_evaluation_sees_where_nothing_is_left_to_choose(
    resize, shape, channels
):
    image = noise(*shape, channels)
    np.testing.assert_array_equal(
        trained(image, resize=resize), evaluation_pixels(image, SIZE, ImagesConfig(resize=resize))
    )


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_with_all_options_off_training_crops_to_content_as_evaluation_does(resize):
    spec = ImagesConfig(resize=resize, crop_to_content=True, content_margin=0.04)
    image = content(3, 20, 13, 26)
    found, _ = training_pixels(image, SIZE, spec, AugmentationConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(found, evaluation_pixels(image, SIZE, spec))


def test_with_all_options_off_a_wide_picture_is_cropped_at_a_random_place_and_never_padded():
    image = Image.fromarray(
        np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (SIZE, 100, 3)).copy()
    )
    windows = [
        trained(image, seed, resize="shortest_side_crop", behind=MAGENTA) for seed in range(20)
    ]
    # greys only: no background
    assert all(np.ptp(window, axis=-1).max() == 0 for window in windows)
    starts = {int(window[0, 0, 0]) for window in windows}
    # over more than half of the 68 columns, 2 levels each
    assert len(starts) > 10 and max(starts) - min(starts) > 68


def test_flip_at_probability_1_mirrors_exactly():
    image = noise(50, 50, 4)
    np.testing.assert_array_equal(
        trained(image, flip=1.0), evaluation_pixels(image, SIZE, ImagesConfig())[:, ::-1]
    )


def test_flip_happens_as_often_as_it_is_asked_for():
    plain = trained(noise())
    flipped = sum((trained(noise(), seed, flip=0.3) != plain).any() for seed in range(300))
    assert 60 <= flipped <= 120  # 90 expected, standard deviation 8


def test_grayscale_at_probability_1_gives_the_luma_in_all_channels():
    found = trained(noise(), grayscale=1.0)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    assert largest_difference(found[..., 0], noise().convert("L")) <= 1


@pytest.mark.parametrize("option", [{"saturation": 1.0}, {"hue": 0.5}, {"grayscale": 1.0}])
def test_colour_changes_leave_greys_alone(option):
    grey = noise().convert("L").convert("RGB")
    assert largest_difference(trained(grey, **option), grey) <= 1


def test_brightness_multiplies_by_a_factor_in_its_range():
    found = [
        trained(flat((100, 50, 20)), seed, brightness=0.5)[0, 0].astype(float)
        for seed in range(100)
    ]
    factors = [pixel[0] / 100 for pixel in found]
    assert 0.5 <= min(factors) < 0.55 and 1.45 < max(factors) <= 1.5
    assert (
        max(
            abs(pixel - factor * np.array([100, 50, 20])).max()
            for pixel, factor in zip(found, factors, strict=True)
        )
        <= 1
    )


def test_contrast_keeps_mid_grey_and_moves_the_rest_away_or_towards_it():
    pixels = np.array(
        [
            trained(flat(level), seed, contrast=0.5)[0, 0, 0]
            for level in (27, 127, 227)
            for seed in range(50)
        ]
    )
    low, middle, high = pixels.reshape(3, 50).astype(float)
    assert abs(middle - 127.5).max() <= 1
    assert low.min() == 0 and 70 < low.max() <= 78  # 127.5 - 100.5 x factor in [0.5, 1.5], cut at 0
    assert abs(low + high - 254).max() <= 2 or high.max() == 255


def test_hue_turns_the_colour_circle_and_keeps_lightness_and_chroma():
    colours = [
        colorsys.rgb_to_yiq(*trained(flat((160, 110, 110)), seed, hue=0.5)[0, 0] / 255)
        for seed in range(100)
    ]
    luma, i, q = np.array(colours).T
    before = colorsys.rgb_to_yiq(160 / 255, 110 / 255, 110 / 255)
    assert abs(luma - before[0]).max() <= 0.01
    # colorsys rounds the coefficients of YIQ
    assert abs(np.hypot(i, q) / np.hypot(*before[1:]) - 1).max() <= 0.1
    quarters = collections.Counter(zip(i > 0, q > 0, strict=True))
    assert len(quarters) == 4 and min(quarters.values()) > 10


def test_a_random_background_appears_only_behind_transparent_pixels():
    pixels = np.array(noise(channels=4))
    pixels[..., 3] = np.where(np.arange(SIZE) < SIZE // 2, 255, 0)
    image = Image.fromarray(pixels)
    fixed, first, second = (
        trained(image, seed, background=kind)
        for seed, kind in ((1, "fixed"), (1, "random"), (2, "random"))
    )
    opaque, transparent = np.s_[:, : SIZE // 2], np.s_[:, SIZE // 2 :]
    for found in (first, second):
        np.testing.assert_array_equal(found[opaque], fixed[opaque])
        assert (found[transparent] == found[0, -1]).all()
    assert (first[0, -1] != second[0, -1]).any()


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_a_scale_above_1_zooms_out(resize):
    for seed in range(10):
        found = trained(flat(0), seed, resize=resize, scale=(2.0, 2.0))
        visible = (255 - found.astype(float)).sum() / 255 / found.size
        assert abs(visible - 1 / 4) <= 0.01, seed


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_a_scale_below_1_zooms_in(resize):
    ramp = Image.fromarray(
        np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy()
    )
    for seed in range(10):
        found = trained(ramp, seed, resize=resize, scale=(0.25, 0.25), behind=MAGENTA)
        # 64 levels wide, 32 samples at their centres
        assert abs(np.ptp(found[..., 0].astype(int)) - 62) <= 2, seed
        assert np.ptp(found, axis=-1).max() == 0, seed


def test_letterbox_with_all_options_off_shows_the_whole_picture():
    for seed in range(10):
        found = trained(flat(0, 40, 20), seed, resize="letterbox")
        assert abs((255 - found.astype(float)).mean() / 255 - 1 / 2) <= 0.02, seed


def test_a_shift_moves_the_picture_by_no_more_than_its_fraction_of_a_side():
    visible = [
        (255 - trained(flat(0), seed, shift=0.5).astype(float)).mean() / 255 for seed in range(50)
    ]
    assert 0.25 - 0.02 <= min(visible) < 0.5 and max(visible) <= 1


def test_aspect_changes_the_shape_and_not_the_area_of_the_crop():
    wide = 0
    for seed in range(20):
        black = 255 - trained(flat(0), seed, aspect=0.5, scale=(2.0, 2.0)).astype(float)[..., 0]
        width, height = black.max(axis=0).sum() / 255, black.max(axis=1).sum() / 255
        assert abs(width * height / SIZE**2 - 1 / 4) <= 0.03, seed
        assert np.exp(-0.5) * 0.9 <= width / height <= np.exp(0.5) * 1.1, seed
        wide += width > height
    assert 4 <= wide <= 16


def test_rotation_keeps_the_middle_and_shows_the_background_in_the_corners():
    found = trained(flat(0), rotation=30.0, behind=MAGENTA)
    assert (found[SIZE // 2, SIZE // 2] == 0).all()
    assert (found[0, 0] == MAGENTA).all() or (found[0, -1] == MAGENTA).all()


def test_rotation_goes_both_ways_up_to_its_limit():
    halves = np.full((64, 64, 3), 255, np.uint8)
    halves[:32] = 0
    tilts = []
    for seed in range(60):
        dark = (
            255 - trained(Image.fromarray(halves), seed, size=64, rotation=30.0).astype(float)
        ).sum(axis=(0, 2)) / 765
        tilts.append(np.degrees(np.arctan2(dark[40] - dark[24], 16)))
    assert -32 <= min(tilts) < -20 and 20 < max(tilts) <= 32, tilts


def test_blur_takes_contrast_from_noise_and_leaves_its_mean():
    image = noise(200, 200)
    plain, blurred = (trained(image, size=200, blur=blur).astype(float) for blur in (0.0, 1.0))
    assert blurred.std() < 0.8 * plain.std() and abs(blurred.mean() - plain.mean()) < 1


def test_erase_paints_one_rectangle_of_2_to_25_percent_in_one_colour():
    for seed in range(30):
        found = trained(flat(0), seed, erase=1.0)
        rows, columns = np.nonzero(found.any(-1))
        rectangle = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (rectangle == rectangle[0, 0]).all(), seed
        assert 0.015 <= rectangle[..., 0].size / SIZE**2 <= 0.27, seed  # the sides are whole pixels


def test_pictures_that_are_not_jpeg_have_the_very_pixels_that_results_were_measured_on():
    golden, script = (
        np.load(GOLDEN / "training_pixels.npz"),
        runpy.run_path(str(GOLDEN / "make_training_pixels.py")),
    )
    cases = list(script["cases"]())
    assert [name for name, *_ in cases] == golden["names"].tolist()
    for (name, data, spec, augmentation, seed), expected in zip(
        cases, golden["pixels"], strict=True
    ):
        size = len(expected)
        for found, _ in (
            training_pixels(
                decode(data, "key", 10**6), size, spec, augmentation, np.random.default_rng(seed)
            ),
            decode_and_augment(data, "key", size, spec, augmentation, np.random.default_rng(seed)),
        ):
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_randaugment_that_is_off_takes_no_draw():
    spec, rng = ImagesConfig(resize="squash"), np.random.default_rng(7)
    training_pixels(noise(), SIZE, spec, AugmentationConfig(area=(0.5, 1.0)), rng)
    other = np.random.default_rng(7)
    training_pixels(
        noise(),
        SIZE,
        spec,
        AugmentationConfig(
            area=(0.5, 1.0), randaugment=RandAugmentConfig(operations=0, magnitude=30)
        ),
        other,
    )
    following = rng.random()
    assert other.random() == following
    with_one = np.random.default_rng(7)
    training_pixels(
        noise(),
        SIZE,
        spec,
        AugmentationConfig(area=(0.5, 1.0), randaugment=RandAugmentConfig(operations=1)),
        with_one,
    )
    assert with_one.random() != following


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(area=(0.5, 1.0), scale=(0.9, 1.0)),
            "data.augmentation.area: .* and scale would do nothing",
        ),
        (
            dict(area=(0.5, 1.0), shift=0.1, aspect=0.1),
            "data.augmentation.area: .* and aspect, shift would do nothing",
        ),
        (
            dict(area=(0.5, 1.5)),
            r"data.augmentation.area: expected a range above 0.*up to 1; got "
            r"\(0.5, 1.5\)",
        ),
        (
            dict(area=(0.9, 0.5)),
            "data.augmentation.area: expected a range above 0, the lower end first",
        ),
        (dict(ratio=(0.0, 1.0)), "data.augmentation.ratio: expected a range"),
        (dict(scale=(1.2, 0.9)), "data.augmentation.scale: expected a range"),
    ],
)
def test_two_crops_at_once_and_empty_ranges_are_config_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        check_augmentation(AugmentationConfig(**options))


def test_every_single_crop_is_allowed():
    for options in ({}, dict(area=(0.08, 1.0)), dict(scale=(0.9, 1.25), aspect=0.1, shift=0.04)):
        check_augmentation(AugmentationConfig(**options))
