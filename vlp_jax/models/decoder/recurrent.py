"""Recurrent decoders: LSTM or GRU cells that generate a text from an image.

The image is an initial input, or is attended to before each token.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.layers.attention import visible_softmax
from vlp_jax.models.layers.flops import cell_flops
from vlp_jax.models.layers.transformer import Encoding, masked_mean
from vlp_jax.models.options import Precision, present, with_logical_axes
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.text.recurrent import along, build_cell, on_own_examples
from vlp_jax.models.text.transformer import embedded_words
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.models.decoder.packed_rows import PackedRows
    from vlp_jax.models.vision_language import VisionLanguageModel

# number of state vectors: an LSTM has a cell state and a hidden state
STATES = {"lstm": 2, "gru": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentDecoderConfig(DecoderConfig):
    """Fields shared by the recurrent decoders. They predict tokens as `Decoder` does.

    Attributes:
      cell: a name of STATES.
    """

    cell: ClassVar[str] = "lstm"

    embedding_width: int = between(512, 1)  # of the tokens
    width: int = between(512, 1)  # of the state
    depth: int = between(1, 1)  # layers
    # state: an input before the text; attention: attended to before each token
    image: Literal["state", "attention"] = "state"
    # of image="attention": hidden width of the attention logits
    attention_width: int = between(512, 1)
    # of the embeddings, and of the inputs of further layers and of the logits
    dropout: float = between(0.0, 0.0, 1.0)

    def build(self, shapes: ModelShapes, precision: Precision) -> "RecurrentDecoder":
        """The recurrent decoder of these settings."""
        return RecurrentDecoder(self, shapes.text.vocab_size, precision)

    @property
    def answers(self) -> bool:
        """True with attention, whose memory can be any tokens; a state starts from the image
        alone."""
        return self.image == "attention"

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`attention_width`, where there is no attention."""
        unused = (
            {"attention_width": "with image='state': it is for 'attention'"}
            if self.image == "state"
            else {}
        )
        return {**super().ignored(experiment), **unused}

    def smoke(self, sizes: Sizes) -> Self:
        """Narrow states, embeddings and attention; the number of layers stays."""
        attention = dict(attention_width=sizes.width) if self.image == "attention" else {}
        return dataclasses.replace(
            self, width=sizes.width, embedding_width=sizes.width, **attention
        )

    def decode(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        mask: jax.Array | None,
        memory: Encoding | None,
        train: bool,
        encoding: Encoding | None,
        prefix: jax.Array | None,
        packed: "PackedRows | None",
    ) -> jax.Array:
        """Logits from the token ids and the image; encoding, prefix and packed rows are not
        used."""
        return model.decoder(text, memory, train)

    def decode_next(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        position: jax.Array,
        memory: Encoding | None,
    ) -> jax.Array:
        """Logits of the cells, whose states are in the cache; positions have no effect."""
        return model.decoder(text, memory, cached=True)

    def text_flops(
        self, shapes: ModelShapes, pictures: int, rows: int, length: int, tokens: int, width: int
    ) -> int:
        """The cells, the attention before each token where there is any, and the logits."""
        hidden, words, vocab_size = self.width, self.embedding_width, shapes.text.vocab_size
        further = (self.depth - 1) * cell_flops(self.cell, hidden, hidden=hidden)
        if self.image == "state":
            steps = (length + 1) * (cell_flops(self.cell, words, hidden=hidden) + further)
            return steps + 2 * words * shapes.image.pooled_width + 2 * length * hidden * vocab_size
        attention = self.attention_width
        once = 2 * width * (STATES[self.cell] * hidden + tokens * attention)
        looking = 2 * (hidden * attention + tokens * attention + hidden + tokens * width)
        step = looking + cell_flops(self.cell, words + width, hidden=hidden) + further
        return once + length * (step + 2 * words * (hidden + width) + 2 * words * vocab_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LstmDecoderConfig(RecurrentDecoderConfig):
    """Long short-term memory (Vinyals et al. 2015, "Show and tell"; Xu et al. 2015, "Show, attend
    and tell")."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GruDecoderConfig(RecurrentDecoderConfig):
    """Gated recurrent units in place of long short-term memory."""

    cell: ClassVar[str] = "gru"


class RecurrentDecoder(nn.Module):
    """Layers of LSTM or GRU cells over the tokens of a text that predict the next token.

    Args of the call:
      text: int32 [B, L] token ids. Padding comes after the text, and so changes none of its
        predictions.
      memory: the image encoder's output; None where the cache already holds it.
      train: whether to drop activations; this needs a "dropout" rng.
      cached: whether the final states are kept in the collection "cache" (to be mutable) and a
        later call continues from them: its text follows that of the calls before. The first such
        call has the memory.
    Returns: logits float32 [B, L, V]; those at position i predict token i + 1.

    States are float32, products with parameters in the compute dtype.

    Keys of `config`:
      image: `state`: the encoder's pooled vector, brought to the width of an embedding, is an input
        before the text to cells with zero state, and logits are linear in the last layer's state
        (Vinyals et al. 2015, "Show and tell", equations 10 to 12). `attention`: before each token,
        the first layer attends to the image's tokens (see `AttendingCell`). Its initial state is
        tanh of a linear map of their mean. Logits are linear in E y + L_h h + L_z z: the token's
        embedding, the last layer's state and the attended image (Xu et al. 2015, "Show, attend and
        tell", section 3.1.2 and equation 7). The weights of each call, float32 [B, L, N], are sown
        into the collection "attention" where the caller makes it mutable, as in
        `MultiHeadAttention`.
      dropout: of the embeddings, of the inputs of each further layer, and of the inputs of the
        logits (Zaremba et al. 2014).
    """

    config: RecurrentDecoderConfig
    vocab_size: int
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        memory: Encoding | None = None,
        train: bool = False,
        cached: bool = False,
    ) -> jax.Array:
        drop = nn.Dropout(self.config.dropout, deterministic=not train)
        words = drop(
            embedded_words(text, self.vocab_size, self.config.embedding_width, self.precision)
        )
        words = constrain(words, ("batch", "tokens", "activation_embed"))
        if self.config.image == "attention":
            states, seen = self.attending(words, memory, cached)
            states = self.layers(states, range(1, self.config.depth), drop, cached)
            spoken = words + self.dense(self.config.embedding_width, "state_out")(drop(states))
            return self.logits(
                spoken
                + self.dense(self.config.embedding_width, "picture_out", bias=False)(drop(seen))
            )
        if memory is not None:
            picture = self.dense(self.config.embedding_width, "picture_in")(memory.pooled)
            words = jnp.concatenate([picture[:, None], words], axis=1)
        states = self.layers(words, range(self.config.depth), drop, cached)
        return self.logits(drop(states[:, int(memory is not None) :]))

    def attending(
        self, words: jax.Array, memory: Encoding | None, cached: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The first layer's states [B, L, D], and the attended image before each token, [B, L,
        D']."""
        start, picture = None, self.get_variable("cache", "picture")
        if memory is not None:
            tokens = present(memory.tokens)
            mean = masked_mean(tokens, memory.mask).astype(tokens.dtype)
            parts = jnp.tanh(
                self.dense(STATES[self.config.cell] * self.config.width, "start")(mean)
            ).astype(jnp.float32)
            start = tuple(jnp.split(parts, 2, axis=-1)) if self.config.cell == "lstm" else parts
            keys = self.dense(self.config.attention_width, "keys")(tokens)
            picture = (
                constrain(tokens, ("batch", "tokens", "activation_embed")),
                constrain(keys, ("batch", None, None)),
                None if memory.mask is None else memory.mask[:, :, None],
            )
            if cached:
                self.put_variable("cache", "picture", picture)
        cell = AttendingCell(
            self.config.cell,
            self.config.width,
            self.config.attention_width,
            self.precision,
            name="layer_0",
        )
        states, seen, weights = self.through(cell, start, words, cached, picture)
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow("attention", "weights", weights)
        return states.astype(words.dtype), seen

    def layers(self, x: jax.Array, numbers: range, drop: Callable, cached: bool) -> jax.Array:
        """[B, L, D'] -> [B, L, D], through the layers with these numbers."""
        for i in numbers:
            cell = build_cell(self.config.cell, self.config.width, self.precision, f"layer_{i}")
            start = cell.initialize_carry(jax.random.key(0), (len(x), x.shape[-1]))
            x = self.through(cell, start, drop(x) if i else x, cached).astype(x.dtype)
            x = constrain(x, ("batch", "tokens", "activation_embed"))
        return x

    def through(self, cell: nn.Module, start: Any, x: jax.Array, cached: bool, *beside: Any) -> Any:
        """A cell's outputs along x [B, L, D'], from the cached state or, where there is none, from
        `start`."""
        name = f"{cell.name}_state"
        if cached and self.has_variable("cache", name):
            start = jax.tree.map(lambda state: state[:, 0], self.get_variable("cache", name))
        last, found = on_own_examples(along, cell, start, x, *beside)
        if cached:
            self.put_variable("cache", name, jax.tree.map(lambda state: state[:, None], last))
        return found

    def dense(self, width: int, name: str, bias: bool = True) -> nn.Module:
        """A linear layer of this module."""
        return self.precision.dense(
            width,
            ("embed", "state"),
            kernel_init=nn.initializers.xavier_uniform(),
            use_bias=bias,
            name=name,
        )

    def logits(self, x: jax.Array) -> jax.Array:
        """[B, L, D] -> float32 [B, L, V]."""
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        init = with_logical_axes(nn.initializers.normal(0.02), ("vocab", "embed"))
        table = self.param("output", init, (self.vocab_size, x.shape[-1]), jnp.float32)
        bias = self.param(
            "output_bias",
            with_logical_axes(nn.initializers.zeros, ("vocab",)),
            (self.vocab_size,),
            jnp.float32,
        )
        logits = (
            jnp.einsum("bld,vd->blv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)
            + bias
        )
        return constrain(logits, ("batch", None, "vocab"))


class AttendingCell(nn.Module):
    """An LSTM or GRU cell with soft attention to an image before each step.

    Xu et al. 2015, sections 3.1.2 and 4.2. With the image's tokens a_i and the state h before the
    step, it computes

      p = softmax_i(w . tanh(W_a a_i + W_h h + b)),  beta = sigmoid(w_b . h + b_b),  z = beta sum_i
      p_i a_i,

    and the input of the cell is the token's embedding concatenated with z.

    Args of the call:
      carry: the cell's, float32.
      word: [B, E], the token's embedding.
      picture: the image's tokens [B, N, D'], W_a a_i + b of each [B, N, A], and bool [B, N, 1], the
        visible tokens, or None for all.
    Returns: the new carry; and the new h [B, D], z [B, D'] and p, float32 [B, N].
    """

    cell: str
    width: int
    attention_width: int
    precision: Precision

    @nn.compact
    def __call__(
        self, carry: Any, word: jax.Array, picture: tuple
    ) -> tuple[Any, tuple[jax.Array, jax.Array, jax.Array]]:
        tokens, keys, mask = picture
        state = jax.tree.leaves(carry)[-1]  # an LSTM's hidden state comes after its cell state
        dense = functools.partial(
            self.precision.dense, kernel_init=nn.initializers.xavier_uniform()
        )
        asked = dense(self.attention_width, ("embed", "state"), use_bias=False, name="asked")(state)
        init = with_logical_axes(nn.initializers.xavier_uniform(), (None, None))
        score = self.param("score", init, (self.attention_width, 1), jnp.float32)
        weights = visible_softmax(
            additive_logits(keys, asked, score[:, 0].astype(keys.dtype)),
            None if mask is None else mask[:, :, 0],
            causal=False,
        )
        gate = jax.nn.sigmoid(dense(1, ("embed", "scores"), name="gate")(state))
        seen = gate * jnp.einsum("bn,bnd->bd", weights.astype(tokens.dtype), tokens)
        cell = build_cell(self.cell, self.width, self.precision, "cell")
        carry, state = cell(carry, jnp.concatenate([word, seen.astype(word.dtype)], axis=-1))
        return carry, (state, seen, weights)


@functools.partial(jax.checkpoint, prevent_cse=False)
def additive_logits(keys: jax.Array, asked: jax.Array, score: jax.Array) -> jax.Array:
    """Logits of additive attention, w . tanh(k_i + q) (Bahdanau et al. 2015, appendix A.1.2).

    The backward pass recomputes tanh; otherwise [B, N, A] values would be kept for each step.

    Args:
      keys: [B, N, A].
      asked: [B, A], the query.
      score: [A], w.
    Returns: float32 [B, N].
    """
    return jnp.einsum(
        "bna,a->bn", jnp.tanh(keys + asked[:, None]), score, preferred_element_type=jnp.float32
    )
