"""What torchvision and OpenCLIP make of small pictures and draw for crops, for tests/data to
compare with.

pip install torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0
python tests/golden/make_torchvision.py

Writes `evaluation_pixels.npz`, `randaugment.npz` and `random_resized_crops.npz` beside itself.
"""

import pathlib

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms.autoaugment import _apply_op

FOLDER = pathlib.Path(__file__).parent
SIZE = 20
SHAPES = [
    (20, 20),
    (33, 47),
    (47, 33),
    (21, 20),
    (20, 23),
    (61, 19),
    (13, 11),
    (200, 9),
    (7, 120),
    (27, 64),
]
MODES = ("shortest", "squash", "longest")
FILL, COLOUR = 77, (200, 30, 90)
CROPS = [
    ((500, 375), (0.08, 1.0), (3 / 4, 4 / 3)),
    ((375, 500), (0.9, 1.0), (3 / 4, 4 / 3)),
    ((640, 480), (0.35, 0.5), (0.5, 2.0)),
    ((300, 60), (0.5, 1.0), (3 / 4, 4 / 3)),
    ((60, 300), (0.5, 1.0), (3 / 4, 4 / 3)),
]
CROP_DRAWS = 1000
MAGNITUDES = (9, 17, 30)


def noise(shape: tuple[int, int]) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(shape).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    )


def smooth() -> Image.Image:
    """A small picture of low contrast, large enough for autocontrast and equalisation to do
    something."""
    pixels = np.random.default_rng(0).integers(40, 200, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((23, 15), Image.Resampling.BICUBIC)


def evaluation_pixels() -> dict[str, np.ndarray]:
    """ "MODE INTERPOLATION" -> uint8 [shapes, S, S, 3], of open_clip's transform with its
    normalisation undone; the inputs' shapes (width, height).
    """
    made = {"shapes": np.array(SHAPES)}
    for mode in MODES:
        for interpolation in ("bicubic", "bilinear"):
            transform = image_transform(
                SIZE,
                False,
                mean=(0.0,) * 3,
                std=(1.0,) * 3,
                resize_mode=mode,
                interpolation=interpolation,
                fill_color=FILL,
            )
            levels = (
                np.stack([transform(noise(shape)).permute(1, 2, 0).numpy() for shape in SHAPES])
                * 255
            )
            assert abs(levels - levels.round()).max() < 1e-3
            made[f"{mode} {interpolation}"] = levels.round().astype(np.uint8)
    return made


def randaugment() -> dict[str, np.ndarray]:
    """Operation -> uint8 [magnitude, sign, H, W, 3]; the picture they were applied to."""
    image = smooth()
    space = RandAugment()._augmentation_space(31, (image.height, image.width))
    made = {"image": np.asarray(image)}
    for name, (magnitudes, signed) in space.items():
        levels = [float(magnitudes[m]) if magnitudes.ndim else 0.0 for m in MAGNITUDES]
        made[name] = np.stack(
            [
                [
                    np.asarray(
                        _apply_op(
                            image, name, sign * level, InterpolationMode.NEAREST, list(COLOUR)
                        )
                    )
                    for sign in ((1.0, -1.0) if signed else (1.0, 1.0))
                ]
                for level in levels
            ]
        )
    return made


def random_resized_crops() -> dict[str, np.ndarray]:
    """cases [N, 6]: width, height, area, ratio; boxes int16 [N, draws, 4]: left, top, width,
    height."""
    torch.manual_seed(0)
    boxes = [
        [
            RandomResizedCrop.get_params(Image.new("L", shape), area, ratio)
            for _ in range(CROP_DRAWS)
        ]
        for shape, area, ratio in CROPS
    ]
    return {
        "cases": np.array([shape + area + ratio for shape, area, ratio in CROPS]),
        "boxes": np.array(boxes, np.int16)[..., [1, 0, 3, 2]],
    }


if __name__ == "__main__":
    for function in (evaluation_pixels, randaugment, random_resized_crops):
        path = FOLDER / f"{function.__name__}.npz"
        np.savez_compressed(path, **function())
        print(path.name, path.stat().st_size)
