"""What formats have in common, and their table."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from vlp_jax.config.registry import Kinds
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.tensors import Tensors


@dataclasses.dataclass(frozen=True)
class Format:
    """The files of a public checkpoint.

    Attributes:
      kinds: the formats by name.
      place: the file of its config, for messages.
      family: its architecture.
      theirs: its config, with defaults.
      tensors: its tensors.
    """

    kinds: ClassVar[Kinds] = Kinds(
        {
            "huggingface": "vlp_jax.weights.formats.huggingface:HuggingFace",
            "openclip": "vlp_jax.weights.formats.openclip:OpenClip",
            "big_vision": "vlp_jax.weights.formats.big_vision:BigVision",
            "timm": "vlp_jax.weights.formats.timm:Timm",
            "original": "vlp_jax.weights.formats.original:Original",
        }
    )

    place: str
    family: Family
    theirs: Mapping[str, Any]
    tensors: Tensors

    # the architectures that are written; none where the format is only read
    families: ClassVar[Kinds | None] = None

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint at a place.

        Raises:
          CheckpointError: it is missing, damaged or of an unknown architecture.
        """
        raise NotImplementedError

    @classmethod
    def write(cls, folder: str, exported: Any) -> None:
        """Writes a model.

        Args:
          folder: an empty folder.
          exported: the model, a `weights.export.Exported`.
        """
        raise NotImplementedError

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """{our dotted key: value}: model, objective, image preprocessing and tokenizer.

        Args:
          shapes: of its tensors, by their names in the rules.
        Raises:
          CheckpointError: a setting that we do not have.
        """
        return self.family.config(self.theirs, shapes, self.place)


def format_named(place: str | os.PathLike) -> type[Format] | None:
    """The format of FORMAT:DIR; None where there is no such format."""
    name, colon, _ = os.fspath(place).partition(":")
    return Format.kinds[name] if colon and name in Format.kinds else None
