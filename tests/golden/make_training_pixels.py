"""Training pixels of pictures that are not JPEG, as the code made them on 2026-11-25: they may
never change, since results were measured on them.

python tests/golden/make_training_pixels.py   # writes training_pixels.npz beside itself
"""

import io
import pathlib

import numpy as np
from PIL import Image

from vlp_jax.data.images.augmentation import training_pixels
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.decoding import decode
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.sources.registry import open_source

PATH = pathlib.Path(__file__).with_name("training_pixels.npz")
SIZE = 20
SPECS = {
    "emoji": (
        ImagesConfig(
            crop_to_content=True, content_margin=0.04, resize="squash", interpolation="bilinear"
        ),
        AugmentationConfig(
            background="random",
            rotation=8.0,
            scale=(0.9, 1.25),
            shift=0.04,
            aspect=0.1,
            brightness=0.2,
            # configs/clip_emoji.py
            contrast=0.2,
            saturation=0.3,
            grayscale=0.1,
        ),
    ),
    "crop": (ImagesConfig(), AugmentationConfig(scale=(0.4, 0.9), aspect=0.3, flip=0.5)),
    "all": (
        ImagesConfig(resize="letterbox", interpolation="lanczos", background=(9, 99, 199)),
        AugmentationConfig(
            rotation=30.0,
            scale=(0.7, 1.4),
            aspect=0.5,
            shift=0.2,
            flip=0.5,
            brightness=0.3,
            contrast=0.3,
            saturation=0.3,
            hue=0.2,
            grayscale=0.3,
            blur=0.5,
            erase=0.5,
        ),
    ),
    "off": (ImagesConfig(resize="squash"), AugmentationConfig()),
}


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Name -> file: of the embedded emoji, and small ones of every mode."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)).resize(
        (44, 31), Image.Resampling.BICUBIC
    )
    modes = {mode: smooth.convert("RGB").convert(mode) for mode in ("RGB", "L", "P", "1")} | {
        "RGBA": smooth
    }
    made = {
        f"{kind} {mode}": encoded(image, kind)
        for mode, image in modes.items()
        for kind in ("PNG", "WEBP")
        if kind == "PNG" or mode.startswith("RGB")
    }
    source = open_source("embedded:emoji/train")
    return made | {f"emoji {index}": source[index].image for index in (0, 1000, 9000)}


def cases():
    """(name, file, specification, augmentation, seed) of every golden picture."""
    for spec_name, (spec, augmentation) in SPECS.items():
        for name, data in pictures().items():
            for seed in (1, 2):
                yield f"{spec_name}, {name}, {seed}", data, spec, augmentation, seed


if __name__ == "__main__":
    made = {
        name: training_pixels(
            decode(data, "key", 10**6), SIZE, spec, augmentation, np.random.default_rng(seed)
        )[0]
        for name, data, spec, augmentation, seed in cases()
    }
    np.savez_compressed(PATH, names=np.array(list(made)), pixels=np.stack(list(made.values())))
    print(len(made), PATH.stat().st_size)
