"""FLOPs of layers: of their matrix products, forward, on one example.

They are what the model needs, not what a compiled program executes. A multiplication and an
addition are two operations; an embedding look-up is not a product.
"""

from typing import Protocol

from vlp_jax.models.options import GATES as GATED

GATES = {"lstm": 4, "gru": 3}  # of the recurrent cells


class LayerSize(Protocol):
    """Sizes of a stack of transformer layers, such as `presets.Size` or `LayerOptions`."""

    @property
    def width(self) -> int:
        """The width D of the tokens."""

    @property
    def depth(self) -> int:
        """The number of layers."""

    @property
    def mlp_dim(self) -> int:
        """The hidden width of the MLP of a layer."""


def layer_flops(size: LayerSize, tokens: int, *, activation: str) -> int:
    """One self-attention layer.

    Query, key, value and output: 2 N D^2 each. Logits and weighted sum: 2 N^2 D each. The MLP's two
    products, or three with a gate: 2 N D F each.
    """
    width = size.width
    return (
        8 * tokens * width**2
        + 4 * tokens**2 * width
        + mlp_flops(size, tokens, activation=activation)
    )


def mlp_flops(size: LayerSize, tokens: int, *, activation: str) -> int:
    """The MLP's two products, or three with a gate, on N tokens."""
    return (6 if activation in GATED else 4) * tokens * size.width * size.mlp_dim


def pooling_flops(size: LayerSize, tokens: int, *, activation: str) -> int:
    """Attention pooling: one query attends to all tokens, and an MLP.

    A layer of which only one token is needed costs the same.
    """
    width = size.width
    return (
        4 * width**2
        + 4 * tokens * width**2
        + 4 * tokens * width
        + mlp_flops(size, 1, activation=activation)
    )


def cross_flops(width: int, queries: int, *, memory: int, memory_width: int) -> int:
    """Attention of queries to a memory of another width."""
    return 4 * queries * width**2 + 4 * memory * memory_width * width + 4 * queries * memory * width


def projection_flops(projection: str, width: int, *, embedding_dim: int) -> int:
    """From a tower's pooled vector to the shared space."""
    return 0 if projection == "none" else 2 * width * embedding_dim


def cell_flops(kind: str, width: int, *, hidden: int) -> int:
    """One step of a recurrent cell: each gate's products with the input and with the state."""
    return 2 * GATES[kind] * hidden * (width + hidden)
