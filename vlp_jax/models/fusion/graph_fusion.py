"""Graph fusion: graphs of an image's regions and of a text's tokens, with messages within and across."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.models.fusion.attention import FusedEncoding
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.fusion.graph import GRAPH_LAYERS, box_neighbours, edges_of, given, pooled_regions, word_neighbours
from vlp_jax.models.layers.attention import MultiHeadAttention
from vlp_jax.models.layers.transformer import Encoding, LayerOptions, Mlp, masked_mean
from vlp_jax.models.shapes import Grid
from vlp_jax.sharding.layout import constrain

OTHER = {"image": "text", "text": "image"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphFusionConfig(FusionConfig):
    """A graph of the image's regions and one of the text's tokens, with messages within and across."""

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


class GraphFusion(nn.Module):
    """Rounds of messages within and across two graphs, after Li et al. 2019, section 3.2.

    Their paper is "Graph matching networks". For the nodes i of one graph and j of the other, a
    round computes for both graphs at once

      g_i = h_i + G(norm(h))_i                                             the message within the graph, by a layer of `graph.py`
      m_i = sum_j softmax_j(q(norm(g_i)) . k(norm(g_j))) v(norm(g_j))      the message across, of every head
      h'_i = c_i + MLP(norm(c_i)),  c_i = g_i + m_i                        the node's update

    The paper's message across is g_i - sum_j softmax_j(g_i . g_j) g_j. The two graphs here have
    nodes of different kinds, so the message has learned maps q, k and v, and one that combines the
    heads, and it is added to g_i. Each graph and each round has its own parameters.

    Args of the call:
      image: Encoding with tokens [B, M, D']. Each token is a node; a linear map brings it to the
        width. With regions="boxes", each of `boxes` [B, R, 4] is a node in place of the tokens (see
        `pooled_regions`).
      text: Encoding with tokens [B, N, D'']. Each token is a node; with words="dependencies" it has
        `edges` [B, L, L].
      train: unused.
    Returns: FusedEncoding with the text's nodes as tokens, the image's as image_tokens, and pooled
      [B, 2 D], the mean of the real nodes of the text concatenated with that of the image. Padding
      nodes influence no other node.

    Attributes:
      layer: "convolution" or "attention".
      grid: layout of the image's tokens.
      image_neighbours: number of neighbours of a region, 4 or 8.
      word_window: the largest distance of neighbouring text tokens.
      words_before: number of tokens before the text, which have no neighbours.
      box_neighbours: `which` of `graph.box_neighbours`.
    """

    options: LayerOptions
    layer: str
    rounds: int
    grid: Grid
    image_neighbours: int
    word_window: int
    words_before: int = 0
    regions: str = "grid"
    box_neighbours: str = "overlap"
    words: str = "window"

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        if self.regions == "boxes":
            image = image.replace(tokens=pooled_regions(image.tokens, image.boxes, self.grid), mask=given(image.boxes))
        encodings, options = {"image": image, "text": text}, self.options
        masks = {name: encoding.mask for name, encoding in encodings.items()}
        neighbours = {"image": self.region_neighbours(image), "text": self.word_neighbours(text)}
        edges = {name: edges_of(neighbours[name], masks[name]) for name in encodings}
        nodes = {name: with_layout(options.precision.dense(options.width, ("embed", "mlp"), name=f"{name}_in",
                                                        kernel_init=options.initializers()["residual"])(encoding.tokens))
                 for name, encoding in encodings.items()}
        for i in range(self.rounds):
            nodes = InteractiveRound(options, self.layer, name=f"round_{i}")(nodes, edges, masks)
        nodes = {name: with_layout(options.normalisation(f"{name}_norm")(x)) for name, x in nodes.items()}
        pooled = jnp.concatenate([masked_mean(nodes[name], masks[name]) for name in ("text", "image")], axis=-1)
        return FusedEncoding(nodes["text"], text.mask, pooled.astype(nodes["text"].dtype), image_tokens=nodes["image"])

    def region_neighbours(self, image: Encoding) -> np.ndarray | jax.Array:
        """Adjacency of the image's nodes: bool [M, M], or [B, R, R] of boxes."""
        if self.regions == "boxes":
            return box_neighbours(image.boxes, self.box_neighbours)
        return self.grid.neighbours(self.image_neighbours)

    def word_neighbours(self, text: Encoding) -> np.ndarray | jax.Array:
        """Adjacency of the text's nodes: bool [N, N], or [B, N, N] of a dependency parse."""
        before = self.words_before
        if self.words == "dependencies":
            return jnp.pad(text.edges, ((0, 0), (before, 0), (before, 0)))
        return word_neighbours(text.tokens.shape[1], self.word_window, before)


class InteractiveRound(nn.Module):
    """One round of messages (see `GraphFusion`).

    All arguments are keyed by the graph's name, "image" or "text".

    Args of the call:
      nodes: [B, N, D] of each graph.
      edges: bool [B or 1, N, N] of each graph.
      masks: bool [B, N] of each graph, or None.
    Returns: the updated nodes.
    """

    options: LayerOptions
    layer: str

    @nn.compact
    def __call__(self, nodes: dict[str, jax.Array], edges: dict[str, jax.Array],
                 masks: dict[str, jax.Array | None]) -> dict[str, jax.Array]:
        told = {name: self.within(name, x, edges[name]) for name, x in nodes.items()}
        said = {name: self.norm(f"{name}_cross", x) for name, x in told.items()}
        cross = dataclasses.replace(self.options, cross_attention=True)
        heard = {name: with_layout(
                     told[name] + MultiHeadAttention(cross, name=f"{name}_cross")(said[name], said[other], masks[other]))
                 for name, other in OTHER.items()}
        return {name: with_layout(x + Mlp(self.options, name=f"{name}_mlp")(self.norm(f"{name}_mlp", x)))
                for name, x in heard.items()}

    def within(self, name: str, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        """The nodes of one graph plus the message from their neighbours."""
        layer = GRAPH_LAYERS[self.layer](self.options, name=f"{name}_graph")
        return with_layout(nodes + layer(self.norm(f"{name}_graph", nodes), edges))

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        """The norm before a branch of the round."""
        return self.options.normalisation(f"{name}_norm")(x)


def with_layout(x: jax.Array) -> jax.Array:
    """Nodes [B, N, D] in the layout of activations."""
    return constrain(x, ("batch", "tokens", "activation_embed"))
