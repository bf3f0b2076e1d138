"""Scenes composed of four emoji with the mask of each: `embedded:emoji_scenes/val_vendor`.

A set to try zero-shot segmentation on. The emoji of a source are taken four at a time, in an order
drawn with a fixed seed, so that each occurs once; each is put into a quarter of a white square.
What is not transparent is its mask.
"""

import io

import numpy as np
from PIL import Image

from vlp_jax.data.samples import Sample, Source, check_index, fingerprint_of

SIDE = 64  # of a quarter, in pixels
BACKGROUND = 255  # in masks, where no emoji is
OPAQUE = 128  # the least alpha of a mask


class SceneSource:
    """One sample for every four emoji, with their captions as one.

    Its metadata are `mask`, a PNG file with the class of each pixel (255 for the background);
    `objects`, the captions of the four; and `classes`, their groups. `class_names["mask"]` names
    the classes.

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
        parts = [self.emoji[int(i)] for i in self.order[4 * index : 4 * index + 4]]
        scene = Image.new("RGB", (2 * SIDE, 2 * SIDE), (255, 255, 255))
        mask = np.full((2 * SIDE, 2 * SIDE), BACKGROUND, np.uint8)
        for place, part in enumerate(parts):
            top, left = SIDE * (place // 2), SIDE * (place % 2)
            emoji = Image.open(io.BytesIO(part.image)).convert("RGBA").resize((SIDE, SIDE))
            scene.paste(emoji, (left, top), emoji)
            inside = np.asarray(emoji)[..., 3] >= OPAQUE
            label = self.class_names["mask"].index(part.metadata["group"])
            mask[top : top + SIDE, left : left + SIDE][inside] = label
        captions = [part.captions[0] for part in parts]
        metadata = {
            "mask": png(Image.fromarray(mask)),
            "objects": captions,
            "classes": [part.metadata["group"] for part in parts],
        }
        return Sample(f"scene {index}", png(scene), (", ".join(captions),), metadata)

    def fingerprint(self) -> str:
        """Hash of the emoji."""
        return fingerprint_of("scenes", self.emoji.fingerprint())


def png(image: Image.Image) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
