"""Pixels of every mode and format: right, or refused by name, and the same by every way in."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from vlp_jax.data.images import decoding, image_formats
from vlp_jax.data.images.augmentation import decode_and_augment
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.prepare.downscale import downscale_image
from vlp_jax.data.prepare.record_schema import encode_image
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer

SIZE = 8
PREPROCESS = Preprocessor(
    SIZE,
    ImagesConfig(resize="squash", background=(0, 0, 255)),
    load_tokenizer(TextConfig(), 6, 4096),
)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def loaded(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def ways(data, path):
    """What each way to hand in a file gives: its pixels, or the message that refuses it."""
    path.write_bytes(data)
    spec, rng = PREPROCESS.images, np.random.default_rng(0)
    calls = {
        "path": lambda: PREPROCESS.pixels(path),
        "bytes": lambda: PREPROCESS.pixels(data),
        "opened": lambda: PREPROCESS.pixels(Image.open(path)),
        "loaded": lambda: PREPROCESS.pixels(loaded(data)),
        "prepared": lambda: PREPROCESS.pixels(encode_image(data, "keep", "k")),
        "prepared as png": lambda: PREPROCESS.pixels(encode_image(data, "png", "k")),
        "trained": lambda: decode_and_augment(data, "k", SIZE, spec, AugmentationConfig(), rng)[0],
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except SampleError as error:
            found[name] = error.message
    return found


def assert_one(found, expected):
    for name, pixels in found.items():
        assert not isinstance(pixels, str), (name, pixels)
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG"])
def test_exif_orientation_counts_by_every_way_in(tmp_path, kind, orientation):
    """Pillow's `exif_transpose` is the reference."""
    stored = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(loaded(data)))
    found = ways(data, tmp_path / "x")
    if kind == "JPEG":  # by libjpeg-turbo: another decoder
        assert np.abs(found.pop("trained").astype(int) - expected).max() <= 3
    assert_one(found, expected)


def test_an_image_that_was_turned_upright_is_not_turned_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = loaded(
        encode(
            Image.fromarray(np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)),
            exif=exif,
        )
    )
    np.testing.assert_array_equal(
        PREPROCESS.pixels(ImageOps.exif_transpose(image)), PREPROCESS.pixels(image)
    )


