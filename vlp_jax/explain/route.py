"""Which attention a score passes through behind the image tower, in order."""

import dataclasses
from typing import TYPE_CHECKING, Any

from vlp_jax.explain.score import ScoreConfig, answers, pools_a_fusion
from vlp_jax.models.decoder.in_text_tower import InTextTowerDecoderConfig
from vlp_jax.models.decoder.transformer import TextDecoderConfig
from vlp_jax.models.fusion.attention import (
    CoAttentionConfig,
    CrossAttentionConfig,
    MergedAttentionConfig,
)
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.text.transformer import TextTransformerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

TEXT_LAYERS = "model/text/transformer/layer_"
FUSION_LAYERS = "model/fusion/transformer/layer_"
DECODER_LAYERS = "model/decoder/transformer/layer_"
IMAGE, TEXT, JOINT = "image", "text", "joint"
POSITIONS = {"first": 0, "cls": 0, "end": None}  # of the pooled token; None: the last real one


@dataclasses.dataclass(frozen=True)
class Step:
    """One attention.

    Attributes:
      path: of its module.
      stream: the tokens that attend.
      memory: what they attend to; None: themselves.
    """

    path: str
    stream: str
    memory: str | None = None


@dataclasses.dataclass(frozen=True)
class Route:
    """Attention behind the image tower.

    Attributes:
      before: the text tower's self-attention, where the text passes through it first.
      layers: the layers in which image and text meet; within one, a stream reads the other as it
        was before the layer.
      joint: whether image and text are one stream there.
      class_token: whether a class token is in front of the joint stream.
      pooler: path of the attention that pools the image's tokens before they are read; empty where
        none does.
    """

    before: tuple[Step, ...] = ()
    layers: tuple[tuple[Step, ...], ...] = ()
    joint: bool = False
    class_token: bool = False
    pooler: str = ""


def route_of(config: "Experiment", score: ScoreConfig) -> Route | None:
    """The route of a score that is no retrieval; None where there is none by attention.

    Args:
      config: with unrolled layers.
      score: the score.
    """
    model = config.model
    if score.kind == "caption":
        return decoder_route(model.decoder, model.text)
    if not pools_a_fusion(score):
        return None
    generates = any(answers(own) and own.generates for own in config.objectives.values())
    if score.kind == "answer" and generates:
        return None
    return fusion_route(model.fusion, model.text)


def text_steps(text: Any) -> tuple[Step, ...] | None:
    """The self-attention of the text tower; None where it is no transformer."""
    if not isinstance(text, TextTransformerConfig):
        return None
    return tuple(Step(f"{TEXT_LAYERS}{layer}/attention", TEXT) for layer in range(text.size.depth))


def crossing(layers: str, depth: int, own: tuple[str, ...] = ()) -> tuple[tuple[Step, ...], ...]:
    """Layers of the text's tokens with cross-attention to the image's.

    Args:
      layers: their path, without the number.
      depth: how many.
      own: the branches that a decoder does not share with its tower.
    """
    names = {name: f"decoder_{name}" if name in own else name for name in ("attention", "cross")}
    return tuple(
        (
            Step(f"{layers}{layer}/{names['attention']}", TEXT),
            Step(f"{layers}{layer}/{names['cross']}", TEXT, IMAGE),
        )
        for layer in range(depth)
    )


def fusion_route(fusion: Any, text: Any) -> Route | None:
    """The route to the pooled vector of a fusion."""
    before = text_steps(text)
    if before is None:
        return None
    if isinstance(fusion, InTextTowerConfig):
        if text.pooling not in POSITIONS:
            return None
        return Route((), crossing(TEXT_LAYERS, text.size.depth))
    if isinstance(fusion, CrossAttentionConfig):
        return Route(before, crossing(FUSION_LAYERS, fusion.size.depth))
    if isinstance(fusion, MergedAttentionConfig):
        layers = joint_layers(FUSION_LAYERS, fusion.size.depth)
        return Route(before, layers, joint=True, class_token=fusion.class_token)
    if isinstance(fusion, CoAttentionConfig):
        return Route(before, tuple(co_layer(layer) for layer in range(fusion.size.depth)))
    return None


def joint_layers(layers: str, depth: int) -> tuple[tuple[Step, ...], ...]:
    """Layers of one stream of image and text."""
    return tuple((Step(f"{layers}{layer}/attention", JOINT),) for layer in range(depth))


def co_layer(layer: int) -> tuple[Step, ...]:
    """The attention of both streams in a layer of a co-attention fusion."""
    return tuple(
        Step(f"model/fusion/{stream}_layer_{layer}/{name}", stream, memory)
        for stream, other in ((IMAGE, TEXT), (TEXT, IMAGE))
        for name, memory in (("attention", None), ("cross", other))
    )


def decoder_route(decoder: Any, text: Any) -> Route | None:
    """The route to the tokens that a decoder predicts."""
    if isinstance(decoder, InTextTowerDecoderConfig):
        return Route((), crossing(TEXT_LAYERS, text.size.depth, decoder.own))
    if not isinstance(decoder, TextDecoderConfig):
        return None
    before = text_steps(text) if decoder.reads_text_tower else ()
    pooler = "model/decoder/pooler/attention" if decoder.image_queries else ""
    if before is None or decoder.image == "prefix" and pooler:
        return None
    if decoder.image == "prefix":
        return Route(before, joint_layers(DECODER_LAYERS, decoder.size.depth), joint=True)
    return Route(before, crossing(DECODER_LAYERS, decoder.size.depth), pooler=pooler)
