"""Families of public checkpoints: an architecture in one format."""

import dataclasses
import re
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlp_jax.config import flatten, to_tree
from vlp_jax.config.registry import Kinds
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.weights.rules import Rules, Shape
from vlp_jax.weights.settings import Settings

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


class Family:
    """What is known of one architecture in one format. Subclasses have no state.

    Attributes:
      kinds: the families of Hugging Face folders, by `model_type` of config.json.
      title: the architecture, for messages and reports.
      settings: the settings under both names.
      rules: the rules for their tensors; layers are unrolled.
      ignored: a regex of names of tensors without information, such as numbers of positions.
      parts: prefixes of our parameters that the checkpoint has; a single tower has only its own.
      exports: whether our models can be written in this format.
    """

    title: ClassVar[str]
    settings: ClassVar[Settings]
    rules: ClassVar[Rules]
    ignored: ClassVar[str] = r"(^|\.)position_ids$"
    parts: ClassVar[tuple[str, ...]] = ("",)
    exports: ClassVar[bool] = True
    # our keys that change nothing of what the architecture computes
    free: ClassVar[tuple[str, ...]] = ()
    # of the classes in transformers: `model_type` and the name of the image processor
    model_type: ClassVar[str] = ""
    image_processor: ClassVar[str] = ""
    processor: ClassVar[str] = ""
    # how positions of patches are resampled for another grid, "bicubic" or "linear"
    position_filter: ClassVar[str] = "bicubic"
    # the tower that the checkpoint lacks, "image" or "text"; "": it has both
    absent: ClassVar[str] = ""
    # {our dotted key: value} of the tower in its place
    stand_in: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})
    # names in tokenizer_config.json of the tokens before and after each text; None: there is none
    text_tokens: ClassVar[tuple[str | None, str | None]] = (None, None)
    # what the tokens are where no file says so
    default_tokens: ClassVar[Mapping[str, str]] = types.MappingProxyType({})

    def names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """{name as the rules have it: name in the file}; files may have other prefixes.

        Args:
          shapes: of the tensors, by their names in the file.
        """
        return {name: name for name in shapes if not re.search(self.ignored, name)}

    def config(
        self, theirs: Mapping[str, Any], shapes: Mapping[str, Shape], place: str
    ) -> dict[str, Any]:
        """{our dotted key: value} of their config.

        Args:
          theirs: their config, with its defaults.
          shapes: of the tensors, for what the config leaves open.
          place: the config's file, for messages.
        Raises:
          CheckpointError: a setting that we do not have.
        """
        return self.settings.take(theirs, place)

    def written_name(self, name: str) -> str:
        """The name in the file of a name in the rules."""
        return name

    def text_settings(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of `data.text` but for the tokenizer itself.

        Args:
          tokens: the settings in tokenizer_config.json; {} where there is none.
        """
        start, end = self.text_tokens
        known = {**self.default_tokens, **tokens}
        padding = known.get("pad_token") or known.get(end or "")
        found = {
            "data.text.start_token": start and token(known.get(start)),
            "data.text.end_token": end and token(known.get(end)),
        }
        return found | ({"data.text.padding_token": token(padding)} if padding else {})

    def their_config(self, config: "Experiment") -> dict[str, Any]:
        """Their config of a model of ours.

        Raises:
          ConfigError: the architecture has no such setting.
        """
        return self.settings.give(resolved(config), self.defaults())

    def constants(self, config: "Experiment") -> dict[str, np.ndarray]:
        """{path as in the rules: array} of what they store and we compute, such as fixed
        positions."""
        return {}

    def defaults(self) -> dict[str, Any]:
        """Their config at its defaults: that of transformers for a `model_type`."""
        if not self.model_type:
            return {}
        from transformers import CONFIG_MAPPING

        return CONFIG_MAPPING[self.model_type]().to_dict()


def token(entry: Any) -> str | None:
    """The text of a special token, which files give as a string or as {"content": ...}."""
    return entry["content"] if isinstance(entry, Mapping) else entry


def resolved(config: "Experiment") -> dict[str, Any]:
    """{dotted key: value} of a config whose presets are replaced by their sizes."""
    model = config.model
    parts: dict[str, Any] = {}
    for name in ("image", "text", "decoder"):
        part = getattr(model, name)
        if isinstance(part, StackConfig):
            size = part.size
            sizes: dict[str, Any] = dict(
                width=size.width, depth=size.depth, heads=size.heads, mlp_dim=size.mlp_dim
            )
            if isinstance(part, ViTConfig):
                sizes["patch_size"] = part.patch
            parts[name] = dataclasses.replace(part, **sizes)
    dim = model.shapes().embedding_dim
    model = dataclasses.replace(model, embedding_dim=dim, **parts)
    return flatten(to_tree(dataclasses.replace(config, model=model)))


# The families of each format, by the name that the format finds in a checkpoint.
HUGGINGFACE = Kinds(
    {
        "clip": "vlp_jax.weights.families.clip:Clip",
        "siglip": "vlp_jax.weights.families.siglip:Siglip",
        "clip_vision_model": "vlp_jax.weights.families.clip_alone:ClipImage",
        "clip_text_model": "vlp_jax.weights.families.clip_alone:ClipText",
        "siglip_vision_model": "vlp_jax.weights.families.siglip_alone:SiglipImage",
        "siglip_text_model": "vlp_jax.weights.families.siglip_alone:SiglipText",
        "vit_mae": "vlp_jax.weights.families.vit_mae:VitMae",
        "vit": "vlp_jax.weights.families.vit:Vit",
        "deit": "vlp_jax.weights.families.vit:Deit",
        "dinov2": "vlp_jax.weights.families.dino:Dinov2",
        "dinov2_with_registers": "vlp_jax.weights.families.dino:Dinov2",
        "dinov3_vit": "vlp_jax.weights.families.dino:Dinov3",
        "beit": "vlp_jax.weights.families.beit:Beit",
        "resnet": "vlp_jax.weights.families.resnet:HubResNet",
        "convnext": "vlp_jax.weights.families.convnext:ConvNext",
    }
)
OPENCLIP = Kinds({"vit": "vlp_jax.weights.families.openclip_vit:OpenClipVit"})
BIG_VISION = Kinds({"two_towers": "vlp_jax.weights.families.big_vision:TwoTowers"})
TIMM = Kinds(
    {
        "vit_mae": "vlp_jax.weights.families.vit_mae:VitMae",
        "vit": "vlp_jax.weights.families.timm_vit:TimmVit",
        "resnet": "vlp_jax.weights.families.timm_convolutions:TimmResNet",
        "vgg": "vlp_jax.weights.families.timm_convolutions:TimmVgg",
        "inception_v3": "vlp_jax.weights.families.timm_convolutions:TimmInception",
    }
)
