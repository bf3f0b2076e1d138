"""The endings of image files, in either case, in tars and in folders of classes: the formats that
Pillow decodes."""

IMAGE_ENDINGS = frozenset(
    (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "apng",
        "webp",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "pfm",
        "avif",
        "avifs",
        "jp2",
        "j2k",
        "jpc",
        "jpf",
        "jpx",
        "j2c",
        "mpo",
    )
)


def ending_of(name: str) -> str:
    """The part of a file's name after its last dot, in lower case; empty where there is no dot."""
    return (
        name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
    )
