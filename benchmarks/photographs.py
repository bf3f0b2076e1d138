"""Writes photographs for the input benchmarks, from the samples of scikit-image and scikit-learn.

They are cropped, resized and re-encoded as JPEG in mixed sizes about 500x375, qualities and chroma
subsamplings.

python -m venv /tmp/photographs && /tmp/photographs/bin/pip install scikit-image scikit-learn
/tmp/photographs/bin/python benchmarks/photographs.py FOLDER [--count=256]
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "rocket")
# quality, chroma subsampling: common on the web
STORAGE = [(75, "4:2:0"), (85, "4:2:0"), (90, "4:2:0"), (95, "4:4:4")]


def originals() -> list[Image.Image]:
    """The photographs in their original sizes, 600x400 to 741x500; `chelsea` is 451x300."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    arrays = [getattr(skimage.data, name)() for name in SCIKIT_IMAGE] + list(
        skimage.data.stereo_motorcycle()[:2]
    )
    return [Image.fromarray(array) for array in arrays + list(load_sample_images().images)]


def photograph(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop, resized to 500x375 or 375x500.

    The crop has at least 0.7 of the sides. Each target side is varied by up to a tenth.
    """
    width, height = (
        round(side * rng.uniform(0.9, 1.1))
        for side in ((500, 375) if rng.random() < 0.75 else (375, 500))
    )
    fitting = min(image.width / width, image.height / height) * rng.uniform(0.7, 1.0)
    left, top = (
        rng.uniform(0, full - side * fitting)
        for full, side in ((image.width, width), (image.height, height))
    )
    box = (left, top, left + width * fitting, top + height * fitting)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=256)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    images, rng = originals(), np.random.default_rng(0)
    for number in range(options.count):
        quality, subsampling = STORAGE[number % len(STORAGE)]
        picture = photograph(images[rng.integers(len(images))], rng)
        picture.save(options.folder / f"{number:06d}.jpg", quality=quality, subsampling=subsampling)


if __name__ == "__main__":
    main()
