"""Masks of objects, as arrays and in COCO's run-length encoding, and their overlap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.metrics.boxes import over_union


def mask_iou(first: np.ndarray, second: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each pair of masks, as pycocotools' `mask.iou`.

    Args:
      first: [N, H, W], bool.
      second: [M, H, W], bool.
      crowd: [M], bool, as in `box_iou`.

    Returns: [N, M], float64.
    """
    one, other = (np.asarray(masks, bool).astype(np.float64) for masks in (first, second))
    common = np.tensordot(one, other, axes=([1, 2], [1, 2]))
    return over_union(common, one.sum(axis=(1, 2)), other.sum(axis=(1, 2)), crowd)


def encoded(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0 and 1 of a mask [H, W], column by column, the first of 0: the
    `counts` of COCO's uncompressed encoding."""
    pixels = np.asarray(mask, bool).ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(pixels, prepend=np.int8(0))).tolist()
    places = [0, *changes, len(pixels)]
    return [end - start for start, end in zip(places, places[1:], strict=False)]


def decoded(encoding: Mapping[str, Any]) -> np.ndarray:
    """The mask [H, W], bool, of a run-length encoding.

    Args:
      encoding: `size`, (H, W), and `counts`, a list of run lengths or COCO's compressed text.

    Raises:
      ValueError: if the runs are not as many pixels as the size.
    """
    height, width = encoding["size"]
    counts = encoding["counts"]
    runs = list(counts) if isinstance(counts, list | tuple) else uncompressed(counts)
    if sum(runs) != height * width:
        raise ValueError(f"runs of {sum(runs)} pixels in a mask of {height} x {width}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape((height, width), order="F")


def uncompressed(text: str | bytes) -> list[int]:
    """The run lengths of COCO's compressed text: numbers of 5 bits a character from code 48, the
    sixth bit set where more follow; from the fourth number on, differences to the one two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def compressed(runs: Sequence[int]) -> str:
    """Run lengths as COCO's compressed text; the inverse of `uncompressed`."""
    characters = []
    for place, run in enumerate(runs):
        value, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(chr(bits + (32 if more else 0) + 48))
    return "".join(characters)
