"""The supported image formats, recognised by the first bytes of a file.

No other plug-in of Pillow opens a file.
"""

import contextlib

from PIL import Image

# Pillow's names. All of these are decoded inside this process: EPS would start Ghostscript, WMF the
# Windows drawing library.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
OPENED_AS = (*FORMATS, "MPO")  # MPO: a JPEG with more images after the first
NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, PGM, PBM, AVIF and JPEG 2000"
OTHERS = (
    (b"%!PS", "EPS"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML, perhaps SVG"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"\x1f\x8b", "gzip"),
    (b"pk\x03\x04", "zip"),
)
BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}


def formats_of(data: bytes) -> tuple[str, ...]:
    """The possible formats of a file: one, by its first bytes, so that Pillow does not try several;
    otherwise all."""
    if data.startswith(b"\xff\xd8\xff"):
        return ("JPEG",)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("PNG",)
    if data.startswith(b"GIF8"):
        return ("GIF",)
    return ("WEBP",) if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else FORMATS


def refusal(data: bytes) -> str:
    """Why no plug-in accepted a file; it names the format where the first bytes show it."""
    if not data:
        return "is empty"
    found = name_of(data[:64])
    if found in FORMATS:
        return (
            f"cannot be decoded: it begins as {found}, and is damaged or of a variant that "
            "Pillow does not read"
        )
    return (
        f"is {found}, which is not read; expected {NAMES}"
        if found
        else f"is of no known format; expected {NAMES}"
    )


def name_of(start: bytes) -> str | None:
    """The format of a file by its first bytes; None if unknown.

    Pillow's plug-ins check the bytes, but do not open the file.
    """
    text = start.lstrip().lower()
    for begins, name in OTHERS:
        if text.startswith(begins.lower()):
            return name
    if start[4:8] == b"ftyp" and start[8:12] in BRANDS:
        return BRANDS[start[8:12]]
    Image.init()
    for name, (_, accepts) in sorted(Image.OPEN.items(), key=lambda item: item[0] not in FORMATS):
        with contextlib.suppress(Exception):  # some checks unpack numbers from missing bytes
            if accepts is not None and accepts(start) is True:
                return name
    return None
