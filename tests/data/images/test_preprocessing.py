"""Pixels: what decoding makes of every kind of file, and the three resize rules."""

import dataclasses
import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from vlp_jax.data.images.augmentation import training_pixels
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import (
    RESAMPLING,
    ImagesConfig,
    crop_to_content,
    evaluation_pixels,
    normalise,
)
from vlp_jax.data.samples import Reason, SampleError

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
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


def palette_file(**options):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    return encode(image, **options)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(rows):
    """A PNG of 16-bit RGB, which Pillow cannot write."""
    pixels = np.array(rows, ">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(palette_file(), [(10, 20, 30), (40, 50, 60), (70, 80, 90)], id="palette"),
        pytest.param(
            palette_file(transparency=bytes([255, 0, 128])),
            [(10, 20, 30, 255), (40, 50, 60, 0), (70, 80, 90, 128)],
            id="palette, transparent",
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[[7, 0], [9, 200]]], np.uint8))),
            [(7, 7, 7, 0), (9, 9, 9, 200)],
            id="LA",
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[7, 9]], np.uint8))),
            [(7, 7, 7), (9, 9, 9)],
            id="8-bit grey",
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[7, 9]], np.uint8)), transparency=9),
            [(7, 7, 7, 255), (9, 9, 9, 0)],
            id="8-bit grey, one level transparent",
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[0, 7 * 256 + 255, 65535]], np.uint16))),
            [(0, 0, 0), (7, 7, 7), (255, 255, 255)],
            id="16-bit grey",
        ),
        pytest.param(
            png_of_16_bits([[[0x0102, 0xFFFF, 0x7F00], [0, 0x8000, 0x00FF]]]),
            [(1, 255, 127), (0, 128, 0)],
            id="16-bit RGB",
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[True, False]]))),
            [(255, 255, 255), (0, 0, 0)],
            id="1-bit",
        ),
        pytest.param(
            encode(
                Image.fromarray(
                    np.array([[[255, 0, 51, 0], [0, 0, 0, 255]]], np.uint8), mode="CMYK"
                ),
                "TIFF",
            ),
            [(0, 255, 204), (0, 0, 0)],
            id="CMYK",
        ),
        pytest.param(
            encode(
                Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)),
                transparency=(4, 5, 6),
            ),
            [(1, 2, 3, 255), (4, 5, 6, 0)],
            id="RGB, one colour transparent",
        ),
    ],
)
def test_every_mode_becomes_rgb_or_with_transparency_rgba(data, expected):
    np.testing.assert_array_equal(decoded(data), [expected])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [flat(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        **({} if kind == "GIF" else {"lossless": True}),
    )
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(decoded(data)[..., :3], np.asarray(frames[0]))


def damaged_files():
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        data = encode(noise(), kind)
        yield pytest.param(data[: len(data) // 2], id=f"{kind} cut in half")
        yield pytest.param(data[:10], id=f"{kind} of 10 bytes")
    yield pytest.param(b"", id="empty")
    yield pytest.param(b"<html>404 not found</html>", id="a web page")
    dds = encode(noise(), "DDS")
    yield pytest.param(
        dds[:80] + b"\x11" + dds[81:], id="a format that Pillow knows and has not implemented"
    )


@pytest.mark.parametrize("data", list(damaged_files()))
def test_bytes_that_are_no_whole_image_are_a_damaged_sample_named_by_its_key(data):
    with pytest.raises(SampleError, match="^data error: a/key: image ") as caught:
        decoded(data)
    assert caught.value.reason == Reason.DAMAGED_IMAGE
    assert " at 0x" not in str(caught.value)  # an address would differ between workers


def test_a_picture_above_the_pixel_cap_is_refused_and_one_at_the_cap_is_not():
    assert decoded(encode(noise(10, 12)), maximum_pixels=120).shape == (12, 10, 3)
    with pytest.raises(
        SampleError, match="a/key: has 10x12 pixels, more than data.images.maximum_pixels=119"
    ) as caught:
        decoded(encode(noise(10, 12)), maximum_pixels=119)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_small_file_that_claims_ten_billion_pixels_is_too_large():
    data = encode(noise())
    data = (
        data[:8]
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
        + data[33:]
    )
    with pytest.raises(SampleError) as caught:
        decoded(data, maximum_pixels=10**12)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_colour_profile_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = encode(noise(), icc_profile=profile)
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile
    np.testing.assert_array_equal(decoded(data), noise())


# Evaluation

SHAPES = [
    (49, 49),
    (98, 49),
    (32, 32),
    (20, 20),
    (64, 48),
    (48, 80),
    (33, 66),
    (17, 51),
    (200, 100),
    (31, 33),
]


def largest_difference(found, expected):
    return np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()


@pytest.mark.full
@pytest.mark.parametrize("shape", SHAPES)
def test_shortest_side_crop_is_what_transformers_makes_for_clip(shape):
    """Where the surplus to cut is even: there torchvision, the reference of CLIP's authors, and
    transformers agree."""
    transformers = pytest.importorskip("transformers")
    size = {"height": SIZE, "width": SIZE}
    expected = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size)(
        noise(*shape)
    )["pixel_values"][0]
    spec = ImagesConfig()
    found = normalise(evaluation_pixels(noise(*shape), SIZE, spec), spec.mean, spec.std)
    assert largest_difference(found.transpose(2, 0, 1), expected) <= 1e-6  # an 8-bit level is 0.014


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_squash_is_what_transformers_makes_for_siglip(shape, interpolation):
    transformers = pytest.importorskip("transformers")
    size = {"height": SIZE, "width": SIZE}
    expected = transformers.SiglipImageProcessorPil(size=size, resample=RESAMPLING[interpolation])(
        noise(*shape)
    )
    spec = ImagesConfig(
        resize="squash", interpolation=interpolation, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    found = normalise(evaluation_pixels(noise(*shape), SIZE, spec), spec.mean, spec.std)
    assert largest_difference(found.transpose(2, 0, 1), expected["pixel_values"][0]) <= 1e-6


def files_of_every_mode():
    """(mode, bytes) of one image of noise with hidden colours, in files of the modes that
    image-text data have."""
    rgba = noise(37, 53, channels=4)
    palette = rgba.convert("RGB").quantize(64)
    palette.info["transparency"] = 3
    made = {
        "RGB": rgba.convert("RGB"),
        "L": rgba.convert("L"),
        "LA": rgba.convert("LA"),
        "P": palette,
        "RGBA": rgba,
        "CMYK": rgba.convert("RGB").convert("CMYK"),
    }
    for mode, image in made.items():
        file = io.BytesIO()
        image.save(
            file,
            "JPEG" if mode == "CMYK" else "PNG",
            **({"transparency": 3} if mode == "P" else {}),
        )
        yield mode, file.getvalue()


def torchvision_resize_and_centre_crop(image, size, resampling):
    """torchvision 0.20's Resize(size) and CenterCrop(size), written out (functional.py,
    _compute_resized_output_size)."""
    short, long = sorted(image.size)
    new = int(size * long / short)
    image = image.resize((size, new) if image.width <= image.height else (new, size), resampling)
    left, top = int(round((image.width - size) / 2.0)), int(round((image.height - size) / 2.0))
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("reference", ["CLIPImageProcessorPil", "SiglipImageProcessorPil"])
def test_over_white_images_of_every_mode_have_the_pixels_of_transformers(reference):
    transformers = pytest.importorskip("transformers")
    size = {"height": 24, "width": 24}
    if reference.startswith("CLIP"):
        spec, theirs = (
            ImagesConfig(),
            transformers.CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=size),
        )
    else:
        spec = ImagesConfig(resize="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
        theirs = transformers.SiglipImageProcessorPil(
            size=size, resample=Image.Resampling.BICUBIC, do_convert_rgb=True
        )
    for mode, data in files_of_every_mode():
        expected = theirs(Image.open(io.BytesIO(data)))["pixel_values"][0]
        found = normalise(
            evaluation_pixels(decode(data, mode, 10**6), 24, spec), spec.mean, spec.std
        )
        assert largest_difference(found.transpose(2, 0, 1), expected) <= 1e-6, mode


def test_with_transparency_dropped_images_of_every_mode_are_as_pillow_converts_them():
    spec = ImagesConfig(transparency="drop")
    for mode, data in files_of_every_mode():
        opened = Image.open(io.BytesIO(data))
        assert opened.mode == mode
        opaque = opened.convert("RGB")
        found = evaluation_pixels(decode(data, mode, 10**6), 24, spec)
        np.testing.assert_array_equal(
            found,
            torchvision_resize_and_centre_crop(opaque, 24, Image.Resampling.BICUBIC),
            err_msg=mode,
        )
        kept = evaluation_pixels(
            decode(data, mode, 10**6), 24, dataclasses.replace(spec, transparency="composite")
        )
        assert (kept != found).any() == (mode in ("LA", "P", "RGBA")), mode
        trained, _ = training_pixels(
            decode(data, mode, 10**6), 24, spec, AugmentationConfig(), np.random.default_rng(0)
        )
        expected, _ = training_pixels(
            opaque, 24, spec, AugmentationConfig(), np.random.default_rng(0)
        )
        np.testing.assert_array_equal(trained, expected, err_msg=mode)


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_shortest_side_crop_is_torchvision_s_at_every_shape(interpolation):
    for width, height in [*SHAPES, *np.random.default_rng(3).integers(1, 120, (100, 2)).tolist()]:
        image = noise(width, height)
        found = evaluation_pixels(image, SIZE, ImagesConfig(interpolation=interpolation))
        expected = torchvision_resize_and_centre_crop(image, SIZE, RESAMPLING[interpolation])
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{width}x{height}")


def test_letterbox_is_pillow_s_pad_where_the_surplus_is_even():
    """Where it is odd, Pillow rounds to an even offset and OpenCLIP down; the golden pixels below
    hold those."""
    for width, height in [
        *SHAPES,
        (500, 10),
        *np.random.default_rng(4).integers(3, 90, (100, 2)).tolist(),
    ]:
        image = noise(width, height)
        if round(min(width, height) * SIZE / max(width, height)) % 2 == SIZE % 2:
            found = evaluation_pixels(
                image, SIZE, ImagesConfig(resize="letterbox", background=MAGENTA)
            )
            expected = ImageOps.pad(image, (SIZE, SIZE), Image.Resampling.BICUBIC, color=MAGENTA)
            np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{width}x{height}")


RULES = {"shortest": "shortest_side_crop", "squash": "squash", "longest": "letterbox"}


@pytest.mark.parametrize("theirs", RULES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_every_resize_rule_gives_open_clip_s_pixels_exactly(theirs, interpolation):
    golden = np.load(GOLDEN / "evaluation_pixels.npz")  # by make_torchvision.py
    spec = ImagesConfig(resize=RULES[theirs], interpolation=interpolation, background=(77, 77, 77))
    for shape, expected in zip(
        golden["shapes"].tolist(), golden[f"{theirs} {interpolation}"], strict=True
    ):
        pixels = np.random.default_rng(shape).integers(
            0, 256, (shape[1], shape[0], 3), dtype=np.uint8
        )
        found = evaluation_pixels(Image.fromarray(pixels), len(expected), spec)
        np.testing.assert_array_equal(found, expected, err_msg=str(shape))


def test_big_vision_s_resize_differs_where_it_shrinks_since_it_has_no_antialiasing():
    """Its `resize` is TensorFlow's bilinear at half-pixel centres, each output from four pixels;
    Pillow's sees all of them."""
    stripes = np.zeros((SIZE * 4, SIZE * 4, 3), np.uint8)
    # what is next to the centre of every 4 columns is white, the rest black
    stripes[:, 1::4] = stripes[:, 2::4] = 255
    found = evaluation_pixels(
        Image.fromarray(stripes), SIZE, ImagesConfig(resize="squash", interpolation="bilinear")
    )
    assert 100 < found[:, 2:-2].mean() < 200  # TensorFlow's: 255


def test_letterbox_keeps_a_thin_line_visible():
    assert (
        evaluation_pixels(flat(0, 500, 2), SIZE, ImagesConfig(resize="letterbox")) == 0
    ).sum() == SIZE * 3


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (12, 200, 99)])
def test_transparent_pixels_show_the_configured_background(background):
    image = noise(channels=4)
    rgb, alpha = np.split(np.asarray(image, np.float64), [3], axis=-1)
    expected = (rgb * alpha + np.array(background) * (255 - alpha)) / 255
    found = evaluation_pixels(image, SIZE, ImagesConfig(background=background))
    assert largest_difference(found, expected) <= 1  # 8-bit rounding


def test_colours_under_transparent_pixels_do_not_bleed_when_resizing():
    pixels = np.zeros((SIZE * 2, SIZE * 2, 4), np.uint8)
    pixels[:, :SIZE] = (0, 0, 0, 255)
    pixels[:, SIZE:] = (255, 0, 0, 0)  # an invisible red
    found = evaluation_pixels(Image.fromarray(pixels), SIZE, ImagesConfig()).astype(int)
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


@pytest.mark.parametrize(
    "image",
    [Image.new("RGBA", (9, 5)), noise(9, 5), noise(9, 5).convert("RGBA")],
    ids=["fully transparent", "RGB", "opaque RGBA"],
)
def test_a_picture_without_a_transparent_border_is_not_cropped_to_content(image):
    cropped = crop_to_content(image, margin=0.5)
    assert cropped.size == image.size and cropped.tobytes() == image.tobytes()


def test_crop_to_content_is_off_unless_asked_for():
    spec = ImagesConfig(resize="squash", background=(0, 0, 0))
    image = content(3, 20, 13, 30)
    assert (evaluation_pixels(image, 40, spec) == MAGENTA).all(-1).sum() == 100
    assert (
        evaluation_pixels(image, 40, dataclasses.replace(spec, crop_to_content=True)) == MAGENTA
    ).all()


@pytest.mark.parametrize("resize", ["shortest_side_crop", "squash"])
def test_crop_fraction_crops_the_centre_of_a_larger_resized_image(resize):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3)).astype(np.uint8))
    spec = ImagesConfig(resize=resize, crop_fraction=0.875, crop_offset="floor")
    shape = (22, 16) if resize == "shortest_side_crop" else (16, 16)  # 14 / 0.875 = 16
    larger = np.asarray(image.resize(shape, Image.Resampling.BICUBIC))
    left, top = (shape[0] - 14) // 2, 1
    found = evaluation_pixels(image, 14, spec)
    np.testing.assert_array_equal(found, larger[top : top + 14, left : left + 14])
