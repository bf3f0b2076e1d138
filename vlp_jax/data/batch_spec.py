"""The arrays of a training batch that go to the devices: those of every batch, and those that only some objectives ask for."""

from collections.abc import Collection

import numpy as np

from vlp_jax.config import schema
from vlp_jax.config.targets import number_of_classes

VIEWS = ("first_view", "second_view")  # of the same picture, each by draws of its own
PIXELS = ("image", *VIEWS)  # bytes on the host, normalised on the devices
TARGET = "target_"  # in front of a target's name in `data.targets`
Shapes = dict[str, tuple[tuple[int, ...], type]]


def device_arrays(config: schema.Config, asked: Collection[str], rows: int) -> Shapes:
    """Name -> (shape, dtype) of a batch of so many examples, or so many more that they make windows; pixels normalised.

    asked: of those that are not in every batch: word_start [B, L] bool, where words begin, special tokens being words of their own;
    first_view and second_view, like image; target_NAME, as `targets.Targets.of` gives them.
    Texts that are packed come by windows of W examples, [B / W, rows, L], and with them `segment` (see `packing.pack`). Where the
    config names them: boxes [B, R, 4] float32 (see `boxes.boxes_of`) and word_edges [B, L, L] bool (see `dependencies.word_edges`).
    """
    side, window = config.model.image.image_size, config.data.text.packing
    rows = rows if window is None else -(-rows // window) * window
    texts = (rows,) if window is None else (rows // window, config.data.text.packing_rows)
    words = (*texts, config.model.text.length)
    pixels = ((rows, side, side, 3), np.float32)
    always = {"image": pixels, "text": (words, np.int32), "text_mask": (words, bool),
              "caption_id": ((rows, 2), np.int32), "image_id": ((rows, 2), np.int32)}
    others = {"word_start": (words, bool), **dict.fromkeys(VIEWS, pixels)}
    others |= {TARGET + name: target_array(target, rows) for name, target in config.data.targets.items()}
    if window is not None:
        always["segment"] = words, np.int32
    if config.data.boxes is not None:
        always["boxes"] = (rows, config.data.boxes.count, 4), np.float32
    if config.data.dependencies is not None:
        always["word_edges"] = (*words, words[-1]), bool
    return always | {name: others[name] for name in asked}


def target_array(target: schema.AnyTarget, rows: int) -> tuple[tuple[int, ...], type]:
    """(shape, dtype) of a target of so many examples."""
    if target.kind == "text":
        return (rows, target.length), np.int32
    if target.kind == "scores":
        return (rows, number_of_classes(target)), np.float32
    return (rows,), np.int32 if target.kind == "class" else np.float32
