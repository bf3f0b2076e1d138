"""The fusion of the `model` section of a config, and its width."""

import dataclasses

import flax.linen as nn

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.fusion.attention import CoAttention, CrossAttention, MergedAttention
from vlp_jax.models.fusion.graph_fusion import GraphFusion, GraphFusionConfig
from vlp_jax.models.fusion.pooled import Concatenation, GatedSum, LowRankBilinear, PooledFusion, PooledFusionConfig, VisualAttention
from vlp_jax.models.layers.transformer import LayerOptions, Precision
from vlp_jax.models.presets import layer_options, size_of
from vlp_jax.models.shapes import Grid
from vlp_jax.models.text.text_towers import text_tokens, text_width


def build_fusion(config: ModelConfig, precision: Precision) -> nn.Module | None:
    """The fusion of a config; None where there is none, or where the text tower's layers fuse.

    Raises: ConfigError for sizes that do not fit together.
    """
    fusion = config.fusion
    if fusion is None or fusion.kind == "in_text_tower":  # the text tower has the layers
        return None
    if isinstance(fusion, PooledFusionConfig):
        return build_pooled_fusion(fusion, precision)
    if fusion.kind == "graph":
        return build_graph(config, precision)
    if fusion.kind == "co_attention" and fusion.scan:
        raise ConfigError("model.fusion.scan: two streams that read each other are not scanned; set scan=False")
    kind = {"cross_attention": CrossAttention, "merged": MergedAttention, "co_attention": CoAttention}[fusion.kind]
    own = {}
    if fusion.kind == "merged":
        own = dict(class_token=fusion.class_token, projected=fusion.projected, normalised=fusion.normalised)
    if fusion.kind == "co_attention":
        own = dict(class_token=config.image.kind == "vit" and config.image.pooling == "cls")
    return kind(layer_options(fusion, "model.fusion", precision), fusion.final_norm, fusion.pooler, fusion.stochastic_depth,
                fusion.scan, fusion.rematerialisation, fusion.saved, **own)


def build_pooled_fusion(fusion: PooledFusionConfig, precision: Precision) -> PooledFusion:
    """A fusion of the towers' pooled vectors; its fields are those of its config."""
    kind = {"concatenation": Concatenation, "gated": GatedSum, "bilinear": LowRankBilinear,
            "visual_attention": VisualAttention}[fusion.kind]
    fields = {field.name: getattr(fusion, field.name) for field in dataclasses.fields(fusion) if field.name != "kind"}
    return kind(precision=precision, **fields)


def image_grid(tower) -> Grid:
    return tower.grid


def build_graph(config: ModelConfig, precision: Precision) -> GraphFusion:
    """The graph fusion of a config.

    Raises: ConfigError for heads that do not divide the width, and for an image whose grid of
      regions is incomplete.
    """
    fusion, image = config.fusion, config.image
    if fusion.width % fusion.heads:
        raise ConfigError(f"model.fusion: width {fusion.width} does not divide into {fusion.heads} heads")
    if image.kind == "vit" and image.token_drop:
        raise ConfigError(f"model.image.token_drop: {image.token_drop} leaves holes in the grid of patches that "
                          "model.fusion.kind='graph' joins; set token_drop=0")
    options = LayerOptions(fusion.width, fusion.heads, fusion.mlp_dim, activation=fusion.activation, precision=precision)
    return GraphFusion(options, fusion.layer, fusion.rounds, image_grid(image), fusion.image_neighbours, fusion.word_window,
                       words_before=text_tokens(config.text) - config.text.length, regions=fusion.regions,
                       box_neighbours=fusion.box_neighbours, words=fusion.words)


def fused_width(config: ModelConfig) -> int:
    """The width of the text's tokens after fusion, or of the pooled vector of a fusion without tokens."""
    if isinstance(config.fusion, PooledFusionConfig | GraphFusionConfig):
        return config.fusion.width
    inside = config.fusion.kind == "in_text_tower"
    return text_width(config.text) if inside else size_of(config.fusion, "model.fusion").width


def pooled_width(config: ModelConfig) -> int:
    """The width of a fusion's pooled vector.

    It is twice the fused width where the vectors of two streams or graphs are concatenated.
    """
    return fused_width(config) * (1 + (config.fusion.kind in ("co_attention", "graph")))
