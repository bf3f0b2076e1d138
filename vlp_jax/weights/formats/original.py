"""Checkpoints in the layout of a model's released research code: the state dict as
model.safetensors, and the settings of that code as config.json."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Self

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.family import ORIGINAL, token
from vlp_jax.weights.formats.format import Format
from vlp_jax.weights.formats.hub import local_folder
from vlp_jax.weights.formats.huggingface import TOKENIZERS, token_table
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.tensors import read_json, safetensors_in

# A tensor by which the layout of each architecture is known.
MARKS = {"meter": "cross_modal_image_transform.weight", "albef": "visual_encoder.cls_token"}
MASK_TOKENS = ("<mask>", "[MASK]")


@dataclasses.dataclass(frozen=True)
class Original(Format):
    """A folder with a state dict and settings of released code.

    Attributes:
      folder: the folder.
    """

    folder: str

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint in a folder, or of OWNER/NAME on the hub.

        Raises: as `Format.open`.
        """
        folder = local_folder(place)
        path = os.path.join(folder, "config.json")
        theirs, tensors = read_json(path), safetensors_in(folder, "model")
        return cls(path, ORIGINAL[family_of(tensors.shapes, folder)](), theirs, tensors, folder)

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Those of the model and its preprocessing, with the folder's tokenizer where it has one.

        Raises: as `Format.settings`.
        """
        found = super().settings(shapes)
        held = [name for name in TOKENIZERS if os.path.exists(os.path.join(self.folder, name))]
        if not held:
            return found
        table = token_table(self.folder, held)
        masks = [int(number) for number, each in table.items() if token(each) in MASK_TOKENS]
        if masks and "objectives.words.kind" in found:
            found["objectives.words.mask_id"] = masks[0]
        return {**found, "data.text.tokenizer": self.folder}


def family_of(shapes: Mapping[str, Shape], folder: str) -> str:
    """The name in ORIGINAL of the architecture whose tensors these are.

    Raises:
      CheckpointError: it is not supported.
    """
    for name, mark in MARKS.items():
        if mark in shapes:
            return name
    raise CheckpointError(
        f"{folder}: has the tensors of no supported architecture; supported are {', '.join(MARKS)}"
    )
