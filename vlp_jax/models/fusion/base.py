"""The base of all fusions."""

import dataclasses
from typing import ClassVar

from vlp_jax.config.registry import Kinds
from vlp_jax.models.part import Part


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig(Part):
    """A fusion of an image and a text."""

    section: ClassVar[str] = "model.fusion"
    kinds: ClassVar[Kinds] = Kinds({
        "cross_attention": "vlp_jax.models.fusion.attention:CrossAttentionConfig",
        "merged": "vlp_jax.models.fusion.attention:MergedAttentionConfig",
        "co_attention": "vlp_jax.models.fusion.attention:CoAttentionConfig",
        "concatenation": "vlp_jax.models.fusion.pooled:ConcatenationConfig",
        "gated": "vlp_jax.models.fusion.pooled:GatedSumConfig",
        "bilinear": "vlp_jax.models.fusion.pooled:LowRankBilinearConfig",
        "visual_attention": "vlp_jax.models.fusion.pooled:VisualAttentionConfig",
        "graph": "vlp_jax.models.fusion.graph_fusion:GraphFusionConfig",
        "in_text_tower": "vlp_jax.models.fusion.in_text_tower:InTextTowerConfig",
    })
