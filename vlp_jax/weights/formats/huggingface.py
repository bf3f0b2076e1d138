"""Folders as transformers writes them: config.json, model.safetensors or shards of it, tokenizer
and preprocessor.
"""

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlp_jax.config.registry import Kinds
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.weights.card import image_note, text_note
from vlp_jax.weights.family import HUGGINGFACE
from vlp_jax.weights.files import write_json, write_tensors, write_text, write_tokenizer
from vlp_jax.weights.formats.format import Format
from vlp_jax.weights.formats.hub import local_folder
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.tensors import read_json, safetensors_in

if TYPE_CHECKING:
    from vlp_jax.weights.export import Exported

ONES = (1.0,) * 3
FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
TOKENIZERS = (
    "tokenizer.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.model",
    "vocab.txt",
    "vocab.json",
)


@dataclasses.dataclass(frozen=True)
class HuggingFace(Format):
    """A Hugging Face folder.

    Attributes:
      folder: the folder.
    """

    families: ClassVar[Kinds] = HUGGINGFACE

    folder: str

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint in a folder, or of OWNER/NAME on the hub.

        Raises: as `Format.open`.
        """
        folder = local_folder(place)
        path = os.path.join(folder, "config.json")
        config = read_json(path)
        kind = str(config.get("model_type"))
        if not any(name.split("/")[0] == kind for name in HUGGINGFACE):
            raise CheckpointError(f"{path}: {unknown_architecture(kind, config)}")
        theirs = with_defaults(kind, config, path)
        name = family_name(kind, theirs)
        if name not in HUGGINGFACE:
            raise CheckpointError(f"{path}: {unknown_architecture(name, config)}")
        family = HUGGINGFACE[name]()
        tensors = safetensors_in(folder, "model")
        return cls(path, family, theirs, tensors, folder)

    @classmethod
    def write(cls, folder: str, exported: "Exported") -> None:
        """Writes config, weights, tokenizer, processor and model card."""
        family, tokenizer = exported.family, exported.preprocessor.tokenizer
        theirs = exported.theirs
        family.check_tokenizer(theirs, tokenizer)
        write_json(
            folder,
            "config.json",
            {
                **(theirs if family.absent == "text" else with_token_ids(theirs, tokenizer)),
                "architectures": theirs.get("architectures") or [family.title],
                "model_type": family.model_type,
                "dtype": "float32",
            },
        )
        write_tensors(folder, "model", exported.tensors())
        processor = {"processor_class": family.processor} if family.processor else {}
        notes, left = "", list[str]()
        if family.absent != "text":
            left = write_tokenizer(folder, tokenizer, processor)
        if family.absent != "image":
            images = image_processor(exported.preprocessor, family.image_processor)
            write_json(folder, "preprocessor_config.json", {**images, **processor})
            notes = image_note(exported.preprocessor, "composite")
        write_text(folder, "README.md", exported.card + notes + text_note(left))

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Those of the model, and those of preprocessor and tokenizer.

        Raises: as `Format.settings`.
        """
        return {**super().settings(shapes), **self.image_settings(), **self.text_settings()}

    def image_settings(self) -> dict[str, Any]:
        """The keys of `data.images`, from the folder's image processor.

        Raises:
          CheckpointError: it has a step that we do not have.
        """
        for name in ("preprocessor_config.json", "processor_config.json"):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                found = read_json(path)
                return image_settings(found.get("image_processor", found), path)
        return {}

    def text_settings(self) -> dict[str, Any]:
        """The keys of `data.text`, from the folder's tokenizer."""
        held = [name for name in TOKENIZERS if os.path.exists(os.path.join(self.folder, name))]
        if not held or self.family.absent == "text":
            return self.family.text_settings({})
        path = os.path.join(self.folder, "tokenizer_config.json")
        tokens = read_json(path) if os.path.exists(path) else {}
        known = {"added_tokens_decoder": token_table(self.folder, held), **tokens}
        return {"data.text.tokenizer": self.folder, **self.family.text_settings(known)}


def token_table(folder: str, held: Sequence[str]) -> dict[str, Any]:
    """{id: {"content": token}} of the special tokens of a folder's tokenizer, or of all its tokens;
    {} for a file of another kind.

    Args:
      folder: the folder.
      held: the files of the tokenizer that it has.

    Raises:
      CheckpointError: a file cannot be read.
    """
    path = os.path.join(folder, held[0])
    if held[0] == "tokenizer.json":
        added = read_json(path).get("added_tokens") or ()
        return {str(each["id"]): each for each in added}
    if held[0] == "vocab.json":
        return {str(number): {"content": word} for word, number in read_json(path).items()}
    if held[0] == "vocab.txt":
        with open(path, encoding="utf-8") as lines:
            return {str(number): {"content": line.rstrip()} for number, line in enumerate(lines)}
    return {}


def family_name(kind: str, config: Mapping[str, Any]) -> str:
    """The name in HUGGINGFACE of a config's `model_type`, with its class or the kinds of its parts
    where these have names of their own."""
    parts = (config.get(part) for part in ("vision_config", "encoder", "text_config", "decoder"))
    kinds = "+".join(str(part.get("model_type")) for part in parts if isinstance(part, Mapping))
    names = [f"{kind}/{name}" for name in (*(config.get("architectures") or ()), kinds)]
    return next((name for name in names if name in HUGGINGFACE), kind)