def png(depth, colour, rows, transparent=b""):
    """A PNG of one pixel format, by the specification; `rows` as they are stored."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    header = struct.pack(
        ">IIBBBBB", len(rows[0]) * 8 // depth // samples, len(rows), depth, colour, 0, 0, 0
    )
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [
        (b"IHDR", header),
        *([(b"tRNS", transparent)] if transparent else []),
        (b"IDAT", body),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values, bits, photometric=1, sample_format=1):
    """An uncompressed grey TIFF, by the specification (TIFF 6.0); `values`: bytes as they are
    stored, in 8x8 pixels."""
    tags = {
        256: SIZE,
        257: SIZE,
        258: bits,
        259: 1,
        262: photometric,
        273: 8 + 2 + 12 * 10 + 4,
        277: 1,
        278: SIZE,
        279: len(values),
        339: sample_format,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + values


RAMP = np.arange(64).reshape(SIZE, SIZE)


def packed_12_bits(values):
    pairs = values.reshape(-1, 2)
    return bytes(
        byte for a, b in pairs.tolist() for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)
    )


GREYS = {
    "16-bit PNG": (encode(Image.fromarray((RAMP * 1000).astype(np.uint16))), RAMP * 1000 >> 8),
    "16-bit TIFF": (tiff((RAMP * 1000).astype("<u2").tobytes(), 16), RAMP * 1000 >> 8),
    "16-bit TIFF, white is zero": (
        tiff((RAMP * 1000).astype("<u2").tobytes(), 16, 0),
        65535 - RAMP * 1000 >> 8,
    ),
    "8-bit TIFF, white is zero": (tiff(RAMP.astype(np.uint8).tobytes(), 8, 0), 255 - RAMP),
    "12-bit TIFF": (tiff(packed_12_bits(RAMP * 64), 12), RAMP * 64 >> 4),
    "float TIFF": (
        encode(Image.fromarray((RAMP / 63).astype(np.float32)), "TIFF"),
        np.round(RAMP / 63 * 255),
    ),
    "float TIFF by hand": (
        tiff((RAMP / 63).astype("<f4").tobytes(), 32, 1, 3),
        np.round(RAMP / 63 * 255),
    ),
    "16-bit PGM": (b"P5 8 8 65535\n" + (RAMP * 1000).astype(">u2").tobytes(), RAMP * 1000 >> 8),
    "16-bit JPEG 2000": (
        encode(Image.fromarray((RAMP * 1000).astype(np.uint16)), "JPEG2000"),
        RAMP * 1000 >> 8,
    ),
    "1-bit PNG": (encode(Image.fromarray(RAMP % 3 == 0)), (RAMP % 3 == 0) * 255),
    "PBM": (b"P4 8 8\n" + np.packbits(RAMP % 3 == 0).tobytes(), (RAMP % 3 != 0) * 255),
}


@pytest.mark.parametrize("name", GREYS)
def test_greys_of_any_depth_are_scaled_to_eight_bits(tmp_path, name):
    data, grey = GREYS[name]
    found = ways(data, tmp_path / "x")
    assert_one(found, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", [name for name in GREYS if "PNG" in name or name == "16-bit TIFF"])
def test_greys_are_those_of_opencv(name):
    theirs = cv2.imdecode(np.frombuffer(GREYS[name][0], np.uint8), cv2.IMREAD_UNCHANGED)
    theirs = theirs >> 8 if theirs.dtype == np.uint16 else theirs
    np.testing.assert_array_equal(np.asarray(decode(GREYS[name][0], "k", 99))[..., 0], theirs)


TRANSPARENT = {  # stored rows of one pixel row, tRNS, expected grey and alpha
    "1 bit": (png(1, 0, [b"\xaa"], struct.pack(">H", 1)), [255, 0] * 4, [0, 255] * 4),
    "2 bits": (png(2, 0, [b"\x1b"], struct.pack(">H", 1)), [0, 85, 170, 255], [255, 0, 255, 255]),
    "4 bits": (png(4, 0, [b"\x5f"], struct.pack(">H", 5)), [85, 255], [0, 255]),
    "8 bits": (png(8, 0, [b"\x05\x09"], struct.pack(">H", 5)), [5, 9], [0, 255]),
    "16 bits": (png(16, 0, [b"\x12\x34\x12\x35"], struct.pack(">H", 0x1234)), [18, 18], [0, 255]),
    "16 bits and alpha": (png(16, 4, [bytes.fromhex("1234ff008234ffff")]), [18, 130], [255, 255]),
}


@pytest.mark.parametrize("depth", TRANSPARENT)
def test_the_transparent_level_of_a_grey_png_counts_at_every_depth(tmp_path, depth):
    data, grey, alpha = TRANSPARENT[depth]
    rgba = np.asarray(decode(data, "k", 99).convert("RGBA"))[0]
    np.testing.assert_array_equal(rgba[:, 0], grey)
    np.testing.assert_array_equal(rgba[:, 3], alpha)
    found = ways(data, tmp_path / "x")
    if depth in ("2 bits", "4 bits"):  # an image that Pillow has loaded has forgotten its depth
        del found["loaded"]
    assert_one(found, found["bytes"])


REFUSED = {
    "32-bit whole numbers": (
        encode(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        "whole numbers of 32 bits",
    ),
    "signed 16 bits": (tiff(RAMP.astype("<i2").tobytes(), 16, 1, 2), "whole numbers of 32 bits"),
    "float up to 255": (
        encode(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        "floating point between 0 and 63",
    ),
    "negative float": (
        encode(Image.fromarray(-RAMP.astype(np.float32)), "TIFF"),
        "floating point between -63 and 0",
    ),
    "not a number": (
        encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
        "floating point between",
    ),
    "16-bit RGB, one colour transparent": (
        png(16, 2, [bytes.fromhex("123456789abc123456789abd")], bytes.fromhex("123456789abc")),
        "16-bit RGB with one transparent colour",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pixels_without_a_known_meaning_are_refused_by_every_way_in(tmp_path, name):
    data, words = REFUSED[name]
    found = ways(data, tmp_path / "x")
    del found["prepared"]  # keeps the file, and reads it back: below
    for way, message in {**found, "shrunk": refusal(downscale_image, data, 4, "k")}.items():
        assert isinstance(message, str) and words in message and message.startswith("image "), (
            way,
            message,
        )


def refusal(call, *arguments):
    with pytest.raises(SampleError) as caught:
        call(*arguments)
    return caught.value.message


COLOURS = {
    "La": [[200, 100]],
    "LA": [[200, 100]],
    "RGBa": [[100, 50, 0, 100]],
    "RGBA": [[10, 20, 30, 40]],
    "RGBX": [[10, 20, 30, 0]],
    "RGB": [[10, 20, 30]],
    "CMYK": [[255, 0, 51, 0]],
    "L": [[7]],
    "HSV": [[0, 255, 255]],
    "YCbCr": [[81, 90, 240]],
    "LAB": [[255, 128, 128]],
    "1": [[255]],
    "P": [[1]],
    "PA": [[1, 128]],
}
MEANT = {
    "La": (255, 255, 255, 100),
    "LA": (200, 200, 200, 100),
    "RGBa": (255, 127, 0, 100),
    "RGBA": (10, 20, 30, 40),
    "RGBX": (10, 20, 30),
    "RGB": (10, 20, 30),
    "CMYK": (0, 255, 204),
    "L": (7, 7, 7),
    "HSV": (255, 0, 0),
    "YCbCr": (238, 14, 14),
    "LAB": (255, 255, 255),
    "1": (255, 255, 255),
    "P": (40, 50, 60),
    "PA": (40, 50, 60, 128),
}


@pytest.mark.parametrize("mode", COLOURS)
def test_every_mode_that_pillow_has_is_what_it_means(mode):
    image = Image.new(mode, (1, 1))
    if mode in ("P", "PA"):
        image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([value[0] if len(value) == 1 else tuple(value) for value in COLOURS[mode]])
    if mode == "La":
        image.putdata([(100, 100)])
    found = np.asarray(decoding.convert_image(image, "k", 99))[0, 0]
    np.testing.assert_allclose(found, MEANT[mode], atol=2)


ARRAYS = [
    RAMP.astype(np.uint8),
    (RAMP[..., None] * [4, 2]).astype(np.uint8),
    RAMP > 9,
    (RAMP * 1000).astype(np.uint16),
    (RAMP / 63).astype(np.float32),
    RAMP.astype(np.uint8)[..., None],
    (RAMP[..., None] * [4, 3, 2, 1]).astype(np.uint8),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_an_array_is_what_the_image_that_holds_it_is(array):
    flat = array[..., 0] if array.shape[-1:] == (1,) else array
    np.testing.assert_array_equal(
        PREPROCESS.pixels(array), PREPROCESS.pixels(Image.fromarray(flat))
    )
    assert PREPROCESS(images=array)["image"].shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RAMP, "an array of int64"),
        (RAMP.astype(np.float32), "floating point between 0 and 63"),
        (
            np.zeros((3, 8, 9), np.uint8),
            r"an array of shape \(3, 8, "
            r"9\)",
        ),
        (np.zeros((0, 8, 3), np.uint8), "no image"),
        (np.zeros((8, 8, 3), np.int8), "an array of int8"),
        (b"a path".split(), "a list is no image"),
    ],
)
def test_arrays_of_no_known_meaning_are_refused_by_name(array, words):
    with pytest.raises(SampleError, match=words):
        PREPROCESS.pixels(array)


# Formats

FOREIGN = {
    "EPS": encode(Image.new("RGB", (4, 4)), "EPS"),
    "PDF": encode(Image.new("RGB", (4, 4)), "PDF"),
    "ICO": encode(Image.new("RGB", (16, 16)), "ICO"),
    "PCX": encode(Image.new("RGB", (4, 4)), "PCX"),
    "DDS": encode(Image.new("RGB", (4, 4)), "DDS"),
    "SGI": encode(Image.new("RGB", (4, 4)), "SGI"),
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(40),
    "a web page": b"<!DOCTYPE html><html>404</html>",
    "empty": b"",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_format_that_is_not_read_is_refused_by_its_name_and_no_plugin_sees_it(name, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(subprocess, "check_call", forbidden)
    for call in (
        lambda: decode(FOREIGN[name], "k", 10**6),
        lambda: encode_image(FOREIGN[name], "keep", "k"),
        lambda: PREPROCESS.pixels(FOREIGN[name]),
    ):
        message = refusal(call)
        assert message.startswith(f"image is {name}")


@pytest.mark.parametrize("name", ["EPS", "ICO", "PCX"])
def test_an_opened_image_of_such_a_format_is_refused_before_it_is_loaded(name):
    with pytest.raises(SampleError, match=f"image is {name}, which is not read"):
        PREPROCESS.pixels(Image.open(io.BytesIO(FOREIGN[name])))


def test_every_format_of_the_list_is_read():
    """As Pillow, told the format, reads it."""
    image = Image.fromarray((RAMP[..., None] * [4, 3, 2]).astype(np.uint8))
    for name in image_formats.FORMATS:
        data = encode(image, name)
        theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode(data, "k", 99)), theirs, err_msg=name)


LARGE = 10_000


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG"])
def test_the_default_cap_is_counted_from_the_header_of_every_format(kind):
    small = encode(Image.new("RGB", (16, 16)), kind.split()[0])
    side = struct.pack(">I", LARGE)
    if kind == "WEBP":
        small = encode(
            Image.new("RGB", (16, 16)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("RGB", (16, 16), "red")],
        )
    ihdr = b"IHDR" + side + side + small[24:29]
    width, height = (
        [struct.pack("<HHII", tag, 4, 1, value) for value in (SIZE, LARGE)] for tag in (256, 257)
    )
    data = {
        "PNG": lambda: small[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + small[33:],
        "GIF": lambda: small[:6] + struct.pack("<HH", LARGE, LARGE) + small[10:],
        "WEBP": lambda: small[:24] + struct.pack("<I", LARGE - 1)[:3] * 2 + small[30:],
        "BMP": lambda: small[:18] + struct.pack("<ii", LARGE, LARGE) + small[26:],
        "TIFF": lambda: tiff(b"", 8).replace(*width).replace(*height),
        "PPM": lambda: f"P6 {LARGE} {LARGE} 255\n".encode() + bytes(60),
        "JPEG": lambda: small.replace(
            struct.pack(">HH", 16, 16), struct.pack(">HH", LARGE, LARGE), 1
        ),
    }[kind]()
    spec, rng = ImagesConfig(), np.random.default_rng(0)
    for call in (
        lambda: decode(data, "k", spec.maximum_pixels),
        lambda: encode_image(data, "keep", "k"),
        lambda: PREPROCESS.pixels(Image.open(io.BytesIO(data))),
        lambda: decode_and_augment(data, "k", SIZE, spec, AugmentationConfig(), rng),
    ):
        with pytest.raises(
            SampleError, match="10000x10000 pixels, more than data.images.maximum_pixels=50331648"
        ) as caught:
            call()
        assert caught.value.reason == Reason.TOO_LARGE


def test_the_tiles_of_a_tiff_count_too():
    """An image of 8x8 in one tile of 10,000 x 10,000, all of which libtiff would decode."""
    tags = {
        256: SIZE,
        257: SIZE,
        258: 8,
        259: 1,
        262: 1,
        277: 1,
        322: LARGE,
        323: LARGE,
        324: 200,
        325: 10,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(300)
    with pytest.raises(SampleError, match="10000x10000 pixels"):
        decode(data, "k", ImagesConfig.maximum_pixels)


def test_a_large_image_is_refused_in_little_memory():
    """20 kB of PNG with 169 million pixels took 0.8 GB."""
    body = zlib.compressobj(9)
    rows = b"".join(body.compress(bytes(13_001)) for _ in range(13_000)) + body.flush()
    data = png(8, 0, [b"\0"])
    side = struct.pack(">I", 13_000)
    ihdr = b"IHDR" + side + side + data[24:29]
    idat = b"IDAT" + rows
    data = b"".join(
        [
            data[:8],
            struct.pack(">I", 13),
            ihdr,
            struct.pack(">I", zlib.crc32(ihdr)),
            struct.pack(">I", len(rows)),
            idat,
            struct.pack(">I", zlib.crc32(idat)),
            data[-12:],
        ]
    )
    script = (
        "import resource, sys; from vlp_jax.data.images.decoding import decode\n"
        "from vlp_jax.data.images.preprocessing import ImagesConfig\n"
        "data = sys.stdin.buffer.read(); peak = lambda: "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak()\n"
        "try: decode(data, 'k', ImagesConfig.maximum_pixels)\nexcept Exception as error: "
        "print(error, peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )
    words, _, kilobytes = done.stdout.decode().strip().rpartition(" ")
    assert "13000x13000" in words and int(kilobytes) < 20_000


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_a_deep_jpeg_2000_is_that_of_opencv_or_refused(tmp_path, kind):
    """Pillow makes black of the brightest values of those with several channels."""
    values = np.linspace(0, 65535, 128 * 128).reshape(128, 128).astype(np.uint16)
    colours = np.stack([values, values[::-1], values // 2], axis=-1)
    for pixels, deep in (
        (colours, True),
        (values, False),
        ((colours >> 8).astype(np.uint8), False),
    ):
        data = cv2.imencode(".jp2", pixels, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[
            1
        ].tobytes()
        data = data[data.index(b"\xff\x4f\xff\x51") :] if kind == "j2k" else data
        if deep:
            for way in (
                lambda data: decode(data, "x", 10**6),
                lambda data: PREPROCESS(images=Image.open(io.BytesIO(data))),
            ):
                with pytest.raises(SampleError, match="JPEG 2000 of several channels"):
                    way(data)
            continue
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        expected = (
            stored[..., ::-1]
            if stored.ndim == 3
            else np.repeat((stored >> 8)[..., None], 3, axis=-1)
        )
        np.testing.assert_array_equal(decode(data, "x", 10**6), expected)
