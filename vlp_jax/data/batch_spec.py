"""Shapes and dtypes of the arrays of a training batch that go to the devices.

Some arrays are in every batch. Others are there only when an objective needs them.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

VIEWS = ("first_view", "second_view")  # of the same image, each with its own random draws
PIXELS = ("image", *VIEWS)  # uint8 on the host, normalised on the devices
TARGET = "target_"  # prefix of a target's name in `data.targets`
Shapes = dict[str, tuple[tuple[int, ...], type]]


def device_arrays(config: "Experiment", asked: Collection[str], rows: int) -> Shapes:
    """Shapes and dtypes of the device arrays of a batch.

    Args:
      config: the experiment. It decides which of the arrays below exist in every batch.
      asked: names of the arrays needed in addition to those of every batch: `word_start`,
        `first_view`, `second_view`, or `target_NAME`.
      rows: number of examples. With packed texts it is rounded up to whole windows.

    Returns: name -> (shape, dtype), with B examples, image size S and text length L.
      image: [B, S, S, 3], float32, normalised pixels.
      text: [B, L], int32, token ids.
      text_mask: [B, L], bool, padding mask.
      caption_id, image_id: [B, 2], int32.
      word_start: [B, L], bool, True where a word begins. A special token is a word of its own.
      first_view, second_view: like `image`.
      target_NAME: as `targets.Targets.of` returns it.
      boxes: [B, R, 4], float32, where the config has `data.boxes` (see `boxes.boxes_of`).
      word_edges: [B, L, L], bool, where the config has `data.dependencies` (see
        `dependency_parses.word_edges`).
      segment: int32, where texts are packed (see `packing.pack`). Packed texts come in windows of W
        examples, and all text arrays are then [B / W, rows, L].
    """
    side, window = config.model.image.image_size, config.data.text.packing
    rows = rows if window is None else -(-rows // window) * window
    texts = (rows,) if window is None else (rows // window, config.data.text.packing_rows)
    words = (*texts, config.model.text.length)
    pixels = ((rows, side, side, 3), np.float32)
    always: Shapes = {
        "image": pixels,
        "text": (words, np.int32),
        "text_mask": (words, bool),
        "caption_id": ((rows, 2), np.int32),
        "image_id": ((rows, 2), np.int32),
    }
    others: Shapes = {"word_start": (words, bool), **dict.fromkeys(VIEWS, pixels)}
    others |= {TARGET + name: target.array(rows) for name, target in config.data.targets.items()}
    if window is not None:
        always["segment"] = words, np.int32
    if config.data.boxes is not None:
        always["boxes"] = (rows, config.data.boxes.count, 4), np.float32
    if config.data.dependencies is not None:
        always["word_edges"] = (*words, words[-1]), bool
    return always | {name: others[name] for name in asked}
