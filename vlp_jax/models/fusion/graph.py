"""Graphs over the regions of an image and the tokens of a text: adjacency matrices and graph
layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from vlp_jax.models.layers.attention import visible_softmax
from vlp_jax.models.options import ACTIVATIONS, LayerOptions, with_logical_axes
from vlp_jax.models.shapes import Grid

SLOPE = 0.2  # negative slope of the leaky ReLU (Velickovic et al. 2018, section 2.1)


def word_neighbours(tokens: int, window: int, before: int = 0) -> np.ndarray:
    """Adjacency of text tokens at most `window` positions apart.

    Args:
      tokens: N.
      window: the largest distance of neighbours.
      before: number of tokens before the text (a class token), which have no neighbours.
    Returns: bool [N, N].
    """
    place = np.arange(tokens - before)
    distance = np.abs(place[:, None] - place)
    return np.pad((distance > 0) & (distance <= window), (before, 0))


def pooled_regions(tokens: jax.Array, boxes: jax.Array, grid: Grid) -> jax.Array:
    """Mean of an image's tokens under each box.

    A token is weighted by the part of its grid cell that the box covers. One feature map serves all
    regions, as in Fast R-CNN (Girshick 2015, section 2.1). RoI pooling there divides a box into
    parts, rounds their ends to whole cells and takes the maximum of each; here a box is one part,
    nothing is rounded, and the mean is taken.

    Args:
      tokens: [B, N, D], on `grid`.
      boxes: float32 [B, R, 4]: left, top, right, bottom as fractions of the image; NaN for no box.
      grid: layout of the tokens.
    Returns: [B, R, D] in the dtype of the tokens; zeros for no box.
    """
    boxes = jnp.where(given(boxes)[:, :, None], boxes, 0.0)
    across, down = (covered(boxes[:, :, side::2], grid.side) for side in (0, 1))
    weights = rearrange(down[:, :, :, None] * across[:, :, None, :], "b r h w -> b r (h w)").astype(
        tokens.dtype
    )
    return jnp.einsum("brn,bnd->brd", weights, tokens[:, grid.before : grid.before + grid.side**2])


def covered(ends: jax.Array, cells: int) -> jax.Array:
    """Fractions of an interval that lie in each of `cells` equal cells of [0, 1].

    Args:
      ends: [..., 2].
      cells: number of cells.
    Returns: [..., cells], with sum 1; zeros for an interval of length 0.
    """
    edges = np.arange(cells + 1, dtype=np.float32) / np.float32(cells)
    parts = jnp.maximum(
        jnp.minimum(ends[..., 1:], edges[1:]) - jnp.maximum(ends[..., :1], edges[:-1]), 0.0
    )
    whole = parts.sum(axis=-1, keepdims=True)
    return parts / jnp.where(whole > 0, whole, 1.0)


def given(boxes: jax.Array) -> jax.Array:
    """Which boxes of [B, R, 4] are present, not NaN: bool [B, R]."""
    return jnp.isfinite(boxes).all(axis=-1)


def box_neighbours(boxes: jax.Array, which: str) -> jax.Array:
    """Adjacency of boxes.

    Args:
      boxes: [B, R, 4].
      which: `all` boxes are neighbours, or those that `overlap`.
    Returns: bool [B, R, R].
    """
    if which == "all":
        return jnp.ones((*boxes.shape[:2], boxes.shape[1]), bool)
    begins, ends = boxes[:, :, None, :2], boxes[:, None, :, 2:]
    before = (begins < ends).all(axis=-1)  # False for NaN
    return before & before.swapaxes(1, 2)


def edges_of(neighbours: np.ndarray | jax.Array, mask: jax.Array | None) -> jax.Array:
    """Edges between nodes, self loops included.

    Args:
      neighbours: bool [N, N], or [B, N, N] where each example has its own.
      mask: bool [B, N], the real nodes; the others have no edges in either direction, not even to
        themselves. None: all.
    Returns: bool [B or 1, N, N].
    """
    edges = jnp.asarray(neighbours | np.eye(neighbours.shape[-1], dtype=bool))
    edges = edges if edges.ndim == 3 else edges[None]
    return edges if mask is None else edges & mask[:, :, None] & mask[:, None, :]


def normalised_adjacency(edges: jax.Array) -> jax.Array:
    """D^-1/2 A D^-1/2 of edges A, self loops included, with D the degree of each node: float32 [B
    or 1, N, N]."""
    root = jax.lax.rsqrt(jnp.maximum(edges.sum(axis=-1), 1).astype(jnp.float32))
    return jnp.where(edges, root[:, :, None] * root[:, None, :], 0.0)


class GraphConvolution(nn.Module):
    """sigma(D^-1/2 (A + I) D^-1/2 H W), with sigma the options' activation (Kipf & Welling 2017,
    equation 2).

    Args of the call:
      nodes: [B, N, D], H.
      edges: bool [B or 1, N, N], A + I, symmetric (see `edges_of`).
    Returns: [B, N, D] in the compute dtype; sigma(0) for a node without edges.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        options = self.options
        dense = options.precision.dense(
            options.width,
            ("embed", "mlp"),
            use_bias=False,
            name="nodes",
            kernel_init=options.initializers()["residual"],
        )
        x = dense(nodes)
        mixed = jnp.einsum("bnm,bmd->bnd", normalised_adjacency(edges).astype(x.dtype), x)
        return ACTIVATIONS[options.activation](mixed)


class GraphAttention(nn.Module):
    """Neighbours weighted by attention (Velickovic et al. 2018, equations 1 to 5).

    Each head computes, over the neighbours j of i and i itself,

      e_ij = LeakyReLU(a . [W h_i, W h_j]),  h'_i = sigma(sum_j softmax_j(e_ij) W h_j),

    with sigma the options' activation; the heads are concatenated. Arguments and result are those
    of `GraphConvolution`; edges need not be symmetric. The softmax is sown into the collection
    "attention" as `weights`, float32 [B, H, N, N], where the caller makes it mutable.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, nodes: jax.Array, edges: jax.Array) -> jax.Array:
        options, initial = self.options, self.options.initializers()
        shape = options.heads, options.width // options.heads
        x = options.precision.dense(
            shape,
            ("embed", "heads", "head_dim"),
            use_bias=False,
            name="nodes",
            kernel_init=initial["attention"],
        )(nodes)
        hears, says = (self.score(x, name) for name in ("hears", "says"))
        logits = jax.nn.leaky_relu(hears[:, :, :, None] + says[:, :, None, :], SLOPE)
        weights = visible_softmax(logits, edges[:, None], causal=False)
        if not self.is_initializing():
            self.sow("attention", "weights", weights)
        mixed = rearrange(
            jnp.einsum("bhnm,bmhk->bnhk", weights.astype(x.dtype), x), "b n h k -> b n (h k)"
        )
        return ACTIVATIONS[options.activation](mixed)

    def score(self, x: jax.Array, name: str) -> jax.Array:
        """One half of a . [W h_i, W h_j]: [B, N, H, K] -> float32 [B, H, N]."""
        init = with_logical_axes(nn.initializers.xavier_uniform(), ("heads", "head_dim"))
        half = self.param(name, init, x.shape[2:], jnp.float32).astype(x.dtype)
        return jnp.einsum("bnhk,hk->bhn", x, half, preferred_element_type=jnp.float32)


GRAPH_LAYERS: dict[str, type[nn.Module]] = {
    "convolution": GraphConvolution,
    "attention": GraphAttention,
}
