"""Pixels: what decoding makes of every kind of file, the three resize rules, and training's random changes."""

import collections
import colorsys
import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from vlp_jax.config.schema import Augmentation, Images
from vlp_jax.data.images import RESAMPLING, crop_to_content, decode, evaluation_pixels, normalise, training_pixels
from vlp_jax.data.samples import Reason, SampleError

SIZE = 32
MAGENTA = (255, 0, 255)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width=SIZE, height=SIZE, channels=3, seed=0):
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def flat(colour, width=SIZE, height=SIZE):
    return Image.new("RGB", (width, height), colour)


def decoded(data, maximum_pixels=10**6):
    return np.asarray(decode(data, "a/key", maximum_pixels))


def trained(image, seed=0, size=SIZE, resize="squash", behind=(255, 255, 255), **options):
    spec = Images(resize=resize, background=behind)
    return training_pixels(image, size, spec, Augmentation(**options), np.random.default_rng(seed))


# Decoding

UPRIGHT = {  # Exif 2.32, 4.6.4: where the stored picture's first row and first column belong
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_is_turned_upright_by_its_exif_orientation(orientation, kind):
    stored, exif = noise(5, 3), Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encode(stored, kind, exif=exif, lossless=True))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](np.asarray(stored)))


def test_damaged_exif_leaves_the_picture_as_it_is_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(noise(5, 3), "WEBP", exif=exif, lossless=True)
    damaged = data.replace(exif.tobytes()[6:10], b"MM??")
    assert damaged != data
    np.testing.assert_array_equal(decoded(damaged), np.asarray(noise(5, 3)))


def palette_file():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    return encode(image, transparency=bytes([255, 0, 128]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(palette_file(), [(10, 20, 30, 255), (40, 50, 60, 0), (70, 80, 90, 128)], id="palette, transparent"),
        pytest.param(encode(Image.fromarray(np.array([[[7, 0], [9, 200]]], np.uint8))), [(7, 7, 7, 0), (9, 9, 9, 200)], id="LA"),
        pytest.param(encode(Image.fromarray(np.array([[7, 9]], np.uint8))), [(7, 7, 7), (9, 9, 9)], id="8-bit grey"),
        pytest.param(encode(Image.fromarray(np.array([[7, 9]], np.uint8)), transparency=9), [(7, 7, 7, 255), (9, 9, 9, 0)],
                     id="8-bit grey, one level transparent"),
        pytest.param(encode(Image.fromarray(np.array([[0, 7 * 256 + 255, 65535]], np.uint16))),
                     [(0, 0, 0), (7, 7, 7), (255, 255, 255)], id="16-bit grey"),
        pytest.param(encode(Image.fromarray(np.array([[True, False]]))), [(255, 255, 255), (0, 0, 0)], id="1-bit"),
        pytest.param(encode(Image.fromarray(np.array([[[255, 0, 51, 0], [0, 0, 0, 255]]], np.uint8), mode="CMYK"), "TIFF"),
                     [(0, 255, 204), (0, 0, 0)], id="CMYK"),
        pytest.param(encode(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), transparency=(4, 5, 6)),
                     [(1, 2, 3, 255), (4, 5, 6, 0)], id="RGB, one colour transparent"),
    ],
)
def test_every_mode_becomes_rgb_or_with_transparency_rgba(data, expected):
    np.testing.assert_array_equal(decoded(data), [expected])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [flat(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "GIF" else {"lossless": True}))
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decoded(data)[..., :3], np.asarray(frames[0]))