def with_token_ids(theirs: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A config whose text has the ids of the tokenizer's special tokens."""
    start, end, padding = tokenizer.special_ids
    ids = {
        "bos_token_id": start[0] if start else None,
        "eos_token_id": end[0] if end else None,
        "pad_token_id": padding,
    }
    for part in ("text_config", "decoder"):
        if part in theirs:
            return {**theirs, part: {**theirs[part], **ids}}
    return {**theirs, **ids} if "vocab_size" in theirs else dict(theirs)


def image_processor(preprocessor: Preprocessor, kind: str) -> dict[str, Any]:
    """The settings of an image processor of transformers.

    Raises:
      ConfigError: it has no such step.
    """
    spec, side = preprocessor.images, preprocessor.image_size
    if spec.resize == "letterbox" or spec.crop_to_content:
        raise ConfigError(
            f"data.images: resize={spec.resize!r} and crop_to_content={spec.crop_to_content} "
            "cannot be exported; no image processor of transformers does the same"
        )
    square, crop = dict(height=side, width=side), spec.resize == "shortest_side_crop"
    if spec.crop_fraction != 1 and not crop:
        raise ConfigError(
            f"data.images.crop_fraction: {spec.crop_fraction} cannot be exported with resize="
            f"{spec.resize!r}; no image processor of transformers does the same"
        )
    shortest = math.floor(side / spec.crop_fraction + 1e-6)
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shortest} if crop else square,
        "resample": next(key for key, value in FILTERS.items() if value == spec.interpolation),
        "do_center_crop": crop,
        **({"crop_size": square} if crop else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def unknown_architecture(kind: str, config: Mapping[str, Any]) -> str:
    """A message about a model_type that is not supported."""
    near = difflib.get_close_matches(kind, HUGGINGFACE, 1, 0.3)
    names = ", ".join(config.get("architectures") or [])
    return (
        f"model_type {kind!r}{f' ({names})' if names else ''} is not supported; supported are "
        f"{', '.join(HUGGINGFACE)}" + (f"; the nearest is {near[0]}" if near else "")
    )


def with_defaults(kind: str, config: dict[str, Any], path: str) -> dict[str, Any]:
    """A config with the defaults of transformers for what it leaves out.

    Raises:
      CheckpointError: transformers refuses it.
    """
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    logging.set_verbosity_error()
    plain = {key: value for key, value in config.items() if key != "auto_map"}
    try:
        return CONFIG_MAPPING[kind].from_dict(plain).to_dict()
    except Exception as error:  # whatever a check of theirs raises
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"{path}: is no config of a {kind}: {reason}") from error


def side_of(size: int | Mapping[str, int]) -> int:
    """The side of a square that is given as a number, or by its height."""
    return size if isinstance(size, int) else size["height"]


def image_settings(theirs: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The keys of `data.images` of an image processor's settings.

    Raises:
      CheckpointError: it has a step that we do not have.
    """
    size = theirs.get("size", {})
    if isinstance(size, int):
        size = {"shortest_edge": size} if theirs.get("do_center_crop") else dict(height=size)
    cropped = bool(theirs.get("do_center_crop"))
    crop = cropped and "shortest_edge" in size
    number = theirs.get("resample", 3)
    if number not in FILTERS:
        raise CheckpointError(
            f"{place}: resample is {number}, and only {', '.join(map(str, FILTERS))} are supported"
        )
    if "shortest_edge" in size and not crop:
        raise CheckpointError(
            f"{place}: resizes the shortest edge without do_center_crop, which is not supported"
        )
    mean, std = scaling(theirs, place)
    shown, resized = 1.0, size.get("shortest_edge") or size.get("height")
    if cropped and resized and "crop_size" in theirs:
        shown = side_of(theirs["crop_size"]) / resized
    return {
        "data.images.crop_fraction": min(shown, 1.0),
        "data.images.resize": "shortest_side_crop" if crop else "squash",
        "data.images.interpolation": FILTERS[number],
        "data.images.crop_offset": "floor",
        "data.images.mean": mean,
        "data.images.std": std,
        "data.images.transparency": "composite",  # over white
    }


def scaling(theirs: Mapping[str, Any], place: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation that an image processor subtracts from and divides pixels from 0
    to 1 by.

    That of EfficientNet may scale them from -1 to 1 first, and divide by the deviation once more.

    Raises:
      CheckpointError: another scale.
    """
    scale, shifted = theirs.get("rescale_factor", 1 / 255), theirs.get("rescale_offset", False)
    if abs(scale * 255 - (2 if shifted else 1)) > 1e-6:
        raise CheckpointError(
            f"{place}: rescale_factor is {scale}, and only {'2/255' if shifted else '1/255'} is "
            "supported"
        )
    normalised = theirs.get("do_normalize", True)
    std = tuple(theirs.get("image_std", ()))
    mean, first = (tuple(theirs.get("image_mean", ())), std) if normalised else ((0.0,) * 3, ONES)
    usual = str(theirs.get("image_processor_type", "")).startswith("EfficientNet")
    second = std if theirs.get("include_top", usual) else ONES
    if shifted:
        mean, first = tuple((each + 1) / 2 for each in mean), tuple(each / 2 for each in first)
    return mean, tuple(one * other for one, other in zip(first, second, strict=False))
