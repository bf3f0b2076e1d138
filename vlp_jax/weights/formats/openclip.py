"""Folders as OpenCLIP writes them: open_clip_config.json and open_clip_model.safetensors."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vlp_jax.config.recipes import CLIP_TEXT
from vlp_jax.config.registry import Kinds
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.clip_vocabulary import clip_definition
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.weights.card import image_note, text_note
from vlp_jax.weights.family import OPENCLIP
from vlp_jax.weights.files import write_json, write_tensors, write_text, write_tokenizer
from vlp_jax.weights.formats.format import Format
from vlp_jax.weights.formats.hub import local_folder
from vlp_jax.weights.formats.huggingface import TOKENIZERS
from vlp_jax.weights.rules import Shape
from vlp_jax.weights.settings import copied
from vlp_jax.weights.tensors import read_json, safetensors_in

if TYPE_CHECKING:
    from vlp_jax.weights.export import Exported

ONE_FILE = 1 << 62  # bytes: OpenCLIP reads no shards
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model"
# Changes of a text before a tokenizer of transformers, by their name there.
CLEAN = {
    "whitespace": ("ftfy", "html", "whitespace"),
    "lower": ("ftfy", "html", "lower_case", "whitespace"),
    "canonicalize": ("ftfy", "html", "lower_case", "punctuation", "whitespace"),
}
RESIZE = {"shortest": "shortest_side_crop", "squash": "squash", "longest": "letterbox"}
# OpenCLIP's defaults (constants.py), those of OpenAI's CLIP
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class OpenClip(Format):
    """An OpenCLIP folder.

    Attributes:
      folder: the folder.
      preprocessing: its `preprocess_cfg`.
    """

    families: ClassVar[Kinds] = OPENCLIP

    folder: str
    preprocessing: Mapping[str, Any]

    @classmethod
    def open(cls, place: str) -> Self:
        """The checkpoint in a folder, or of OWNER/NAME on the hub.

        Raises: as `Format.open`.
        """
        folder = local_folder(place)
        path = os.path.join(folder, CONFIG)
        found = read_json(path)
        theirs = found.get("model_cfg")
        if not isinstance(theirs, dict) or not {"vision_cfg", "text_cfg"} <= theirs.keys():
            raise CheckpointError(f"{path}: has no model_cfg with a vision_cfg and a text_cfg")
        family = OPENCLIP[family_of(theirs, path)]()
        tensors = safetensors_in(folder, WEIGHTS)
        return cls(path, family, theirs, tensors, folder, found.get("preprocess_cfg", {}))

    @classmethod
    def write(cls, folder: str, exported: "Exported") -> None:
        """Writes config, weights, tokenizer where it is not CLIP's own, and model card."""
        theirs, tokenizer = copied(exported.theirs), exported.preprocessor.tokenizer
        left: list[str] = []
        if tokenizer.definition != clip_definition() or tokenizer.spec.padding_token != "!":
            left = write_tokenizer(folder, tokenizer, {})
            theirs["text_cfg"]["hf_tokenizer_name"] = os.path.basename(exported.name)
            clean = clean_for(tokenizer.spec.canonicalize)
            theirs["text_cfg"]["tokenizer_kwargs"] = {"clean": clean}
            left = [name for name in left if name not in CLEAN[clean]]
        ends, text = tokenizer.special_ids[1], theirs["text_cfg"]
        pools_end = not {"pool_type", "embed_cls"} & text.keys()
        # then it is not the argmax of the ids
        if pools_end and ends and ends[0] != tokenizer.vocab_size - 1:
            theirs["text_cfg"] |= {"pool_type": "eos", "eos_id": ends[0]}
        write_json(
            folder,
            CONFIG,
            {"model_cfg": theirs, "preprocess_cfg": preprocess_cfg(exported.preprocessor)},
        )
        write_tensors(folder, WEIGHTS, exported.tensors(), shard_bytes=ONE_FILE)
        notes = image_note(exported.preprocessor, "drop") + text_note(left)
        write_text(folder, "README.md", exported.card + notes)

    def settings(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Those of the model, and those of preprocessing and tokenizer.

        Raises: as `Format.settings`.
        """
        return {
            **super().settings(shapes),
            **image_settings(self.preprocessing, self.place),
            **self.text_settings(),
        }

    def text_settings(self) -> dict[str, Any]:
        """The keys of `data.text`: CLIP's own tokenizer, or the one that the config names."""
        text = self.theirs["text_cfg"]
        name = text.get("hf_tokenizer_name")
        if name is None:
            return {f"data.text.{key}": value for key, value in CLIP_TEXT.items()}
        clean = (text.get("tokenizer_kwargs") or {}).get("clean", "whitespace")
        if clean not in CLEAN:
            raise CheckpointError(
                f"{self.place}: text_cfg.tokenizer_kwargs.clean is {clean!r}, which is not "
                f"supported; expected {', '.join(map(repr, CLEAN))}"
            )
        held = any(os.path.exists(os.path.join(self.folder, file)) for file in TOKENIZERS)
        path = os.path.join(self.folder, "tokenizer_config.json")
        tokens = read_json(path) if os.path.exists(path) else {}
        return {
            "data.text.tokenizer": self.folder if held else name,
            "data.text.canonicalize": CLEAN[clean],
            **self.family.text_settings(tokens),
        }


def clean_for(canonicalize: Collection[str]) -> str:
    """OpenCLIP's name of changes of a text before a tokenizer of transformers; where it has none of
    these, of the fewest."""
    found = (name for name, changes in CLEAN.items() if set(changes) == set(canonicalize))
    return next(found, "whitespace")


def preprocess_cfg(preprocessor: Preprocessor) -> dict[str, Any]:
    """The `preprocess_cfg` of our preprocessing.

    Raises:
      ConfigError: OpenCLIP has no such step.
    """
    spec = preprocessor.images
    if spec.crop_to_content or spec.interpolation == "lanczos" or spec.crop_fraction != 1:
        raise ConfigError(
            f"data.images: crop_to_content={spec.crop_to_content}, interpolation="
            f"{spec.interpolation!r} and crop_fraction={spec.crop_fraction} cannot be "
            "exported; OpenCLIP has no such preprocessing"
        )
    return {
        "size": preprocessor.image_size,
        "mode": "RGB",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.interpolation,
        "resize_mode": next(key for key, value in RESIZE.items() if value == spec.resize),
        "fill_color": spec.background[0] if spec.resize == "letterbox" else 0,
    }


def family_of(theirs: Mapping[str, Any], place: str) -> str:
    """The name of a model's architecture in OPENCLIP.

    Raises:
      CheckpointError: it is not supported.
    """
    image, text = theirs["vision_cfg"], theirs["text_cfg"]
    if text.get("hf_model_name"):
        name = text["hf_model_name"]
        raise CheckpointError(f"{place}: text_cfg.hf_model_name {name!r} is not supported")
    if image.get("timm_model_name"):
        return "pe" if image["timm_model_name"].startswith("vit_pe_core_") else "siglip"
    if "multimodal_cfg" in theirs:
        return "coca"
    return "resnet" if isinstance(image.get("layers"), list) else "vit"


def image_settings(theirs: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The keys of `data.images` of a `preprocess_cfg`.

    Raises:
      CheckpointError: it has a step that we do not have.
    """
    mode = theirs.get("resize_mode", "shortest")
    if mode not in RESIZE:
        raise CheckpointError(f"{place}: resize_mode {mode!r} is not supported")
    filter_ = theirs.get("interpolation", "bicubic")
    return {
        "data.images.resize": RESIZE[mode],
        "data.images.interpolation": "bicubic" if filter_ == "random" else filter_,
        "data.images.mean": tuple(theirs.get("mean", MEAN)),
        "data.images.std": tuple(theirs.get("std", STD)),
        "data.images.transparency": "drop",
        "data.images.background": (theirs.get("fill_color", 0),) * 3,  # around a smaller image
    }