def damaged_files():
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = encode(noise(), kind)
        yield pytest.param(data[:len(data) // 2], id=f"{kind} cut in half")
        yield pytest.param(data[:10], id=f"{kind} of 10 bytes")
    yield pytest.param(b"", id="empty")
    yield pytest.param(b"<html>404 not found</html>", id="a web page")
    dds = encode(noise(), "DDS")
    yield pytest.param(dds[:80] + b"\x11" + dds[81:], id="a format that Pillow knows and has not implemented")


@pytest.mark.parametrize("data", list(damaged_files()))
def test_bytes_that_are_no_whole_image_are_a_damaged_sample_named_by_its_key(data):
    with pytest.raises(SampleError, match="^data error: a/key: image ") as caught:
        decoded(data)
    assert caught.value.reason == Reason.DAMAGED_IMAGE
    assert " at 0x" not in str(caught.value)  # an address would differ between workers


def test_a_picture_above_the_pixel_cap_is_refused_and_one_at_the_cap_is_not():
    assert decoded(encode(noise(10, 12)), maximum_pixels=120).shape == (12, 10, 3)
    with pytest.raises(SampleError, match="a/key: has 10x12 pixels, more than data.images.maximum_pixels=119") as caught:
        decoded(encode(noise(10, 12)), maximum_pixels=119)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_small_file_that_claims_ten_billion_pixels_is_too_large():
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = encode(noise())
    data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with pytest.raises(SampleError) as caught:
        decoded(data, maximum_pixels=10**12)
    assert caught.value.reason == Reason.TOO_LARGE


# Evaluation

SHAPES = [(49, 49), (98, 49), (32, 32), (20, 20), (64, 48), (48, 80), (33, 66), (17, 51), (200, 100), (31, 33)]


def largest_difference(found, expected):
    return np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_shortest_side_crop_is_what_transformers_makes_for_clip(shape):
    """Where the surplus to cut is even: there torchvision, the reference of CLIP's authors, and transformers agree."""
    transformers = pytest.importorskip("transformers")
    size = {"height": SIZE, "width": SIZE}
    expected = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size)(noise(*shape))["pixel_values"][0]
    spec = Images()
    found = normalise(evaluation_pixels(noise(*shape), SIZE, spec), spec.mean, spec.std)
    assert largest_difference(found.transpose(2, 0, 1), expected) <= 1e-6  # an 8-bit level is 0.014


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_squash_is_what_transformers_makes_for_siglip(shape, interpolation):
    transformers = pytest.importorskip("transformers")
    size = {"height": SIZE, "width": SIZE}
    expected = transformers.SiglipImageProcessorPil(size=size, resample=RESAMPLING[interpolation])(noise(*shape))
    spec = Images(resize="squash", interpolation=interpolation, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = normalise(evaluation_pixels(noise(*shape), SIZE, spec), spec.mean, spec.std)
    assert largest_difference(found.transpose(2, 0, 1), expected["pixel_values"][0]) <= 1e-6


def torchvision_resize_and_centre_crop(image, size, resampling):
    """torchvision 0.20's Resize(size) and CenterCrop(size), written out (functional.py, _compute_resized_output_size)."""
    short, long = sorted(image.size)
    new = int(size * long / short)
    image = image.resize((size, new) if image.width <= image.height else (new, size), resampling)
    left, top = int(round((image.width - size) / 2.0)), int(round((image.height - size) / 2.0))
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_shortest_side_crop_is_torchvision_s_at_every_shape(interpolation):
    for width, height in [*SHAPES, *np.random.default_rng(3).integers(1, 120, (100, 2)).tolist()]:
        image = noise(width, height)
        found = evaluation_pixels(image, SIZE, Images(interpolation=interpolation))
        expected = torchvision_resize_and_centre_crop(image, SIZE, RESAMPLING[interpolation])
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{width}x{height}")


def test_letterbox_is_pillow_s_pad_at_every_shape():
    for width, height in [*SHAPES, (500, 10), *np.random.default_rng(4).integers(3, 90, (100, 2)).tolist()]:
        image = noise(width, height)
        found = evaluation_pixels(image, SIZE, Images(resize="letterbox", background=MAGENTA))
        expected = ImageOps.pad(image, (SIZE, SIZE), Image.Resampling.BICUBIC, color=MAGENTA)
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{width}x{height}")


def test_letterbox_keeps_a_thin_line_visible():
    assert (evaluation_pixels(flat(0, 500, 2), SIZE, Images(resize="letterbox")) == 0).sum() == SIZE * 3


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (12, 200, 99)])
def test_transparent_pixels_show_the_configured_background(background):
    image = noise(channels=4)
    rgb, alpha = np.split(np.asarray(image, np.float64), [3], axis=-1)
    expected = (rgb * alpha + np.array(background) * (255 - alpha)) / 255
    found = evaluation_pixels(image, SIZE, Images(background=background))
    assert largest_difference(found, expected) <= 1  # 8-bit rounding


