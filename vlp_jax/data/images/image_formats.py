"""The image formats that are read, by the first bytes of a file; no other plug-in of Pillow is ever given a file."""

import contextlib

from PIL import Image

# Pillow's names. All of these are decoded inside this process: EPS would start Ghostscript, WMF the Windows drawing library.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
OPENED_AS = (*FORMATS, "MPO")  # a JPEG with more images behind the first
NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, PGM, PBM, AVIF and JPEG 2000"
OTHERS = ((b"%!PS", "EPS"), (b"%PDF", "PDF"), (b"<svg", "SVG"), (b"<?xml", "XML, perhaps SVG"), (b"<!doctype", "a web page"),
          (b"<html", "a web page"), (b"\x1f\x8b", "gzip"), (b"pk\x03\x04", "zip"))
BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


def formats_of(data: bytes) -> tuple[str, ...]:
    """The formats that a file can be: one, by its first bytes, so that Pillow need not try one after another; else all."""
    if data.startswith(b"\xff\xd8\xff"):
        return ("JPEG",)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("PNG",)
    if data.startswith(b"GIF8"):
        return ("GIF",)
    return ("WEBP",) if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else FORMATS


def refusal(data: bytes) -> str:
    """Why no plug-in took a file, naming its format where that shows in its first bytes."""
    if not data:
        return "is empty"
    found = name_of(data[:64])
    if found in FORMATS:
        return f"cannot be decoded: it begins as {found}, and is damaged or of a variant that Pillow does not read"
    return f"is {found}, which is not read; expected {NAMES}" if found else f"is of no known format; expected {NAMES}"


def name_of(start: bytes) -> str | None:
    """The format of a file that begins so, by Pillow's plug-ins, which look and do not open; None of an unknown one."""
    text = start.lstrip().lower()
    for begins, name in OTHERS:
        if text.startswith(begins.lower()):
            return name
    if start[4:8] == b"ftyp" and start[8:12] in BRANDS:
        return BRANDS[start[8:12]]
    Image.init()
    for name, (_, accepts) in sorted(Image.OPEN.items(), key=lambda item: item[0] not in FORMATS):
        with contextlib.suppress(Exception):  # some unpack numbers from bytes that are not there
            if accepts is not None and accepts(start) is True:
                return name
    return None
