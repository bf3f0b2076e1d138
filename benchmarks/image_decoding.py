"""Speed of JPEG decoders and resizes, and of our path from bytes to a random resized crop, on one
core.

python benchmarks/photographs.py /tmp/photographs   # or any folder with JPEGs, or synthetic:N
pip install opencv-python-headless simplejpeg pillow [imagecodecs] [PyTurboJPEG]
python benchmarks/image_decoding.py /tmp/photographs [--size=224] [--rounds=9] [--count=96]

Every function runs on every image once per round, in turn, so that other load on the machine
affects all alike. The time of an image is the shortest of its rounds. `dB` compares with Pillow's
bicubic resize of the same crop (peak signal-to-noise ratio, mean over the images). A decoder that
is not installed is left out. The last line is JSON.
"""

import argparse
import importlib
import io
import json
import pathlib
import time
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vlp_jax.data.images import jpeg
from vlp_jax.data.images.augmentation import decode_and_augment
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.cropping import random_resized_crop
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.sources.registry import open_source

AREAS = {"area 0.08-1": (0.08, 1.0), "area 0.9-1": (0.9, 1.0)}
BARE = "simplejpeg, whole"
Function = Callable[[int], object]


def read_files(place: str, count: int) -> list[bytes]:
    if place.startswith("synthetic:"):
        source = open_source(place)
        return [source[index].image for index in range(min(count, len(source)))]
    paths = sorted(
        path for path in pathlib.Path(place).iterdir() if path.suffix.lower() in (".jpg", ".jpeg")
    )
    return [path.read_bytes() for path in paths[:count]]