def test_colours_under_transparent_pixels_do_not_bleed_when_resizing():
    pixels = np.zeros((SIZE * 2, SIZE * 2, 4), np.uint8)
    pixels[:, :SIZE] = (0, 0, 0, 255)
    pixels[:, SIZE:] = (255, 0, 0, 0)  # an invisible red
    found = evaluation_pixels(Image.fromarray(pixels), SIZE, Images()).astype(int)
    assert np.ptp(found, axis=-1).max() <= 1  # only greys between black and the white background


def content(left, top, right, bottom, size=40):
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[top:bottom, left:right] = (*MAGENTA, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("box", [(3, 20, 13, 26), (0, 0, 6, 10), (34, 30, 40, 40)])
def test_content_off_the_centre_comes_to_the_middle_of_a_square_of_its_longer_side(box):
    cropped = crop_to_content(content(*box), margin=0.0)
    assert cropped.size == (10, 10)
    wide = box[2] - box[0] == 10
    expected = (0, 2, 10, 8) if wide else (2, 0, 8, 10)
    assert cropped.getchannel("A").getbbox() == expected


def test_the_content_margin_is_a_fraction_of_its_side_on_each_side():
    cropped = crop_to_content(content(3, 20, 13, 30), margin=0.2)
    assert cropped.size == (14, 14) and cropped.getchannel("A").getbbox() == (2, 2, 12, 12)


@pytest.mark.parametrize("image", [Image.new("RGBA", (9, 5)), noise(9, 5), noise(9, 5).convert("RGBA")],
                         ids=["fully transparent", "RGB", "opaque RGBA"])
def test_a_picture_without_a_transparent_border_is_not_cropped_to_content(image):
    cropped = crop_to_content(image, margin=0.5)
    assert cropped.size == image.size and cropped.tobytes() == image.tobytes()


def test_crop_to_content_is_off_unless_asked_for():
    spec = Images(resize="squash", background=(0, 0, 0))
    image = content(3, 20, 13, 30)
    assert (evaluation_pixels(image, 40, spec) == MAGENTA).all(-1).sum() == 100
    assert (evaluation_pixels(image, 40, dataclasses.replace(spec, crop_to_content=True)) == MAGENTA).all()


# Training

OPTIONS = {
    "rotation": 30.0, "scale": (0.5, 0.8), "aspect": 0.5, "shift": 0.3, "flip": 1.0, "brightness": 0.5, "contrast": 0.5,
    "saturation": 0.5, "hue": 0.3, "grayscale": 1.0, "blur": 1.0, "erase": 1.0, "background": "random",
}


def test_every_augmentation_option_is_tested_here():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(Augmentation)}


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_the_pixels_and_keeps_their_shape_and_dtype(option, resize):
    image = noise(channels=4)
    plain, changed = trained(image, resize=resize), trained(image, resize=resize, **{option: OPTIONS[option]})
    assert (changed != plain).any()
    assert (changed.shape, changed.dtype) == ((SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_pixels_depend_on_the_generator_alone(resize, shape):
    first, again, other = (trained(noise(*shape, 4), seed, resize=resize, **OPTIONS) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("resize", "shape"),
    [("squash", (40, 70)), ("squash", (70, 40)), ("shortest_side_crop", (49, 49)), ("letterbox", (49, 49)),
     ("squash", (SIZE, SIZE)), ("shortest_side_crop", (20, 20)), ("letterbox", (20, 20))],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_with_all_options_off_training_sees_what_evaluation_sees_where_nothing_is_left_to_choose(resize, shape, channels):
    image = noise(*shape, channels)
    np.testing.assert_array_equal(trained(image, resize=resize), evaluation_pixels(image, SIZE, Images(resize=resize)))


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash", "letterbox"])
def test_with_all_options_off_training_crops_to_content_as_evaluation_does(resize):
    spec = Images(resize=resize, crop_to_content=True, content_margin=0.04)
    image = content(3, 20, 13, 26)
    found = training_pixels(image, SIZE, spec, Augmentation(), np.random.default_rng(0))
    np.testing.assert_array_equal(found, evaluation_pixels(image, SIZE, spec))


def test_with_all_options_off_a_wide_picture_is_cropped_at_a_random_place_and_never_padded():
    image = Image.fromarray(np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (SIZE, 100, 3)).copy())
    windows = [trained(image, seed, resize="shortest_side_crop", behind=MAGENTA) for seed in range(20)]
    assert all(np.ptp(window, axis=-1).max() == 0 for window in windows)  # greys only: no background
    starts = {int(window[0, 0, 0]) for window in windows}
    assert len(starts) > 10 and max(starts) - min(starts) > 68  # over more than half of the 68 columns, 2 levels each


def test_flip_at_probability_1_mirrors_exactly():
    image = noise(50, 50, 4)
    np.testing.assert_array_equal(trained(image, flip=1.0), evaluation_pixels(image, SIZE, Images())[:, ::-1])


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
    found = [trained(flat((100, 50, 20)), seed, brightness=0.5)[0, 0].astype(float) for seed in range(100)]
    factors = [pixel[0] / 100 for pixel in found]
    assert 0.5 <= min(factors) < 0.55 and 1.45 < max(factors) <= 1.5
    assert max(abs(pixel - factor * np.array([100, 50, 20])).max() for pixel, factor in zip(found, factors, strict=True)) <= 1


def test_contrast_keeps_mid_grey_and_moves_the_rest_away_or_towards_it():
    pixels = np.array([trained(flat(level), seed, contrast=0.5)[0, 0, 0] for level in (27, 127, 227) for seed in range(50)])
    low, middle, high = pixels.reshape(3, 50).astype(float)
    assert abs(middle - 127.5).max() <= 1
    assert low.min() == 0 and 70 < low.max() <= 78  # 127.5 - 100.5 x factor in [0.5, 1.5], cut at 0
    assert abs(low + high - 254).max() <= 2 or high.max() == 255


def test_hue_turns_the_colour_circle_and_keeps_lightness_and_chroma():
    colours = [colorsys.rgb_to_yiq(*trained(flat((160, 110, 110)), seed, hue=0.5)[0, 0] / 255) for seed in range(100)]
    luma, i, q = np.array(colours).T
    before = colorsys.rgb_to_yiq(160 / 255, 110 / 255, 110 / 255)
    assert abs(luma - before[0]).max() <= 0.01
    assert abs(np.hypot(i, q) / np.hypot(*before[1:]) - 1).max() <= 0.1  # colorsys rounds the coefficients of YIQ
    quarters = collections.Counter(zip(i > 0, q > 0, strict=True))
    assert len(quarters) == 4 and min(quarters.values()) > 10


def test_a_random_background_appears_only_behind_transparent_pixels():
    pixels = np.array(noise(channels=4))
    pixels[..., 3] = np.where(np.arange(SIZE) < SIZE // 2, 255, 0)
    image = Image.fromarray(pixels)
    fixed, first, second = (trained(image, seed, background=kind) for seed, kind in ((1, "fixed"), (1, "random"), (2, "random")))
    opaque, transparent = np.s_[:, :SIZE // 2], np.s_[:, SIZE // 2:]
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
    ramp = Image.fromarray(np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy())
    for seed in range(10):
        found = trained(ramp, seed, resize=resize, scale=(0.25, 0.25), behind=MAGENTA)
        assert abs(np.ptp(found[..., 0].astype(int)) - 62) <= 2, seed  # 64 levels wide, 32 samples at their centres
        assert np.ptp(found, axis=-1).max() == 0, seed


def test_letterbox_with_all_options_off_shows_the_whole_picture():
    for seed in range(10):
        found = trained(flat(0, 40, 20), seed, resize="letterbox")
        assert abs((255 - found.astype(float)).mean() / 255 - 1 / 2) <= 0.02, seed


def test_a_shift_moves_the_picture_by_no_more_than_its_fraction_of_a_side():
    visible = [(255 - trained(flat(0), seed, shift=0.5).astype(float)).mean() / 255 for seed in range(50)]
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
        dark = (255 - trained(Image.fromarray(halves), seed, size=64, rotation=30.0).astype(float)).sum(axis=(0, 2)) / 765
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
        rectangle = found[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
        assert (rectangle == rectangle[0, 0]).all(), seed
        assert 0.015 <= rectangle[..., 0].size / SIZE**2 <= 0.27, seed  # the sides are whole pixels
