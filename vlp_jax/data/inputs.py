"""The arrays of a training batch that go to the devices: those of every batch, and those that only some objectives ask for."""

from collections.abc import Collection

import numpy as np

from vlp_jax.config import schema

PIXELS = ("image",)  # bytes on the host, normalised on the devices
Shapes = dict[str, tuple[tuple[int, ...], type]]


def device_arrays(config: schema.Config, asked: Collection[str], rows: int) -> Shapes:
    """Name -> (shape, dtype) of a batch of so many examples, or so many more that they make windows; pixels normalised.

    asked: of those that are not in every batch: word_start [B, L] bool, where words begin, special tokens being words of their own.
    Texts that are packed come by windows of W examples, [B / W, rows, L], and with them `segment` (see `packing.pack`).
    """
    size, window = config.model.image.image_size, config.data.text.packing
    rows = rows if window is None else -(-rows // window) * window
    texts = (rows,) if window is None else (rows // window, config.data.text.packing_rows)
    words = (*texts, config.model.text.length)
    always = {"image": ((rows, size, size, 3), np.float32), "text": (words, np.int32), "text_mask": (words, bool),
              "caption_id": ((rows, 2), np.int32), "image_id": ((rows, 2), np.int32)}
    others = {"word_start": (words, bool)}
    packed = {} if window is None else {"segment": (words, np.int32)}
    return always | packed | {name: others[name] for name in asked}
