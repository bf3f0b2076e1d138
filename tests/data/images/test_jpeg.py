"""JPEGs in training: the fast way shows what Pillow shows, and leaves to Pillow what it does not
know."""

import io
import resource
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vlp_jax.data.images import jpeg
from vlp_jax.data.images.augmentation import decode_and_augment, training_pixels
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.samples import Reason, SampleError

WHOLE = AugmentationConfig(area=(1.0, 1.0), ratio=(0.01, 100.0))


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 92, "subsampling": "4:4:4"} | options)
    return file.getvalue()


def photograph(width, height, seed=0):
    """As photographs are: every octave of detail has about the same contrast, none of it finer than
    two pixels."""
    rng, sides = np.random.default_rng(seed), max(width, height)
    grids = [
        rng.integers(0, 256, (2**n, 2**n, 3), dtype=np.uint8)
        for n in range(1, 8)
        if 2**n <= sides / 2
    ]
    octaves = [
        Image.fromarray(grid).resize((sides, sides), Image.Resampling.BICUBIC) for grid in grids
    ]
    return Image.fromarray(
        np.mean([np.asarray(octave) for octave in octaves], 0).astype(np.uint8)
    ).crop((0, 0, width, height))


def tagged(orientation, endian="<"):
    """An Exif segment that says nothing but the orientation."""
    order = b"II*\0" if endian == "<" else b"MM\0*"
    return (
        b"Exif\0\0"
        + order
        + struct.pack(f"{endian}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    )


def pixels_by_pillow(data):
    return np.asarray(decode(data, "key", 10**9))


def box_by_jpeg(data, box, size):
    return jpeg.decode_box(data, "key", jpeg.read_header(data), box, size)


def trained(data, size=32, augmentation=WHOLE, seed=0, **spec):
    return decode_and_augment(
        data, "a/key", size, ImagesConfig(**spec), augmentation, np.random.default_rng(seed)
    )[0]


def trained_by_pillow(data, size=32, augmentation=WHOLE, seed=0, **spec):
    return training_pixels(
        decode(data, "a/key", 10**9),
        size,
        ImagesConfig(**spec),
        augmentation,
        np.random.default_rng(seed),
    )[0]


def decibels(found, expected):
    """Peak signal to noise."""
    return 10 * np.log10(
        255**2 / max(np.square(found.astype(float) - np.asarray(expected, float)).mean(), 1e-3)
    )


# What it knows


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
@pytest.mark.parametrize("endian", "<>")
def test_a_picture_is_upright_as_pillow_turns_it(orientation, endian):
    data = encode(photograph(60, 40), exif=tagged(orientation, endian))
    upright = pixels_by_pillow(data)
    header = jpeg.read_header(data)
    assert (
        (header.height, header.width)
        == upright.shape[:2]
        == ((60, 40) if 5 <= orientation <= 8 else (40, 60))
    )
    np.testing.assert_array_equal(box_by_jpeg(data, (3, 5, 35, 37), 32), upright[5:37, 3:35])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_that_shrinks_is_pillow_s_within_a_tolerance(orientation):
    data = encode(photograph(400, 300), exif=tagged(orientation))
    box = (8, 16, 264, 216)  # 256 x 200 at 32 x 32: decoded at a quarter
    expected = decode(data, "key", 10**9).resize((32, 32), Image.Resampling.BICUBIC, box=box)
    assert decibels(box_by_jpeg(data, box, 32), expected) > 40


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "RGB"),
        ({}, "L"),
        (dict(progressive=True), "RGB"),
        (dict(keep_rgb=True), "RGB"),
        (dict(restart_marker_rows=1), "RGB"),
        (dict(optimize=True, quality=30), "RGB"),
        (dict(icc_profile=b"no profile" * 9), "RGB"),
        (dict(comment=b"x" * 9000), "RGB"),
    ],
    ids=[
        "baseline",
        "grey",
        "progressive",
        "RGB inside",
        "restarts",
        "low quality",
        "profile",
        "comment",
    ],
)
def test_every_common_kind_gives_pillow_s_pixels_where_nothing_is_resized(options, mode):
    data = encode(photograph(60, 40).convert(mode), **options)
    assert jpeg.read_header(data) == jpeg.Header(60, 40, 1)
    np.testing.assert_array_equal(
        box_by_jpeg(data, (3, 5, 35, 37), 32), pixels_by_pillow(data)[5:37, 3:35]
    )


