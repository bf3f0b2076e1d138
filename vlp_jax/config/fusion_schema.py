"""What a config may say about what joins image and text: `model.fusion`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.tower_schema import Stack


@dataclasses.dataclass(frozen=True)
class FusionStack(Stack):
    """Fields that the fusions by transformer layers share."""

    preset: str = "B"
    final_norm: bool = True  # False: none behind the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on what is pooled


@dataclasses.dataclass(frozen=True)
class CrossAttentionFusion(FusionStack):
    """Text tokens go on through layers that also attend the image's tokens (ALBEF, BLIP)."""

    kind: Literal["cross_attention"] = "cross_attention"


@dataclasses.dataclass(frozen=True)
class MergedFusion(FusionStack):
    """One stream of image and text tokens (ViLT, FLAVA)."""

    kind: Literal["merged"] = "merged"
    class_token: bool = False  # pooled is a learned token of the stream's own, and not the text's first
    projected: bool = False  # tokens of each kind go through a linear map, even where they are as wide as the layers
    normalised: bool = True  # False: the towers' tokens are taken before their final norm


@dataclasses.dataclass(frozen=True)
class CoAttentionFusion(FusionStack):
    """Two streams, each of which attends itself and the other in every layer (METER)."""

    kind: Literal["co_attention"] = "co_attention"


@dataclasses.dataclass(frozen=True)
class PooledFusion:
    """Fields that the fusions of what the two towers pooled share. They give no tokens."""

    width: int = between(768, 1)


@dataclasses.dataclass(frozen=True)
class ConcatenationFusion(PooledFusion):
    """An MLP on what the two towers pooled."""

    kind: Literal["concatenation"] = "concatenation"
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"


@dataclasses.dataclass(frozen=True)
class GatedFusion(PooledFusion):
    """A sum of the two, weighted by a gate that looks at both (GMU)."""

    kind: Literal["gated"] = "gated"


@dataclasses.dataclass(frozen=True)
class BilinearFusion(PooledFusion):
    """A bilinear product of the two, of low rank (MLB)."""

    kind: Literal["bilinear"] = "bilinear"
    rank: int = between(1200, 1)


@dataclasses.dataclass(frozen=True)
class VisualAttentionFusion(PooledFusion):
    """What the text pooled looks at the image's tokens, several times (SAN)."""

    kind: Literal["visual_attention"] = "visual_attention"
    hops: int = between(2, 1)


@dataclasses.dataclass(frozen=True)
class GraphFusion:
    """A graph of the image's regions and one of the text's tokens, whose nodes exchange messages within and across."""

    kind: Literal["graph"] = "graph"
    width: int = between(768, 1)
    heads: int = between(12, 1)  # of the attention across the two, and of layer="attention"
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    rounds: int = between(2, 1)
    layer: Literal["convolution", "attention"] = "attention"  # how messages within a graph are weighted
    regions: Literal["grid", "boxes"] = "grid"  # the patches, or the means of those in each of `data.boxes`
    image_neighbours: Literal[4, 8] = 8  # of a patch: those that share a side, or those at its corners too
    box_neighbours: Literal["overlap", "all"] = "overlap"  # of a box
    box_count: int | None = between(None, 1)  # filled in from data.boxes.count
    words: Literal["window", "dependencies"] = "window"  # which are neighbours: near ones, or those of `data.dependencies`
    word_window: int = between(2, 1)  # tokens so many places apart are neighbours


@dataclasses.dataclass(frozen=True)
class TextTowerFusion:
    """The text tower reads the text again, with cross-attention to the image's tokens in each of its layers (BLIP)."""

    kind: Literal["in_text_tower"] = "in_text_tower"
    start_token: bool = True  # a learned token takes the place of each text's first, as BLIP's [Encode]


Fusion = (CrossAttentionFusion | MergedFusion | CoAttentionFusion | ConcatenationFusion | GatedFusion | BilinearFusion |
          VisualAttentionFusion | GraphFusion | TextTowerFusion)
