"""FLOPs of a fusion's matrix products, from its config, like those of the towers in `flops.py`."""

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.flops import image_tokens, text_flops
from vlp_jax.models.fusion.pooled import PooledFusionConfig, VisualAttentionConfig
from vlp_jax.models.fusions import image_grid
from vlp_jax.models.layers.flops import cross_flops, layer_flops, mlp_flops
from vlp_jax.models.presets import Size, size_of
from vlp_jax.models.text.text_towers import text_tokens, text_width
from vlp_jax.models.towers import image_token_width, image_width


def fusion_flops(model: ModelConfig) -> int:
    """The fusion of one pair, forward."""
    fusion, image_token, of_text = model.fusion, image_token_width(model.image), text_width(model.text)
    if fusion.kind == "visual_attention":
        return visual_attention_flops(fusion, image_tokens(model.image), image_token, of_text)
    if isinstance(fusion, PooledFusionConfig):
        return pooled_fusion_flops(fusion, image_width(model.image) + of_text)
    if fusion.kind == "graph":
        return graph_flops(model)
    if fusion.kind == "in_text_tower":
        size_of_text = size_of(model.text, "model.text")
        texts = model.text.length + (model.text.pooling in ("cls", "cls_end"))
        cross = cross_flops(size_of_text.width, texts, image_tokens(model.image), image_token)
        return text_flops(model.text, 0, embedded=False) + size_of_text.depth * cross
    size, images = size_of(fusion, "model.fusion"), image_tokens(model.image)
    texts, width, streams = text_tokens(model.text), size.width, 1 + (fusion.kind == "co_attention")
    flops = streams * 2 * width**2 if fusion.pooler else 0
    projected = fusion.kind == "merged" and fusion.projected
    flops += 2 * texts * of_text * width if projected or of_text != width else 0
    if fusion.kind != "cross_attention":
        flops += 2 * images * image_token * width if projected or image_token != width else 0
    if fusion.kind == "merged":
        return flops + size.depth * layer_flops(size, fusion.class_token + images + texts, fusion.activation)
    seen = image_token if fusion.kind == "cross_attention" else width
    flops += size.depth * (layer_flops(size, texts, fusion.activation) + cross_flops(width, texts, images, seen))
    if fusion.kind == "co_attention":
        flops += size.depth * (layer_flops(size, images, fusion.activation) + cross_flops(width, images, texts, width))
    return flops


def pooled_fusion_flops(fusion: PooledFusionConfig, width: int) -> int:
    """A fusion of the towers' pooled vectors; `width` is the sum of their widths."""
    if fusion.kind == "gated":
        return 2 * fusion.width * 2 * width
    return 2 * (fusion.rank if fusion.kind == "bilinear" else fusion.mlp_dim) * (width + fusion.width)


def visual_attention_flops(fusion: VisualAttentionConfig, images: int, image_width: int, text_width: int) -> int:
    """Visual attention of one pooled text to `images` tokens of an image.

    Each hop scores the tokens and sums them.
    """
    width = fusion.width
    hop = 2 * (images + 1) * width**2 + 4 * images * width
    return 2 * width * (images * image_width + text_width) + fusion.hops * hop


def graph_flops(model: ModelConfig) -> int:
    """Both graphs' nodes, and in each round messages within and across, and an MLP.

    Messages within a graph are products with whole adjacency matrices, and so is the pooling of an
    image's tokens under boxes.
    """
    fusion, width, image_width = model.fusion, model.fusion.width, image_token_width(model.image)
    boxes = fusion.regions == "boxes"
    images, texts = fusion.box_count if boxes else image_tokens(model.image), text_tokens(model.text)
    flops = 2 * width * (images * image_width + texts * text_width(model.text))
    flops += 2 * images * image_grid(model.image).side**2 * image_width if boxes else 0
    size = Size(width, fusion.rounds, fusion.heads, fusion.mlp_dim)
    for count, others in ((images, texts), (texts, images)):
        within = 2 * count * width**2 + 2 * count**2 * width + (4 * count * width if fusion.layer == "attention" else 0)
        flops += fusion.rounds * (within + cross_flops(width, count, others, width) + mlp_flops(size, count, fusion.activation))
    return flops
