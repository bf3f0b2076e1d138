"""Schema of the fusion of image and text: `model.fusion`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.tower_schema import Stack


@dataclasses.dataclass(frozen=True)
class FusionStack(Stack):
    """Fields shared by the fusions by transformer layers."""

    preset: str = "B"
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on the pooled vector


@dataclasses.dataclass(frozen=True)
class CrossAttentionFusion(FusionStack):
    """Further layers on the text's tokens, with cross-attention to the image's tokens (ALBEF, BLIP)."""

    kind: Literal["cross_attention"] = "cross_attention"


@dataclasses.dataclass(frozen=True)
class MergedFusion(FusionStack):
    """One stream of image and text tokens (ViLT, FLAVA)."""

    kind: Literal["merged"] = "merged"
    class_token: bool = False  # pools a learned token of its own, in place of the text's first
    projected: bool = False  # a linear map for each modality, even where the width is that of the layers
    normalised: bool = True  # False: the towers' tokens before their final norm


@dataclasses.dataclass(frozen=True)
class CoAttentionFusion(FusionStack):
    """Two streams, each of which attends to itself and to the other in every layer (METER)."""

    kind: Literal["co_attention"] = "co_attention"


@dataclasses.dataclass(frozen=True)
class PooledFusion:
    """Fields shared by the fusions of the towers' pooled vectors. They return no tokens."""

    width: int = between(768, 1)


@dataclasses.dataclass(frozen=True)
class ConcatenationFusion(PooledFusion):
    """An MLP on the concatenated pooled vectors."""

    kind: Literal["concatenation"] = "concatenation"
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"


@dataclasses.dataclass(frozen=True)
class GatedFusion(PooledFusion):
    """A sum of the two, weighted by a gate computed from both (GMU)."""

    kind: Literal["gated"] = "gated"


@dataclasses.dataclass(frozen=True)
class BilinearFusion(PooledFusion):
    """A low-rank bilinear product of the two (MLB)."""

    kind: Literal["bilinear"] = "bilinear"
    rank: int = between(1200, 1)


@dataclasses.dataclass(frozen=True)
class VisualAttentionFusion(PooledFusion):
    """Repeated attention of the pooled text to the image's tokens (SAN)."""

    kind: Literal["visual_attention"] = "visual_attention"
    hops: int = between(2, 1)


@dataclasses.dataclass(frozen=True)
class GraphFusion:
    """A graph of the image's regions and one of the text's tokens, with messages within and across."""

    kind: Literal["graph"] = "graph"
    width: int = between(768, 1)
    heads: int = between(12, 1)  # of attention across the graphs, and of layer="attention"
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    rounds: int = between(2, 1)
    layer: Literal["convolution", "attention"] = "attention"  # how messages within a graph are weighted
    regions: Literal["grid", "boxes"] = "grid"  # grid: the patches; boxes: their means in each of `data.boxes`
    image_neighbours: Literal[4, 8] = 8  # of a patch: 4 share a side, 8 share a side or a corner
    box_neighbours: Literal["overlap", "all"] = "overlap"  # of a box
    box_count: int | None = between(None, 1)  # filled in from data.boxes.count
    words: Literal["window", "dependencies"] = "window"  # neighbours: tokens within `word_window`, or those of `data.dependencies`
    word_window: int = between(2, 1)  # the largest distance of neighbouring tokens


@dataclasses.dataclass(frozen=True)
class TextTowerFusion:
    """A second pass through the text tower, with cross-attention to the image's tokens in each layer (BLIP)."""

    kind: Literal["in_text_tower"] = "in_text_tower"
    start_token: bool = True  # a learned token replaces each text's first, as BLIP's [Encode]


Fusion = (CrossAttentionFusion | MergedFusion | CoAttentionFusion | ConcatenationFusion | GatedFusion | BilinearFusion |
          VisualAttentionFusion | GraphFusion | TextTowerFusion)
