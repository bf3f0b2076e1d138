"""Text encoders without attention between tokens: recurrent networks and a bag of words."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.recurrent import flip_sequences

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.attention import visible_softmax
from vlp_jax.models.layers.flops import cell_flops
from vlp_jax.models.layers.pool_position import last_visible
from vlp_jax.models.layers.transformer import Encoding, masked_mean
from vlp_jax.models.options import Precision, with_logical_axes
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.text.transformer import embedded_words
from vlp_jax.sharding.collectives import on_each_device
from vlp_jax.sharding.layout import constrain, current_layout

# LSTM: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000. GRU: Cho et al.
# 2014; the reset gate is applied to the product with the state, as in the first version of their
# paper and in cuDNN.
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordTowerConfig(TextTowerConfig):
    """Fields shared by the text encoders other than transformers."""

    width: int = between(1024, 1)  # of the tokens and of the pooled vector
    # of the inputs of each layer; of the embeddings of a bag of words
    dropout: float = between(0.0, 0.0, 1.0)
    # from `width` to `model.embedding_dim`
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"

    @property
    def token_width(self) -> int:
        """The key `width`."""
        return self.width

    def smoke(self, sizes: Sizes) -> Self:
        """Short texts and narrow tokens."""
        return dataclasses.replace(super().smoke(sizes), width=sizes.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentTextConfig(WordTowerConfig):
    """Fields shared by the recurrent networks.

    Attributes:
      cell: a name of CELLS.
      bidirectional: half of D is computed from left to right, half from right to left, starting at
        the last real token (Schuster & Paliwal 1997).
    """

    cell: ClassVar[str] = "lstm"
    bidirectional: ClassVar[bool] = False

    embedding_width: int = between(300, 1)  # of the tokens
    depth: int = between(1, 1)  # layers
    pooling: Literal["end", "mean", "attention"] = "end"  # end: the final state of each direction

    def build(self, precision: Precision) -> "RecurrentText":
        """The recurrent encoder of these settings."""
        self.check()
        return RecurrentText(self, precision)

    @property
    def word_width(self) -> int:
        """The width of the embeddings, which the first layer maps to `width`."""
        return self.embedding_width

    @property
    def ways(self) -> tuple[str, ...]:
        """The directions."""
        return ("forward", "backward") if self.bidirectional else ("forward",)

    def smoke(self, sizes: Sizes) -> Self:
        """Short texts, narrow embeddings and few layers."""
        return dataclasses.replace(
            super().smoke(sizes), embedding_width=sizes.width, depth=min(self.depth, sizes.depth)
        )

    def encoder_flops(self, tokens: bool) -> int:
        """The cells in each direction, and pooling."""
        ways = len(self.ways)
        flops = sum(
            self.length * ways * cell_flops(self.cell, width, hidden=self.width // ways)
            for width in (self.embedding_width, *(self.width,) * (self.depth - 1))
        )
        pooling = {"end": 0, "mean": 1, "attention": self.width + 2}[self.pooling]
        return flops + 2 * self.length * self.width * pooling


@dataclasses.dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentTextConfig):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), left to right."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BidirectionalLstmConfig(RecurrentTextConfig):
    """Two LSTMs per layer, one in each direction, each half as wide as the tokens."""

    bidirectional: ClassVar[bool] = True

    def check(self) -> None:
        """Checks that the width divides into two directions.

        Raises: ConfigError where it is odd.
        """
        if self.width % 2:
            raise ConfigError(
                f"{self.section}.width: {self.width} is odd, and each direction of "
                f"{self.kind!r} has half of it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GruConfig(RecurrentTextConfig):
    """Gated recurrent units (Cho et al. 2014), left to right."""

    cell: ClassVar[str] = "gru"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOfWordsConfig(WordTowerConfig):
    """The mean of the token embeddings."""

    def build(self, precision: Precision) -> "BagOfWords":
        """The mean of embeddings of these settings."""
        return BagOfWords(self, precision)

    def encoder_flops(self, tokens: bool) -> int:
        """The mean."""
        return 2 * self.length * self.width


class RecurrentText(nn.Module):
    """Layers of LSTM or GRU cells over the tokens of a text, left to right or in both directions.

    Args of the call:
      text: int32 [B, L] token ids.
      mask: [B, L] bool, True for real tokens (a prefix of each row); None: all are real.
      train: whether to drop activations; this needs a "dropout" rng.
      tokens: False where only `pooled` is needed.
    Returns: Encoding with tokens [B, L, D], the last layer's states, 0 for padding; their mask;
      pooled [B, D]. The state of a real token never depends on padding, in either direction.

    States are float32, products with parameters in the compute dtype. `config.pooling` is `end` for
    the final state of each direction, `mean` over real tokens, or `attention` (see
    `WordAttention`). An empty row pools zeros. Dropout is of the inputs of each layer, not of the
    recurrent connections (Zaremba et al. 2014).
    """

    config: RecurrentTextConfig = LstmConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        tokens: bool = True,
    ) -> Encoding:
        mask = jnp.ones(text.shape, bool) if mask is None else mask
        config = self.config
        x = embedded_words(text, config.vocab_size, config.embedding_width, self.precision)
        for i in range(config.depth):
            x = self.layer(
                nn.Dropout(config.dropout, deterministic=not train)(x), mask, f"layer_{i}"
            )
        x = jnp.where(mask[:, :, None], x, 0)
        return Encoding(x if tokens else None, mask, self.pool(x, mask), text)

    def layer(self, x: jax.Array, mask: jax.Array, name: str) -> jax.Array:
        """[B, L, D'] -> [B, L, D]."""
        lengths, ways = mask.sum(axis=1, dtype=jnp.int32), self.config.ways
        cell = functools.partial(
            build_cell, self.config.cell, self.config.width // len(ways), self.precision
        )
        states = [run(cell(name=f"{name}_{way}"), x, lengths, way == "backward") for way in ways]
        x = jnp.concatenate(states, axis=-1).astype(self.precision.compute)
        return constrain(x, ("batch", "tokens", "activation_embed"))

    def pool(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, D]."""
        if self.config.pooling == "mean":
            return masked_mean(x, mask).astype(x.dtype)
        if self.config.pooling == "attention":
            return WordAttention(self.precision, name="pooling_head")(x, mask)
        last = last_visible(mask).of(x)[:, 0]
        if not self.config.bidirectional:
            return last
        half = self.config.width // 2
        return jnp.concatenate([last[:, :half], x[:, 0, half:]], axis=-1)


def build_cell(kind: str, width: int, precision: Precision, name: str) -> nn.RNNCellBase:
    """A cell of CELLS with a state of `width` features. To be called inside a module."""
    partitioned = functools.partial(with_logical_axes, axes=("embed", "state"))
    return CELLS[kind](
        width,
        dtype=precision.compute,
        param_dtype=jnp.float32,
        name=name,
        kernel_init=partitioned(nn.initializers.lecun_normal()),
        recurrent_kernel_init=partitioned(nn.initializers.orthogonal()),
        bias_init=with_logical_axes(nn.initializers.zeros, ("state",)),
    )


def run(cell: nn.RNNCellBase, x: jax.Array, lengths: jax.Array, reverse: bool) -> jax.Array:
    """The states of a cell along a sequence. To be called inside a module.

    Args:
      cell: the recurrent cell.
      x: [B, L, D'].
      lengths: int32 [B], numbers of real tokens.
      reverse: from the last real token to the left, instead of from the left.
    Returns: [B, L, D].
    """
    turned = (
        functools.partial(flip_sequences, num_batch_dims=1, time_major=False)
        if reverse
        else lambda x, lengths: x
    )

    def states(cell, x, lengths):
        start = cell.initialize_carry(jax.random.key(0), x[:, 0].shape)
        return turned(along(cell, start, turned(x, lengths))[1], lengths)

    return on_own_examples(states, cell, x, lengths)


def along(cell: nn.Module, carry: Any, x: jax.Array, *others: Any) -> tuple[Any, Any]:
    """Scans a cell over the positions of a sequence: `cell(carry, x[:, i], *others) -> (carry,
    found)`.

    Args:
      cell: called once for each position.
      carry: initial carry.
      x: [B, L, D].
      others: further arguments, the same at every position.
    Returns: the last carry, and the outputs `found`, stacked along a second axis of L.
    """
    scan = nn.scan(
        lambda cell, carry, x, others: cell(carry, x, *others),
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=(1, nn.broadcast),
        out_axes=1,
    )
    return scan(cell, carry, x, others)


def on_own_examples(function: Callable, cell: nn.Module, *arrays: Any) -> Any:
    """`function(cell, *arrays)`, computed on each device for its own examples.

    To be called inside a module.

    The gradients of the cell's parameters are then summed over devices once, and not at every
    token.

    Args:
      function: takes the cell and the arrays.
      cell: a module, the first argument of `function`.
      arrays: trees of arrays whose first axis is the batch.
    """
    layout, examples = current_layout(), len(jax.tree.leaves(arrays)[0])
    if (
        cell.is_initializing()
        or layout is None
        or layout.mesh.size == 1
        or examples % layout.parts("batch")
    ):
        return function(cell, *arrays)

    def local(params, *arrays):
        return nn.apply(function, cell.clone(parent=None, name=None))({"params": params}, *arrays)

    batch = ("batch",)
    return on_each_device(local, layout, ((), *(batch,) * len(arrays)), batch)(
        cell.variables["params"], *arrays
    )


class WordAttention(nn.Module):
    """Attention-weighted mean of the real tokens, with weights softmax(w . tanh(W x)).

    Lin et al. 2017, "A structured self-attentive sentence embedding", equation 5. [B, N, D], [B, N]
    bool -> [B, D]; zeros where no token is real.
    """

    precision: Precision

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        dense = functools.partial(
            self.precision.dense, kernel_init=nn.initializers.xavier_uniform(), use_bias=False
        )
        hidden = dense(tokens.shape[-1], ("embed", "mlp"), name="hidden")(tokens)
        hidden = jnp.tanh(constrain(hidden, ("batch", None, "activation_mlp")))
        logits = dense(1, ("mlp", "scores"), name="score")(hidden)[:, :, 0].astype(jnp.float32)
        weights = visible_softmax(logits, mask, causal=False).astype(tokens.dtype)
        return jnp.einsum("bn,bnd->bd", weights, tokens)


class BagOfWords(nn.Module):
    """Token embeddings as tokens, and their mean as `pooled`, independent of their order.

    Iyyer et al. 2015, "Deep averaging networks", without further layers. The call is that of
    `RecurrentText`.
    """

    config: BagOfWordsConfig = BagOfWordsConfig()
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        tokens: bool = True,
    ) -> Encoding:
        mask = jnp.ones(text.shape, bool) if mask is None else mask
        x = embedded_words(text, self.config.vocab_size, self.config.width, self.precision)
        x = jnp.where(
            mask[:, :, None], nn.Dropout(self.config.dropout, deterministic=not train)(x), 0
        )
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        return Encoding(x if tokens else None, mask, masked_mean(x, mask).astype(x.dtype), text)
