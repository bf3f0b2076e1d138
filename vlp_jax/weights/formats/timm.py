"""Folders as timm writes them: config.json with an architecture and its preprocessing, and
model.safetensors."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Self

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.family import TIMM
from vlp_jax.weights.formats.format import Format
from vlp_jax.weights.formats.hub import local_folder
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.tensors import read_json, safetensors_in

# The families by names of architectures, and names of another one within: other layers, or rotary
# positions, which have no tensors.
FAMILIES = {
    "vit": r"(vit|deit|deit3|flexivit|eva_large|test_vit2?)_.*",
    "resnet": r"resnet(18|34|50|101|152)",
    "vgg": r"vgg(11|13|16|19)(_bn)?",
    "inception_v3": r"inception_v3",
}
OTHERS = re.compile(r"rope|dinov3|_pe_|relpos|radio|_rpn_|_xp_|_dwee|_pwee|_dpwee|_dlittle|x2_")
CROPS = {"center": "shortest_side_crop", "squash": "squash"}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclasses.dataclass(frozen=True)
class Timm(Format):
    """A timm folder."""

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint in a folder, or of OWNER/NAME on the hub.

        Raises: as `Format.open`.
        """
        folder = local_folder(place)
        path = os.path.join(folder, "config.json")
        theirs = read_json(path)
        if not isinstance(theirs.get("architecture"), str):
            raise CheckpointError(f"{path}: has no architecture, as a config of timm does")
        family = TIMM[family_of(theirs["architecture"], path)]()
        return cls(path, family, theirs, safetensors_in(folder, "model"))

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Those of the model, and those of `pretrained_cfg`.

        Raises: as `Format.settings`.
        """
        given = self.theirs.get("pretrained_cfg", {})
        return {**super().settings(shapes), **image_settings(given, self.place)}


def family_of(architecture: str, place: str) -> str:
    """The name of an architecture's family in TIMM.

    Raises:
      CheckpointError: it is not supported.
    """
    for name, pattern in FAMILIES.items():
        if re.fullmatch(pattern, architecture) and not OTHERS.search(architecture):
            return name
    raise CheckpointError(
        f"{place}: architecture {architecture!r} is not supported; supported are "
        f"{', '.join(FAMILIES.values())}"
    )


def image_settings(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The keys of `data.images` of a `pretrained_cfg`.

    Raises:
      CheckpointError: it has a step that we do not have.
    """
    mode = given.get("crop_mode", "center")
    if mode not in CROPS:
        raise CheckpointError(f"{place}: crop_mode {mode!r} is not supported")
    return {
        "data.images.resize": CROPS[mode],
        "data.images.crop_fraction": given.get("crop_pct", 0.875),
        "data.images.interpolation": given.get("interpolation", "bicubic"),
        **{
            f"data.images.{key}": tuple(given.get(key, default))
            for key, default in IMAGENET.items()
        },
        "data.images.transparency": "drop",
    }
