"""Graph fusion: graphs of an image's regions and of a text's tokens, with messages within and
across."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.base import FusedEncoding, FusionConfig
from vlp_jax.models.fusion.graph import (
    GRAPH_LAYERS,
    box_neighbours,
    edges_of,
    given,
    pooled_regions,
    word_neighbours,
)
from vlp_jax.models.layers.attention import MultiHeadAttention
from vlp_jax.models.layers.flops import cross_flops, mlp_flops
from vlp_jax.models.layers.transformer import Encoding, Mlp, masked_mean
from vlp_jax.models.options import LayerOptions, Precision, present
from vlp_jax.models.shapes import Grid, ModelShapes
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

OTHER = {"image": "text", "text": "image"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphFusionConfig(FusionConfig):
    """A graph of the image's regions and one of the text's tokens, with messages within and
    across."""

    width: int = between(768, 1)
    heads: int = between(12, 1)  # of attention across the graphs, and of layer="attention"
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    rounds: int = between(2, 1)
    # how messages within a graph are weighted
    layer: Literal["convolution", "attention"] = "attention"
    # grid: the patches; boxes: their means in each of `data.boxes`
    regions: Literal["grid", "boxes"] = "grid"
    image_neighbours: Literal[4, 8] = 8  # of a patch: 4 share a side, 8 share a side or a corner
    box_neighbours: Literal["overlap", "all"] = "overlap"  # of a box
    box_count: int | None = between(None, 1)  # filled in from data.boxes.count
    # neighbours: tokens within `word_window`, or those of `data.dependencies`
    words: Literal["window", "dependencies"] = "window"
    word_window: int = between(2, 1)  # the largest distance of neighbouring tokens

    def build(self, shapes: ModelShapes, precision: Precision) -> "GraphFusion":
        """The graph fusion of these settings, on the towers' regions and tokens."""
        self.check(shapes)
        return GraphFusion(
            self, shapes.image.grid, shapes.text.tokens - shapes.text.length, precision
        )

    def layer_options(self, precision: Precision) -> LayerOptions:
        """The options of the layers."""
        return LayerOptions(
            self.width, self.heads, self.mlp_dim, activation=self.activation, precision=precision
        )

    def check(self, shapes: ModelShapes) -> None:
        """Checks that the width divides into heads, and that no patches are dropped.

        Raises: ConfigError where it does not, or some are.
        """
        if self.width % self.heads:
            raise ConfigError(
                f"{self.section}: width {self.width} does not divide into {self.heads} heads"
            )
        if shapes.image.token_drop:
            raise ConfigError(
                f"model.image.token_drop: {shapes.image.token_drop} leaves holes in "
                f"the grid of patches that {self.section}.kind={self.kind!r} joins; "
                "set token_drop=0"
            )

    @property
    def reads_boxes(self) -> bool:
        """Whether the regions are boxes, not patches."""
        return self.regions == "boxes"

    @property
    def reads_dependencies(self) -> bool:
        """Whether the neighbours of words are dependencies, not a window."""
        return self.words == "dependencies"

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The neighbours of the regions that are not used, and the window of words with
        dependencies."""
        regions = "image_neighbours" if self.reads_boxes else "box_neighbours"
        unused = {"word_window": "with words='dependencies'"} if self.reads_dependencies else {}
        return {**super().ignored(experiment), regions: f"with regions={self.regions!r}", **unused}

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about boxes or dependencies that `data` does not have, and another number
        of boxes."""
        yield from super().validate(where, experiment)
        data = experiment.data
        for key, name, held in (
            ("regions", "boxes", data.boxes),
            ("words", "dependencies", data.dependencies),
        ):
            if getattr(self, key) == name and held is None:
                yield (
                    f"{where}.{key}: {name!r} needs data.{name}: set it, such as "
                    f"dict(field={name!r}), the field of the metadata that holds them"
                )
        count = None if data.boxes is None else data.boxes.count
        if self.box_count not in (None, count):
            yield f"{where}.box_count: is {self.box_count}, data.boxes has {count}; leave it out"

    def completed(self, where: str, experiment: "Experiment") -> Self:
        """With `box_count` as in `data.boxes`, where there are any."""
        boxes = experiment.data.boxes
        return self if boxes is None else dataclasses.replace(self, box_count=boxes.count)

    def fused_width(self, shapes: ModelShapes) -> int:
        """The width of the graphs' nodes."""
        return self.width

    def pooled_width(self, shapes: ModelShapes) -> int:
        """Twice the width: a pooled vector of each graph, concatenated."""
        return 2 * self.width

    def smoke(self, sizes: Sizes) -> Self:
        """Narrow nodes with few heads; the number of rounds stays."""
        return dataclasses.replace(
            self, width=sizes.width, heads=sizes.heads, mlp_dim=sizes.mlp_dim
        )

    def flops(self, shapes: ModelShapes) -> int:
        """Both graphs' nodes, and in each round messages within and across, and an MLP.

        Messages within a graph are products with whole adjacency matrices, and so is the pooling of
        an image's tokens under boxes.
        """
        width, image, text = self.width, shapes.image, shapes.text
        images = present(self.box_count) if self.reads_boxes else image.tokens
        flops = 2 * width * (images * image.token_width + text.tokens * text.token_width)
        flops += 2 * images * image.grid.side**2 * image.token_width if self.reads_boxes else 0
        for count, others in ((images, text.tokens), (text.tokens, images)):
            within = (
                2 * count * width**2
                + 2 * count**2 * width
                + (4 * count * width if self.layer == "attention" else 0)
            )
            mlp = mlp_flops(self.layer_options(Precision()), count, activation=self.activation)
            flops += self.rounds * (
                within + cross_flops(width, count, memory=others, memory_width=width) + mlp
            )
        return flops


