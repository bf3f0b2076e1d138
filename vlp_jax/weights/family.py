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
from vlp_jax.models.vision.resnet import ResNetConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.weights.rules import Rules, Shape
from vlp_jax.weights.settings import Settings

if TYPE_CHECKING:
    from vlp_jax.data.text.tokenizer import Tokenizer
    from vlp_jax.experiment import Experiment


class Family:
    """What is known of one architecture in one format. Subclasses have no state.

    Attributes:
      title: the architecture, for messages and reports.
      settings: the settings under both names.
      rules: the rules for their tensors; layers are unrolled.
      ignored: a regex of names of tensors without information, such as numbers of positions.
      parts: prefixes of our parameters that the checkpoint has; a single tower has only its own.
      optional: prefixes of our parameters that a checkpoint may lack; they are then initialised.
      exports: whether our models can be written in this format.
    """

    title: ClassVar[str]
    settings: ClassVar[Settings]
    rules: ClassVar[Rules]
    ignored: ClassVar[str] = r"(^|\.)position_ids$"
    parts: ClassVar[tuple[str, ...]] = ("",)
    optional: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[bool] = True
    # patterns of our keys that change nothing of what the architecture computes
    free: ClassVar[tuple[str, ...]] = ()
    # of the classes in transformers: `model_type` and the name of the image processor
    model_type: ClassVar[str] = ""
    image_processor: ClassVar[str] = ""
    processor: ClassVar[str] = ""
    # how positions of patches are resampled for another grid, "bicubic" or "linear"
    position_filter: ClassVar[str] = "bicubic"
    # the tower that the checkpoint lacks, "image" or "text"; "": it has both
    absent: ClassVar[str] = ""
    # {our dotted key: value} of the smallest tower in its place
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

    def written_rules(self, theirs: Mapping[str, Any]) -> Rules:
        """The rules by which a model of this config is written."""
        return self.rules

    def unread(self, theirs: Mapping[str, Any]) -> dict[str, Shape]:
        """{name in the file: shape} of tensors that their class has and does not compute with: they
        are ignored in reading, and written as zeros.

        Args:
          theirs: their config.
        """
        return {}

    def check_tokenizer(self, theirs: Mapping[str, Any], tokenizer: "Tokenizer") -> None:
        """Checks that their model reads the texts of a tokenizer as ours does.

        Args:
          theirs: their config of the model.
          tokenizer: ours.
        Raises:
          ConfigError: it does not.
        """

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
    for name in ("image", "text", "fusion", "decoder"):
        part = getattr(model, name)
        if isinstance(part, StackConfig):
            size = part.size
            sizes: dict[str, Any] = dict(
                width=size.width, depth=size.depth, heads=size.heads, mlp_dim=size.mlp_dim
            )
            if isinstance(part, ViTConfig):
                sizes["patch_size"] = part.patch
            parts[name] = dataclasses.replace(part, **sizes)
        elif isinstance(part, ResNetConfig):
            parts[name] = dataclasses.replace(part, blocks=part.stages)
    dim = model.shapes().embedding_dim
    model = dataclasses.replace(model, embedding_dim=dim, **parts)
    return flatten(to_tree(dataclasses.replace(config, model=model)))


