"""Pictures made smaller for storage: shape, format, pixels against Pillow's own resize, and what
stays as it is."""

import io

import numpy as np
import pytest
from PIL import Image

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.prepare.downscale import downscale_image
from vlp_jax.data.samples import Reason, SampleError


def noise(width, height, mode="RGB"):
    pixels = np.random.default_rng(width * height).integers(
        0, 256, (height, width, 4), dtype=np.uint8
    )
    return Image.fromarray(pixels, "RGBA").convert(mode)


def encode(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 30), (16, 12)),
        ((30, 40), (12, 16)),
        ((30, 30), (12, 12)),
        ((500, 13), (462, 12)),
        ((13, 12), None),
        ((12, 400), None),
        ((3, 5), None),
    ],
)
def test_the_shorter_side_becomes_the_size_and_smaller_pictures_keep_their_bytes(shape, expected):
    data = encode(noise(*shape), "PNG")
    small = downscale_image(data, 12, "key")
    assert (opened(small).size == expected) if expected else (small is data)


@pytest.mark.parametrize(
    ("image_format", "options", "lossless", "expected"),
    [
        ("JPEG", {}, False, "JPEG"),
        ("JPEG", {}, True, "PNG"),
        ("PNG", {}, False, "PNG"),
        ("GIF", {}, False, "PNG"),
        ("WEBP", {"lossless": True}, False, "WEBP"),
        ("WEBP", {}, True, "WEBP"),
        ("BMP", {}, False, "PNG"),
    ],
)
def test_a_picture_stays_in_its_kind_of_format(image_format, options, lossless, expected):
    small = downscale_image(encode(noise(40, 30), image_format, **options), 12, "key", lossless)
    assert opened(small).format == expected
    if expected == "WEBP":
        assert small[12:16] == b"VP8L"  # the lossless kind


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pixels_and_alpha_are_those_of_pillow_s_antialiased_bicubic_resize(image_format, mode):
    image = noise(40, 30, mode)
    found = opened(
        downscale_image(encode(image, image_format, lossless=True, exact=True), 12, "key")
    )
    expected = image.resize((16, 12), Image.Resampling.BICUBIC)
    assert found.mode == mode
    visible = np.asarray(expected.convert("RGBA"))[..., 3] > 0
    np.testing.assert_array_equal(np.asarray(found)[visible], np.asarray(expected)[visible])


def test_a_fine_pattern_becomes_its_mean_and_not_another_pattern():
    checks = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    small = np.asarray(opened(downscale_image(encode(checks, "PNG"), 8, "key")).convert("L"), int)
    assert np.abs(small - 127.5).max() <= 2


def test_a_jpeg_is_stored_again_with_quality_95():
    image = noise(40, 30)
    found = opened(downscale_image(encode(image, "JPEG", quality=60), 12, "key"))
    assert found.quantization == opened(encode(image, "JPEG", quality=95)).quantization


def test_exif_orientation_is_applied_and_left_out():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    stripes = np.zeros((30, 40, 3), np.uint8)
    stripes[:15] = 255
    found = opened(downscale_image(encode(Image.fromarray(stripes), "JPEG", exif=exif), 12, "key"))
    assert found.size == (12, 16) and not found.getexif()
    assert np.asarray(found)[:, 11].mean() > 200 > 50 > np.asarray(found)[:, 0].mean()


def test_a_grey_16_bit_picture_and_a_palette_with_transparency_keep_what_is_seen():
    grey = Image.fromarray(np.full((30, 40), 40_000, np.uint16))
    assert np.asarray(opened(downscale_image(encode(grey, "PNG"), 12, "key")))[
        ..., 0
    ].mean() == pytest.approx(40_000 / 256, abs=1)
    palette = noise(40, 30).quantize(16)
    assert opened(downscale_image(encode(palette, "PNG", transparency=3), 12, "key")).mode == "RGBA"


def test_damaged_and_too_large_pictures_are_bad_samples(monkeypatch):
    data = encode(noise(40, 30), "PNG")
    for cut in (data[: len(data) // 2], b"no picture"):
        with pytest.raises(SampleError) as caught:
            downscale_image(cut, 12, "key")
        assert caught.value.reason == Reason.DAMAGED_IMAGE
    monkeypatch.setattr(ImagesConfig, "maximum_pixels", 40 * 30 - 1)
    with pytest.raises(SampleError) as caught:
        downscale_image(data, 12, "key")
    assert caught.value.reason == Reason.TOO_LARGE