class GraphFusion(nn.Module):
    """Rounds of messages within and across two graphs, after Li et al. 2019, section 3.2.

    Their paper is "Graph matching networks". For the nodes i of one graph and j of the other, a
    round computes for both graphs at once

      g_i = h_i + G(norm(h))_i                                             the message within the
      graph, by a layer of `graph.py` m_i = sum_j softmax_j(q(norm(g_i)) . k(norm(g_j)))
      v(norm(g_j))      the message across, of every head h'_i = c_i + MLP(norm(c_i)),  c_i = g_i +
      m_i                        the node's update

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
      grid: layout of the image's tokens.
      words_before: number of tokens before the text, which have no neighbours.
    """

    config: GraphFusionConfig
    grid: Grid
    words_before: int = 0
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, image: Encoding, text: Encoding, train: bool = False) -> FusedEncoding:
        if self.config.regions == "boxes":
            boxes = present(image.boxes)
            regions = pooled_regions(present(image.tokens), boxes, self.grid)
            image = dataclasses.replace(image, tokens=regions, mask=given(boxes))
        encodings, options = (
            {"image": image, "text": text},
            self.config.layer_options(self.precision),
        )
        masks = {name: encoding.mask for name, encoding in encodings.items()}
        neighbours = {"image": self.region_neighbours(image), "text": self.word_neighbours(text)}
        edges = {name: edges_of(neighbours[name], masks[name]) for name in encodings}
        nodes = {
            name: with_layout(
                options.precision.dense(
                    options.width,
                    ("embed", "mlp"),
                    name=f"{name}_in",
                    kernel_init=options.initializers()["residual"],
                )(encoding.tokens)
            )
            for name, encoding in encodings.items()
        }
        for i in range(self.config.rounds):
            nodes = InteractiveRound(options, self.config.layer, name=f"round_{i}")(
                nodes, edges, masks
            )
        nodes = {
            name: with_layout(options.normalisation(f"{name}_norm")(x)) for name, x in nodes.items()
        }
        pooled = jnp.concatenate(
            [masked_mean(nodes[name], masks[name]) for name in ("text", "image")], axis=-1
        )
        return FusedEncoding(
            nodes["text"],
            text.mask,
            pooled.astype(nodes["text"].dtype),
            image_tokens=nodes["image"],
        )

    def region_neighbours(self, image: Encoding) -> np.ndarray | jax.Array:
        """Adjacency of the image's nodes: bool [M, M], or [B, R, R] of boxes."""
        if self.config.regions == "boxes":
            return box_neighbours(present(image.boxes), self.config.box_neighbours)
        return self.grid.neighbours(self.config.image_neighbours)

    def word_neighbours(self, text: Encoding) -> np.ndarray | jax.Array:
        """Adjacency of the text's nodes: bool [N, N], or [B, N, N] of a dependency parse."""
        before = self.words_before
        if self.config.words == "dependencies":
            return jnp.pad(present(text.edges), ((0, 0), (before, 0), (before, 0)))
        return word_neighbours(present(text.tokens).shape[1], self.config.word_window, before)


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
    def __call__(
        self,
        nodes: dict[str, jax.Array],
        edges: dict[str, jax.Array],
        masks: dict[str, jax.Array | None],
    ) -> dict[str, jax.Array]:
        told = {name: self.within(name, x, edges[name]) for name, x in nodes.items()}
        said = {name: self.norm(f"{name}_cross", x) for name, x in told.items()}
        cross = dataclasses.replace(self.options, cross_attention=True)
        heard = {
            name: with_layout(
                told[name]
                + MultiHeadAttention(cross, name=f"{name}_cross")(
                    said[name], said[other], mask=masks[other]
                )
            )
            for name, other in OTHER.items()
        }
        return {
            name: with_layout(
                x + Mlp(self.options, name=f"{name}_mlp")(self.norm(f"{name}_mlp", x))
            )
            for name, x in heard.items()
        }

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
