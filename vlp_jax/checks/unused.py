"""Finds settings that have no effect because of another setting."""

import dataclasses
from typing import TYPE_CHECKING

from vlp_jax.config.problems import Problems
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.in_text_tower import InTextTowerDecoderConfig
from vlp_jax.models.decoder.recurrent import RecurrentDecoderConfig
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.fusion.graph_fusion import GraphFusionConfig
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.resnet import ResNetConfig
from vlp_jax.models.vision.tower import ConvolutionConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


def check_unused(config: "Experiment", place: str) -> None:
    """Checks for settings without an effect.

    Raises: ConfigError naming each, and what it needs.
    """
    at = f" [{place}]" if place else ""
    Problems(f"{path}: has no effect {needed}{at}" for path, unused, needed in unused_settings(config) if unused).report()


def unused_settings(config: "Experiment") -> list[tuple[str, bool, str]]:
    """All checks, as tuples of the setting, whether it has no effect, and the reason."""
    image = config.model.image
    settings = [] if image.kind == "vit" else unused_of_convolutions(image)
    stacks = {"image": image, "text": config.model.text, "fusion": config.model.fusion, "decoder": config.model.decoder}
    settings += unused_of_text_tower(config)
    for name, tower in stacks.items():
        if not isinstance(tower, StackConfig):
            continue
        by_name = tower.rematerialisation == "save_names"
        settings += [
            (f"model.{name}.saved", bool(tower.saved) and not by_name,
             f"with rematerialisation={tower.rematerialisation!r}: it is for 'save_names'"),
            (f"model.{name}.rematerialisation", by_name and not tower.saved,
             "as 'save_names' without names in `saved` (such as query, key, value): that is 'full'")]
    settings += unused_of_graphs(config.model.fusion)
    words = config.model.text
    return settings + [
        ("model.text.word_overlap", words.word_vectors is None and words.word_overlap != TextTransformerConfig().word_overlap,
         "without model.text.word_vectors")]


def unused_of_graphs(fusion: FusionConfig | None) -> list[tuple[str, bool, str]]:
    """Neighbourhoods of regions and words that are absent."""
    if not isinstance(fusion, GraphFusionConfig):
        return []
    default = GraphFusionConfig()
    return [(f"model.fusion.{name}", getattr(fusion, name) != getattr(default, name) and off, f"with {setting}")
            for name, off, setting in (("image_neighbours", fusion.regions == "boxes", "regions='boxes'"),
                                       ("box_neighbours", fusion.regions == "grid", "regions='grid'"),
                                       ("word_window", fusion.words == "dependencies", "words='dependencies'"))]


def unused_of_convolutions(tower: ResNetConfig | ConvolutionConfig) -> list[tuple[str, bool, str]]:
    """Settings that a convolutional network does not use with its norm or pooling."""
    default = type(tower)()
    changed = {field.name for field in dataclasses.fields(tower) if getattr(tower, field.name) != getattr(default, field.name)}
    settings = [("model.image.groups", tower.norm != "group" and "groups" in changed, f"with norm={tower.norm!r}")]
    if tower.kind == "resnet":
        settings += unused_of_resnet(tower, changed)
    if tower.kind == "vgg":
        settings += [(f"model.image.{name}", tower.pooling == "mean" and name in changed, "with pooling='mean'")
                     for name in ("hidden_dim", "dropout")]
    return settings


def unused_of_resnet(tower: ResNetConfig, changed: set[str]) -> list[tuple[str, bool, str]]:
    """Settings that CLIP's ResNet does not use, and settings that only it uses."""
    stem = [(f"model.image.{name}", tower.clip and name in changed, "with clip=True, which has a stem of its own")
            for name in ("stem_size", "stem_stride", "max_pool")]
    pooling = [(f"model.image.{name}", not tower.clip and name in changed, "without clip=True, for whose attention pooling it is")
               for name in ("heads", "output_dim")]
    return stem + pooling


def unused_of_text_tower(config: "Experiment") -> list[tuple[str, bool, str]]:
    """Settings that a decoder inside the text tower does not use, and settings that only such a decoder uses."""
    decoder, fusion, default, settings = config.model.decoder, config.model.fusion, DecoderConfig.of(), []
    parts = {"fusion": isinstance(fusion, InTextTowerConfig) and fusion.start_token}
    if isinstance(decoder, RecurrentDecoderConfig):
        settings = [("model.decoder.attention_width", decoder.image == "state" and decoder.attention_width !=
                     RecurrentDecoderConfig().attention_width, "with image='state': it is for 'attention'")]
    elif isinstance(decoder, InTextTowerDecoderConfig):
        parts["decoder"] = decoder.start_token
    return settings + [(f"model.{name}.start_token", used and config.data.text.start_token is None,
                        "without data.text.start_token, whose place it takes") for name, used in parts.items()]
