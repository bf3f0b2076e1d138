"""The endings of image files, those of the formats that Pillow decodes; in tars, in folders of classes, in either case."""

IMAGE_ENDINGS = frozenset((
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "pfm",
    "avif", "avifs", "jp2", "j2k", "jpc", "jpf", "jpx", "j2c", "mpo",
))


def ending_of(name: str) -> str:
    """What follows the last dot of a file's name, in lower case; empty where there is none."""
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