DUAL = "vlp_jax.weights.families.vision_text_dual_encoder"
# The families of each format, by the name that the format finds in a checkpoint. That of a Hugging
# Face folder is its `model_type`, or MODEL_TYPE/ARCHITECTURE for one of several classes, or
# MODEL_TYPE/IMAGE+TEXT for a class with towers of several kinds.
HUGGINGFACE = Kinds(
    {
        "bert/BertForMaskedLM": "vlp_jax.weights.families.bert:BertForMaskedLM",
        "bert": "vlp_jax.weights.families.bert:Bert",
        "align": "vlp_jax.weights.families.align:Align",
        "altclip": "vlp_jax.weights.families.altclip:AltClip",
        "blip/BlipModel": "vlp_jax.weights.families.blip:BlipModel",
        "blip/BlipForImageTextRetrieval": "vlp_jax.weights.families.blip:BlipForImageTextRetrieval",
        "blip/BlipForConditionalGeneration": (
            "vlp_jax.weights.families.blip:BlipForConditionalGeneration"
        ),
        "blip/BlipForQuestionAnswering": "vlp_jax.weights.families.blip:BlipForQuestionAnswering",
        "chinese_clip": "vlp_jax.weights.families.chinese_clip:ChineseClip",
        "clip": "vlp_jax.weights.families.clip:Clip",
        "distilbert/DistilBertForMaskedLM": (
            "vlp_jax.weights.families.distilbert:DistilBertForMaskedLM"
        ),
        "distilbert": "vlp_jax.weights.families.distilbert:DistilBert",
        "flava/FlavaForPreTraining": "vlp_jax.weights.families.flava:FlavaForPreTraining",
        "flava": "vlp_jax.weights.families.flava:FlavaModel",
        "git": "vlp_jax.weights.families.git:Git",
        "gpt2": "vlp_jax.weights.families.gpt2:Gpt2",
        "roberta/RobertaForMaskedLM": "vlp_jax.weights.families.roberta:RobertaForMaskedLM",
        "roberta": "vlp_jax.weights.families.roberta:Roberta",
        "siglip": "vlp_jax.weights.families.siglip:Siglip",
        "clip_vision_model": "vlp_jax.weights.families.clip_alone:ClipImage",
        "clip_text_model": "vlp_jax.weights.families.clip_alone:ClipText",
        "siglip_vision_model": "vlp_jax.weights.families.siglip_alone:SiglipImage",
        "siglip_text_model": "vlp_jax.weights.families.siglip_alone:SiglipText",
        "siglip2": "vlp_jax.weights.families.siglip2:Siglip2",
        "t5": "vlp_jax.weights.families.t5:T5Encoder",
        "tipsv2": "vlp_jax.weights.families.tipsv2:Tipsv2",
        "vilt/ViltForMaskedLM": "vlp_jax.weights.families.vilt:ViltForMaskedLM",
        "vilt/ViltForImageAndTextRetrieval": (
            "vlp_jax.weights.families.vilt:ViltForImageAndTextRetrieval"
        ),
        "vision-encoder-decoder/vit+gpt2": (
            "vlp_jax.weights.families.vision_encoder_decoder:VitGpt2"
        ),
        "vision-text-dual-encoder/clip_vision_model+bert": f"{DUAL}:ClipBert",
        "vision-text-dual-encoder/clip_vision_model+roberta": f"{DUAL}:ClipRoberta",
        "vision-text-dual-encoder/vit+bert": f"{DUAL}:VitBert",
        "vision-text-dual-encoder/vit+roberta": f"{DUAL}:VitRoberta",
        "vit_mae": "vlp_jax.weights.families.vit_mae:VitMae",
        "vit": "vlp_jax.weights.families.vit:Vit",
        "deit": "vlp_jax.weights.families.vit:Deit",
        "dinov2": "vlp_jax.weights.families.dino:Dinov2",
        "dinov2_with_registers": "vlp_jax.weights.families.dino:Dinov2",
        "dinov3_vit": "vlp_jax.weights.families.dino:Dinov3",
        "beit": "vlp_jax.weights.families.beit:Beit",
        "resnet": "vlp_jax.weights.families.resnet:HubResNet",
        "convnext": "vlp_jax.weights.families.convnext:ConvNext",
        "efficientnet": "vlp_jax.weights.families.efficientnet:EfficientNet",
    }
)
OPENCLIP = Kinds(
    {
        "vit": "vlp_jax.weights.families.openclip_vit:OpenClipVit",
        "resnet": "vlp_jax.weights.families.openclip_resnet:OpenClipResNet",
        "siglip": "vlp_jax.weights.families.openclip_siglip:OpenClipSiglip",
        "pe": "vlp_jax.weights.families.openclip_pe:OpenClipPe",
        "coca": "vlp_jax.weights.families.openclip_coca:OpenClipCoCa",
    }
)
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
ORIGINAL = Kinds(
    {
        "meter": "vlp_jax.weights.families.meter:Meter",
        "albef": "vlp_jax.weights.families.albef:Albef",
    }
)
