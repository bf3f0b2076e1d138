"""An .npz file as big_vision writes it, with unrolled or scanned layers."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.family import BIG_VISION
from vlp_jax.weights.formats.format import Format
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.tensors import NpzFile, Tensors

SCANNED = re.compile(r"(.*/encoderblock)/(.+)")
# The vocabularies of SigLIP (big_vision's c4_en) and of SigLIP 2 (Gemma's), by size: a tokenizer,
# its end and padding tokens, and the changes of a text before it.
VOCABULARIES = {
    32_000: (
        "google/siglip-base-patch16-224",
        "</s>",
        "</s>",
        ("lower_case", "punctuation", "whitespace"),
    ),
    256_000: ("google/siglip2-base-patch16-224", "<eos>", "<pad>", ("lower_case",)),
}


class Unrolled:
    """Tensors whose scanned layers appear one by one.

    Args:
      tensors: the tensors of the file.
    """

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.stacks: dict[str, tuple[str, int]] = {}
        self.shapes: dict[str, Shape] = {}
        self.last: tuple[str, np.ndarray] | None = None  # the layers of one tensor are read in turn
        for name, shape in tensors.shapes.items():
            match = SCANNED.fullmatch(name)
            if match is None:
                self.shapes[name] = shape
                continue
            for number in range(shape[0]):
                layer = f"{match[1]}_{number}/{match[2]}"
                self.shapes[layer], self.stacks[layer] = shape[1:], (name, number)

    def file_of(self, name: str) -> str:
        """The file that holds a tensor."""
        return self.tensors.file_of(self.stacks.get(name, (name, 0))[0])

    def read(self, name: str) -> np.ndarray:
        """A tensor, or the one layer of a stack; float32.

        Raises: as `Tensors.read`.
        """
        if name not in self.stacks:
            return self.tensors.read(name)
        stack, number = self.stacks[name]
        if self.last is None or self.last[0] != stack:
            self.last = stack, self.tensors.read(stack)
        return self.last[1][number]


@dataclasses.dataclass(frozen=True)
class BigVision(Format):
    """An .npz file of big_vision."""

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint in a file.

        Raises: as `Format.open`.
        """
        if os.path.isdir(place):
            raise CheckpointError(f"{place}: is a folder, expected an .npz file of big_vision")
        return cls(place, BIG_VISION["two_towers"](), {}, Unrolled(NpzFile(place)))

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Those of the model, and SigLIP's preprocessing.

        Raises: as `Format.settings`.
        """
        settings = super().settings(shapes)
        size = settings["model.text.vocab_size"]
        name, end, padding, canonicalize = VOCABULARIES.get(size, VOCABULARIES[32_000])
        return {
            **settings,
            "data.images.resize": "squash",
            "data.images.interpolation": "bilinear",
            "data.images.mean": (0.5,) * 3,
            "data.images.std": (0.5,) * 3,
            "data.images.transparency": "drop",
            "data.text.tokenizer": name,
            "data.text.start_token": None,
            "data.text.end_token": end,
            "data.text.padding_token": padding,
            "data.text.canonicalize": canonicalize,
        }