@pytest.mark.parametrize(
    "factor", [0.6, 0.9, 1.0, 1.2, 1.5, 1.75, 2.0, 2.25, 2.6, 3.0, 4.0, 6.5, 8.0]
)
def test_a_resize_is_as_near_to_pillow_s_bicubic_as_pillow_s_bilinear_is(factor):
    """Chroma at half the resolution, as most photographs have it."""
    size = 40
    side = round(size * factor)
    data = encode(photograph(340, 340), subsampling="4:2:0")
    # on the 8x8 blocks of the JPEG: elsewhere a scaled decode shifts by part of a pixel
    box = (8, 8, 8 + side, 8 + side)
    picture = decode(data, "key", 10**9)
    bicubic, bilinear = (
        picture.resize((size, size), filter, box=box)
        for filter in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
    )
    assert decibels(box_by_jpeg(data, box, size), bicubic) > min(
        decibels(np.asarray(bilinear), bicubic) - 3, 39
    )


@pytest.mark.parametrize("shape", [(400, 50), (50, 400), (1000, 33), (130, 100), (500, 375)])
def test_sides_that_shrink_differently_are_both_antialiased(shape):
    data = encode(photograph(*shape))
    found = box_by_jpeg(data, (0, 0, *shape), 32)
    assert (
        decibels(found, decode(data, "key", 10**9).resize((32, 32), Image.Resampling.BICUBIC)) > 37
    )


@pytest.mark.parametrize(
    ("side", "fraction"), [(63, 1), (64, 2), (127, 2), (128, 4), (256, 8), (400, 8)]
)
def test_no_more_is_decoded_than_the_crop_needs(monkeypatch, side, fraction):
    shapes, decode_jpeg = [], simplejpeg.decode_jpeg

    def recorded(*arguments):
        shapes.append(decode_jpeg(*arguments).shape[:2])
        return decode_jpeg(*arguments)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", recorded)
    data = encode(photograph(401, 403))
    box_by_jpeg(data, (1, 2, 1 + side, 403), 32)
    assert shapes == [(-(-403 // fraction), -(-401 // fraction))]


def test_the_draws_are_those_of_any_other_picture():
    image, augmentation = (
        photograph(90, 70),
        AugmentationConfig(area=(0.2, 0.9), flip=0.5, brightness=0.3),
    )
    file = io.BytesIO()
    image.save(file, "PNG")
    for seed in range(8):
        found = trained(encode(image, quality=100), augmentation=augmentation, seed=seed)
        expected = trained(file.getvalue(), augmentation=augmentation, seed=seed)
        assert decibels(found, expected) > 33, seed


def test_changes_of_colour_come_on_top():
    data = encode(photograph(60, 40))
    plain = trained(data)
    found = trained(
        data, augmentation=AugmentationConfig(area=(1.0, 1.0), ratio=(0.01, 100.0), grayscale=1.0)
    )
    luma = plain @ [0.299, 0.587, 0.114]
    assert abs(found - luma[..., None]).max() <= 1


@pytest.mark.parametrize("resize", ["squash", "letterbox", "shortest_side_crop"])
@pytest.mark.parametrize("options", [dict(scale=(1.5, 1.5)), dict(rotation=20.0), dict(shift=0.5)])
def test_where_the_background_comes_into_view_pillow_does_it_all(resize, options):
    data, augmentation = encode(photograph(60, 40)), AugmentationConfig(**options, flip=0.5)
    for seed in range(3):
        found = trained(data, augmentation=augmentation, seed=seed, resize=resize)
        expected = trained_by_pillow(data, augmentation=augmentation, seed=seed, resize=resize)
        assert decibels(found, expected) > 38
        # a shifted crop may still lie inside
        assert (found == expected).all() or "shift" in options


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_the_smallest_pictures_and_crops_of_less_than_a_pixel_work(shape):
    data = encode(Image.new("RGB", shape, (200, 100, 50)))
    for seed in range(20):
        for options in (dict(scale=(0.01, 0.3)), dict(area=(0.01, 1.0))):
            found = trained(data, augmentation=AugmentationConfig(**options), seed=seed)
            assert abs(found.astype(int) - (200, 100, 50)).max() <= 2


# What it leaves to Pillow


def with_segment(data, marker, content):
    return (
        data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]
    )


XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "data",
    [
        encode(photograph(60, 40).convert("CMYK")),
        with_segment(encode(photograph(60, 40)), 0xE1, XMP),
        b"\xff\xd8\xff\xd9" + encode(photograph(60, 40))[2:],
    ],
    ids=["CMYK", "an orientation in XMP", "an end before the beginning"],
)
def test_what_is_out_of_the_ordinary_is_left_to_pillow(data):
    assert jpeg.read_header(data) is None
    try:
        expected = trained_by_pillow(data)
    except SampleError as error:
        with pytest.raises(SampleError, match=error.message[:20]):
            trained(data)
    else:
        np.testing.assert_array_equal(trained(data), expected)


def test_xmp_turns_a_picture_as_pillow_says():
    data = with_segment(encode(photograph(60, 40)), 0xE1, XMP)
    assert decode(data, "key", 10**6).size == (40, 60)


def test_damaged_exif_leaves_the_picture_as_it_is_stored():
    exif = tagged(6)
    data = encode(photograph(60, 40), exif=exif).replace(exif[6:10], b"MM??")
    assert jpeg.read_header(data) == jpeg.Header(60, 40, 1)
    assert decode(data, "key", 10**6).size == (60, 40)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95, -12, -2])
