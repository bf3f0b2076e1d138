"""Whether the highest point of a map is inside the box of what the text names (Zhang et al. 2018,
"Top-down Neural Attention by Excitation Backprop", the pointing game)."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlp_jax.data.images.preprocessing import evaluation_view
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample, Source
from vlp_jax.errors import DataError
from vlp_jax.explain.drawing import resized


@dataclasses.dataclass(frozen=True)
class Target:
    """Something in an image that a text names.

    Attributes:
      image: the pixels that the model sees, uint8 [S, S, 3].
      text: the name.
      box: [left, top, right, bottom] as fractions of the model's square.
    """

    image: np.ndarray
    text: str
    box: np.ndarray


def targets_of(source: Source, preprocessor: Preprocessor, count: int) -> list[Target]:
    """The first targets of a source with the metadata `objects` and `boxes`: the objects whose name
    occurs once in their image, and that are visible.

    Args:
      source: the source, such as embedded:emoji_places/val_vendor.
      preprocessor: the model's.
      count: number of targets, at most.
    Raises:
      DataError: the samples have no objects with boxes.
    """
    found: list[Target] = []
    for number in range(len(source)):
        found += of_sample(source[number], preprocessor, source.spec)
        if len(found) >= count:
            break
    if not found:
        raise DataError(f"{source.spec}: no sample has an object whose name occurs once in it")
    return found[:count]


def of_sample(sample: Sample, preprocessor: Preprocessor, spec: str) -> list[Target]:
    """The targets of a sample; `spec` is the source in messages."""
    names, boxes = (sample.metadata.get(field) for field in ("objects", "boxes"))
    if names is None or boxes is None or len(names) != len(boxes):
        raise DataError(
            f"{spec}: {sample.key}: needs the metadata `objects`, names, and `boxes`, one "
            "[left, top, right, bottom] in pixels for each of them"
        )
    image = preprocessor.opened(sample.image, sample.key)
    view = evaluation_view(image, preprocessor.image_size, preprocessor.images)
    seen = view(np.asarray(boxes, np.float64))
    pixels = preprocessor.pixels(sample.image, sample.key)
    times = Counter(names)
    return [
        Target(pixels, name, box)
        for name, box in zip(names, seen, strict=True)
        if times[name] == 1 and (box[2:] > box[:2]).all()
    ]


def hits(maps: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """Whether each map's highest point, at the resolution of the image, is in its target's box.

    Args:
      maps: [N, h, w].
      targets: N.
    Returns: bool [N].
    """
    found = []
    for values, target in zip(maps, targets, strict=True):
        height, width = target.image.shape[:2]
        large = resized(values, (height, width))
        top, left = np.unravel_index(large.argmax(), large.shape)
        found.append(inside(target.box, (left + 0.5) / width, (top + 0.5) / height))
    return np.array(found)


def inside(box: np.ndarray, x: float, y: float) -> bool:
    """Whether a point is in a box."""
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def random_accuracy(targets: Sequence[Target]) -> float:
    """The expected accuracy of a random point: the mean area of the boxes."""
    return float(np.mean([np.prod(target.box[2:] - target.box[:2]) for target in targets]))


def centre_accuracy(targets: Sequence[Target]) -> float:
    """The accuracy of the centre of the image."""
    return float(np.mean([inside(target.box, 0.5, 0.5) for target in targets]))