def decoders(files: list[bytes]) -> dict[str, Function]:
    """{name: function that decodes the i-th file}."""

    def pillow(i: int, draft: bool = False) -> Image.Image:
        image = Image.open(io.BytesIO(files[i]), formats=("JPEG",))
        if draft:
            image.draft("RGB", (image.width // 2, image.height // 2))
        image.load()
        return image

    def simplejpeg_half(i: int) -> np.ndarray:
        height, width, _, _ = simplejpeg.decode_jpeg_header(files[i])
        return simplejpeg.decode_jpeg(
            files[i], "RGB", min_height=(height + 1) // 2, min_width=(width + 1) // 2
        )

    def opencv(i: int, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(files[i], np.uint8), flags)

    found = {
        "Pillow, whole": pillow,
        "Pillow, whole, as an array": lambda i: np.asarray(pillow(i)),
        "Pillow, draft of half the sides": lambda i: pillow(i, draft=True),
        BARE: lambda i: simplejpeg.decode_jpeg(files[i]),
        "simplejpeg, half the sides": simplejpeg_half,
        "simplejpeg, chroma not interpolated": lambda i: simplejpeg.decode_jpeg(
            files[i], fastupsample=True
        ),
        "OpenCV, whole": opencv,
        "OpenCV, half the sides": lambda i: opencv(i, cv2.IMREAD_REDUCED_COLOR_2),
    }
    if imagecodecs := installed("imagecodecs"):
        found["imagecodecs, whole"] = lambda i: imagecodecs.jpeg8_decode(files[i])
    if turbojpeg := installed("turbojpeg"):
        try:
            decoder = turbojpeg.TurboJPEG()
            found["PyTurboJPEG, whole"] = lambda i: decoder.decode(
                files[i], pixel_format=turbojpeg.TJPF_RGB
            )
        except RuntimeError as error:
            print(f"PyTurboJPEG is left out: {str(error).splitlines()[0]}")
    return found


def installed(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def resizes(files: list[bytes], boxes: list[tuple], size: int) -> dict[str, Function]:
    """{name: function that returns the i-th crop, of an already decoded image, at [size, size]}."""
    arrays = [simplejpeg.decode_jpeg(data) for data in files]
    images = [Image.fromarray(array) for array in arrays]
    crops = [
        array[top:bottom, left:right]
        for array, (left, top, right, bottom) in zip(arrays, boxes, strict=True)
    ]

    def pillow(resampling: Image.Resampling) -> Function:
        return lambda i: np.asarray(images[i].resize((size, size), resampling, box=boxes[i]))

    def opencv(interpolation: int) -> Function:
        return lambda i: cv2.resize(crops[i], (size, size), interpolation=interpolation)

    return {
        "Pillow bicubic": pillow(Image.Resampling.BICUBIC),
        "Pillow bilinear": pillow(Image.Resampling.BILINEAR),
        "OpenCV area": opencv(cv2.INTER_AREA),
        "OpenCV cubic": opencv(cv2.INTER_CUBIC),
        "OpenCV linear": opencv(cv2.INTER_LINEAR),
        "ours (smoothed linear)": lambda i: jpeg.resize(crops[i], size),
    }


def whole_paths(files: list[bytes], area: tuple[float, float], size: int) -> dict[str, Function]:
    """{name: function from the i-th file to a random crop as an array, flipped half of the
    time}."""
    augmentation, spec = AugmentationConfig(area=area, flip=0.5), ImagesConfig()

    def pillow(i: int) -> np.ndarray:
        rng = np.random.default_rng(i)
        image = Image.open(io.BytesIO(files[i])).convert("RGB")
        box = random_resized_crop(image.size, area, augmentation.ratio, rng)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
        )

    return {
        "Pillow decode, bicubic, flip": pillow,
        "ours (decode_and_augment)": lambda i: decode_and_augment(
            files[i], "", size, spec, augmentation, GENERATORS[i]
        )[0],
    }


GENERATORS = [np.random.default_rng(number) for number in range(10_000)]


def measure(functions: dict[str, Function], count: int, rounds: int) -> dict[str, float]:
    """{name: milliseconds per image}."""
    times = np.full((len(functions), count, rounds), np.inf)
    for turn in range(rounds):
        for i in range(count):
            for row, function in enumerate(functions.values()):
                start = time.perf_counter()
                function(i)
                times[row, i, turn] = time.perf_counter() - start
    return dict(zip(functions, (times.min(axis=-1).mean(axis=-1) * 1e3).tolist(), strict=True))


def decibels(found: Function, expected: Function, count: int) -> float:
    errors = [np.square(found(i).astype(np.float64) - expected(i)).mean() for i in range(count)]
    return float(np.mean([10 * np.log10(255**2 / max(error, 1e-3)) for error in errors]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", help="a folder with JPEGs, or synthetic:N")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=96)
    options = parser.parse_args()
    files = read_files(options.place, options.count)
    count = len(files)
    functions, quality = (
        {("decode", name): function for name, function in decoders(files).items()},
        {},
    )
    for name, area in AREAS.items():
        boxes = []
        for data, rng in zip(files, GENERATORS[:count], strict=True):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            boxes.append(random_resized_crop((width, height), area, (3 / 4, 4 / 3), rng))
        resized = resizes(files, boxes, options.size)
        quality |= {
            (name, key): decibels(function, resized["Pillow bicubic"], count)
            for key, function in resized.items()
        }
        functions |= {
            (name, key): function
            for key, function in (resized | whole_paths(files, area, options.size)).items()
        }
    result = measure(functions, count, options.rounds)
    bare = result["decode", BARE]
    print(
        f"{count} pictures of {sum(map(len, files)) // count} bytes; ratio: of the images a "
        f"second of {BARE!r}"
    )
    for (group, name), milliseconds in result.items():
        sound = (
            f"{quality[group, name]:6.1f} dB"
            if name != "Pillow bicubic" and (group, name) in quality
            else ""
        )
        print(
            f"{group:12} {name:38} {milliseconds:7.3f} ms {1e3 / milliseconds:8.0f} images/s "
            f"{bare / milliseconds:6.2f}  {sound}"
        )
    print(json.dumps({f"{group}: {name}": value for (group, name), value in result.items()}))


if __name__ == "__main__":
    main()