def test_a_file_that_is_cut_off_is_a_damaged_sample(kept, progressive):
    data = encode(photograph(200, 150), progressive=progressive)
    with pytest.raises(
        SampleError, match="^data error: a/key: image cannot be decoded: "
    ) as caught:
        trained(data[: kept if kept < 0 else int(len(data) * kept)])
    assert caught.value.reason == Reason.DAMAGED_IMAGE


def test_a_file_that_is_cut_off_and_closed_is_damaged_and_not_filled_up_with_grey():
    data = encode(photograph(200, 150))
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert pixels_by_pillow(cut)[-20:].std() < 1  # what Pillow makes of it
    with pytest.raises(SampleError) as caught:
        trained(cut)
    assert caught.value.reason == Reason.DAMAGED_IMAGE


def test_bytes_changed_in_the_middle_are_what_pillow_makes_of_them():
    data = bytearray(encode(photograph(200, 150)))
    outcomes = set()
    for place in np.random.default_rng(0).integers(300, len(data), 30).tolist():
        changed = bytes(data[:place]) + bytes([data[place] ^ 0x55]) + bytes(data[place + 1 :])
        try:
            found = trained(changed)
            assert decibels(found, trained_by_pillow(changed)) > 33
            outcomes.add("pixels")
        except SampleError as error:
            outcomes.add(error.reason)
    assert "pixels" in outcomes and outcomes <= {"pixels", Reason.DAMAGED_IMAGE}


def bomb(side):
    """A small file that claims side x side pixels."""
    data = encode(photograph(60, 40))
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", side, side) + data[start + 4 :]


@pytest.mark.parametrize(
    "augmentation", [WHOLE, AugmentationConfig(), AugmentationConfig(rotation=10.0)]
)
def test_a_header_that_claims_billions_of_pixels_is_refused_before_anything_is_allocated(
    augmentation,
):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SampleError) as caught:
        trained(bomb(60_000), augmentation=augmentation)
    assert caught.value.reason == Reason.TOO_LARGE
    # KiB; the pixels would take 10 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_pixel_cap_names_the_key_and_the_size():
    data = encode(photograph(60, 40))
    assert trained(data, maximum_pixels=2400).shape == (32, 32, 3)
    with pytest.raises(
        SampleError, match="a/key: has 60x40 pixels, more than data.images.maximum_pixels=2399"
    ):
        trained(data, maximum_pixels=2399)
