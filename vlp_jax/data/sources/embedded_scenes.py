"""Scenes composed of emoji, with the mask, the box and the name of each:
`embedded:emoji_scenes/val_vendor`, `embedded:emoji_places/val_vendor`.

Sets to try segmentation, detection and pointing on. In `emoji_scenes`, the emoji of a source are
taken four at a time, in an order drawn with a fixed seed, so that each occurs once; each is put
into a quarter of a white square. In `emoji_places`, each emoji is in a scene with one to three
others, of random sizes and at random places that do not overlap. What is not transparent is the
mask of an emoji, and its box is the smallest around it.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vlp_jax.data.samples import Sample, Source, check_index, fingerprint_of

SIDE = 64  # of a quarter, in pixels
BACKGROUND = 255  # in masks, where no emoji is
OPAQUE = 128  # the least alpha of a mask
SMALLEST = 36  # side of an emoji at a random place, in pixels; the largest is SIDE
TRIES = 100  # places that are drawn for an emoji before it is left out


@dataclasses.dataclass(frozen=True)
class Placed:
    """An emoji of a scene: its sample, and the square that it fills, in pixels."""

    sample: Sample
    left: int
    top: int
    side: int

    def overlaps(self, left: int, top: int, side: int) -> bool:
        """Whether another square overlaps this one."""
        apart = (left + side <= self.left, self.left + self.side <= left)
        return not any((*apart, top + side <= self.top, self.top + self.side <= top))


class SceneSource:
    """One sample for every four emoji, with their captions as one.

    Its metadata are `mask`, a PNG file with the class of each pixel (255 for the background);
    `objects`, the captions of the four; `classes`, their groups; and `boxes`, [left, top, right,
    bottom] in pixels. `class_names["mask"]` names the classes.

    Args:
      emoji: the source of the emoji, with the metadata field `group`.
      spec: name of the source in messages.
    """

    def __init__(self, emoji: Source, spec: str):
        self.spec, self.emoji = spec, emoji
        self.order = np.random.default_rng(0).permutation(len(emoji))
        groups = sorted({emoji[i].metadata["group"] for i in range(len(emoji))})
        self.class_names, self.templates = {"mask": groups}, ()

    def __len__(self) -> int:
        return len(self.emoji) // 4

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        placed = self.layout(index)
        scene, mask, boxes = composed(placed, self.class_names["mask"])
        objects = [part.sample.captions[0] for part in placed]
        metadata = {
            "mask": png(Image.fromarray(mask)),
            "objects": objects,
            "classes": [part.sample.metadata["group"] for part in placed],
            "boxes": boxes,
        }
        return Sample(f"scene {index}", png(scene), self.captions(objects), metadata)

    def layout(self, index: int) -> list[Placed]:
        """The emoji of a scene and their places."""
        numbers = self.order[4 * index : 4 * index + 4]
        return [
            Placed(self.emoji[int(number)], SIDE * (place % 2), SIDE * (place // 2), SIDE)
            for place, number in enumerate(numbers)
        ]

    def captions(self, objects: Sequence[str]) -> tuple[str, ...]:
        """The captions of a scene: all objects in one."""
        return (", ".join(objects),)

    def fingerprint(self) -> str:
        """Hash of the emoji."""
        return fingerprint_of("scenes", self.emoji.fingerprint())


class PlacedSceneSource(SceneSource):
    """One sample for every emoji: it and one to three others of other captions, of random sizes and
    at random places.

    Metadata and arguments are those of `SceneSource`; the captions are those of the objects, one
    each.
    """

    def __len__(self) -> int:
        return len(self.emoji)

    def layout(self, index: int) -> list[Placed]:
        """The emoji of a scene and their places, drawn with the number of the scene as seed."""
        rng = np.random.default_rng((1, index))
        others = rng.permutation(len(self.emoji))[: int(rng.integers(1, 4))]
        placed: list[Placed] = []
        for number in (self.order[index], *others):
            sample = self.emoji[int(number)]
            known = {part.sample.captions[0] for part in placed}
            place = None if sample.captions[0] in known else free_place(placed, rng)
            if place is not None:
                placed.append(Placed(sample, *place))
        return placed

    def captions(self, objects: Sequence[str]) -> tuple[str, ...]:
        """The captions of a scene: one for each object."""
        return tuple(objects)

    def fingerprint(self) -> str:
        """Hash of the emoji."""
        return fingerprint_of("placed scenes", self.emoji.fingerprint())


def free_place(placed: Sequence[Placed], rng: np.random.Generator) -> tuple[int, int, int] | None:
    """A square (left, top, side) of a scene that overlaps no emoji; None where none is found."""
    for _ in range(TRIES):
        side = int(rng.integers(SMALLEST, SIDE + 1))
        left, top = (int(value) for value in rng.integers(0, 2 * SIDE - side + 1, 2))
        if not any(part.overlaps(left, top, side) for part in placed):
            return left, top, side
    return None


def composed(
    placed: Sequence[Placed], classes: Sequence[str]
) -> tuple[Image.Image, np.ndarray, list[list[int]]]:
    """The image of a scene, its mask uint8 [H, W], and the boxes of its emoji.

    Args:
      placed: the emoji and their places.
      classes: the groups, whose indices are the values of the mask.
    """
    scene = Image.new("RGB", (2 * SIDE, 2 * SIDE), (255, 255, 255))
    mask, boxes = np.full((2 * SIDE, 2 * SIDE), BACKGROUND, np.uint8), []
    for part in placed:
        left, top, side = part.left, part.top, part.side
        emoji = Image.open(io.BytesIO(part.sample.image)).convert("RGBA").resize((side, side))
        scene.paste(emoji, (left, top), emoji)
        inside = np.asarray(emoji)[..., 3] >= OPAQUE
        label = classes.index(part.sample.metadata["group"])
        mask[top : top + side, left : left + side][inside] = label
        boxes.append(box_around(inside, left, top))
    return scene, mask, boxes


def box_around(inside: np.ndarray, left: int, top: int) -> list[int]:
    """The smallest box [left, top, right, bottom] around the true pixels of bool [H, W], whose
    corner is at (left, top); around all of it where none is true."""
    if not inside.any():
        return [left, top, left + inside.shape[1], top + inside.shape[0]]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return [
        int(left + columns[0]),
        int(top + rows[0]),
        int(left + columns[-1] + 1),
        int(top + rows[-1] + 1),
    ]


def png(image: Image.Image) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
