"""The base of all fusions."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import flax.struct
import jax

from vlp_jax.config.registry import Kinds
from vlp_jax.models.layers.transformer import Encoding
from vlp_jax.models.options import Precision, present
from vlp_jax.models.part import PartOnTowers
from vlp_jax.models.shapes import ModelShapes

if TYPE_CHECKING:
    from vlp_jax.models.vision_language import VisionLanguageModel


@flax.struct.dataclass
class FusedEncoding(Encoding):
    """Output of a fusion: an Encoding of the text's tokens, which have attended to the image.

    Attributes:
      tokens: as in Encoding; None where only pooled vectors are fused.
      image_tokens: [B, M, D], the image's tokens, which have attended to the text; None where a
        fusion has none.
    """

    image_tokens: jax.Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig(PartOnTowers):
    """A fusion of an image and a text.

    Attributes:
      returns_tokens: whether the text's tokens after fusion are returned, and not only a pooled
        vector.
      encodes_text: whether it encodes the text itself, from its token ids.
    """

    section: ClassVar[str] = "model.fusion"
    returns_tokens: ClassVar[bool] = True
    encodes_text: ClassVar[bool] = False
    kinds: ClassVar[Kinds] = Kinds(
        {
            "cross_attention": "vlp_jax.models.fusion.attention:CrossAttentionConfig",
            "merged": "vlp_jax.models.fusion.attention:MergedAttentionConfig",
            "co_attention": "vlp_jax.models.fusion.attention:CoAttentionConfig",
            "concatenation": "vlp_jax.models.fusion.pooled:ConcatenationConfig",
            "gated": "vlp_jax.models.fusion.pooled:GatedSumConfig",
            "bilinear": "vlp_jax.models.fusion.pooled:LowRankBilinearConfig",
            "visual_attention": "vlp_jax.models.fusion.pooled:VisualAttentionConfig",
            "graph": "vlp_jax.models.fusion.graph_fusion:GraphFusionConfig",
            "in_text_tower": "vlp_jax.models.fusion.in_text_tower:InTextTowerConfig",
        }
    )

    def build(self, shapes: ModelShapes, precision: Precision) -> nn.Module | None:
        """The submodule `fusion` of the model; None for a fusion without layers of its own.

        Raises: ConfigError as `check`.
        """
        raise NotImplementedError

    @property
    def reads_boxes(self) -> bool:
        """Whether it needs `data.boxes`."""
        return False

    @property
    def reads_dependencies(self) -> bool:
        """Whether it needs `data.dependencies`."""
        return False

    def fuse(
        self, model: "VisionLanguageModel", image: Encoding, text: Encoding, train: bool
    ) -> FusedEncoding:
        """`VisionLanguageModel.fuse`."""
        return present(model.fusion)(image, text, train)

    def fused_width(self, shapes: ModelShapes) -> int:
        """The width of the text's tokens after fusion, or of the pooled vector of a fusion without
        tokens."""
        raise NotImplementedError

    def pooled_width(self, shapes: ModelShapes) -> int:
        """The width of the pooled vector."""
        return self.fused_width(shapes)

    def flops(self, shapes: ModelShapes) -> int:
        """The fusion of one pair, forward."""
        raise NotImplementedError
