"""Causal transformer decoder: text alone, with an image as prefix or memory, or on top of a text
tower."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.errors import ConfigError
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.packed_rows import PackedRows
from vlp_jax.models.layers.attention_inputs import AttentionInputs, Cache
from vlp_jax.models.layers.flops import cross_flops, layer_flops, mlp_flops
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding, Transformer
from vlp_jax.models.options import LayerOptions, Precision, present, with_logical_axes
from vlp_jax.models.shapes import ModelShapes
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.lm_head import WordHead
from vlp_jax.models.text.transformer import memory_mask, places_of
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDecoderConfig(StackConfig, DecoderConfig):
    """A causal transformer that predicts a text's tokens.

    A text has `model.text.length` tokens out of `model.text.vocab_size`.
    """

    preset: str = "B"
    # how the image's tokens are used, if at all
    image: Literal["cross_attention", "prefix", "none"] = "cross_attention"
    # number of learned queries that pool the image's tokens first; 0: no pooling
    image_queries: int = between(0, 0)
    memory_norm: bool = False  # of cross-attention: each layer has a norm of the image's tokens
    # each layer has a second MLP, between self- and cross-attention
    inner_mlp: bool = False
    # largest part of a text that is a bidirectional prefix in training
    text_prefix: float = between(0.0, 0.0, 1.0)
    tied: bool = True  # the output embeddings are the input embeddings
    embedding_norm: bool = False  # BERT's LayerNorm before the first layer
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    # BERT's linear layer, activation and norm before the output embeddings, and a bias behind them
    word_head: bool = False
    output_bias: bool = False  # of the output embeddings
    # of a norm behind a linear map of the image's tokens as a prefix; None: no norm, and a linear
    # map only where the widths differ
    image_norm_epsilon: float | None = between(None, 0.0, 1.0)

    def build(self, shapes: ModelShapes, precision: Precision) -> "TextDecoder":
        """The transformer decoder of these settings."""
        self.check(shapes)
        return TextDecoder(self, shapes.text.vocab_size, shapes.text.length, precision)

    def check(self, shapes: ModelShapes) -> None:
        """Checks the sizes, that there is an image for `image_queries` to pool, and a prefix for
        `image_norm_epsilon`, and that the output has no second bias.

        Raises: ConfigError where they do not fit together.
        """
        if self.output_bias and self.word_head:
            raise ConfigError(f"{self.section}.output_bias: word_head=True has one already")
        if self.image_norm_epsilon is not None and self.image != "prefix":
            raise ConfigError(
                f"{self.section}.image_norm_epsilon: is for image='prefix', got {self.image!r}"
            )
        if self.image_queries and not self.reads_image:
            raise ConfigError(
                f"{self.section}.image_queries: have nothing to pool with image='none'"
            )
        for key in ("memory_norm", "inner_mlp"):
            if getattr(self, key) and self.image != "cross_attention":
                raise ConfigError(f"{self.section}.{key}: needs image='cross_attention'")
        self.layers(Precision())

    def layers(self, precision: Precision) -> LayerOptions:
        """The options of the layers."""
        options = self.layer_options(
            precision, causal=True, cross_attention=self.image == "cross_attention"
        )
        return dataclasses.replace(options, memory_norm=self.memory_norm, inner_mlp=self.inner_mlp)

    @property
    def answers(self) -> bool:
        """True with cross-attention, whose memory can be any tokens."""
        return self.image == "cross_attention"

    @property
    def has_prefix(self) -> bool:
        """Whether `text_prefix` is above 0."""
        return self.text_prefix > 0

    @property
    def needs_row_each(self) -> tuple[str, ...]:
        """`image` where it is put in front of each text, `text_prefix` where texts have one."""
        return tuple(
            key
            for key, needs in (("image", self.image == "prefix"), ("text_prefix", self.has_prefix))
            if needs
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
        packed: PackedRows | None,
    ) -> jax.Array:
        """Logits from the token ids; the text tower's encoding is not used."""
        return model.decoder(text, mask, memory, prefix, train, packed=packed)

    def decode_next(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        position: jax.Array,
        memory: Encoding | None,
    ) -> jax.Array:
        """Logits of the layers, which cache keys and values."""
        return model.decoder(text, memory=memory, cache=Cache(position, model.config.text.length))

    def text_flops(
        self, shapes: ModelShapes, pictures: int, rows: int, length: int, tokens: int, width: int
    ) -> int:
        """The layers on the text, with the image pooled, in front, or attended to, and the
        logits."""
        size, pooling, tokens = self.size, 0, tokens if self.reads_image else 0
        logits = 2 * length * size.width * shapes.text.vocab_size
        logits += 2 * length * size.width**2 if self.word_head else 0
        if self.image_queries:
            pooling = cross_flops(size.width, self.image_queries, memory=tokens, memory_width=width)
            tokens, width = self.image_queries, size.width
        if self.image == "prefix":
            mapped = width != size.width or self.image_norm_epsilon is not None
            projection = 2 * tokens * width * size.width if mapped else 0
            return (
                logits
                + pooling
                + projection
                + size.depth * layer_flops(size, tokens + length, activation=self.activation)
            )
        cross = (
            cross_flops(size.width, length, memory=tokens * pictures, memory_width=width)
            if tokens
            else 0
        )
        inner = mlp_flops(size, length, activation=self.activation) if self.inner_mlp else 0
        layer = layer_flops(size, length, activation=self.activation) + inner + cross
        layers = size.depth * layer
        return pictures * pooling + rows * (self.input_flops(shapes, length) + logits + layers)

    def input_flops(self, shapes: ModelShapes, length: int) -> int:
        """From words, or from the text tower's tokens, to the layers; a look-up of embeddings is
        not a product."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnTextTowerDecoderConfig(TextDecoderConfig):
    """A causal transformer whose layers follow those of `model.text` (CoCa)."""

    reads_text_tower: ClassVar[bool] = True

    def check(self, shapes: ModelShapes) -> None:
        """Checks the sizes, and that the text tower is a causal transformer.

        Raises: ConfigError where it is not, or for keys of decoders that read words themselves.
        """
        shapes.text.layers_for(f"{self.section}.kind={self.kind!r}", Precision())
        if not shapes.text.causal:
            raise ConfigError(
                f"{self.section}.kind: {self.kind!r} needs model.text.causal=True, "
                "and no pooling='cls': its tokens must not know those to be "
                "predicted"
            )
        for key, wrong in (
            ("tied", self.tied),
            ("embedding_norm", self.embedding_norm),
            ("text_prefix", self.has_prefix),
            ("image", self.image == "prefix"),
        ):
            if wrong:
                raise ConfigError(
                    f"{self.section}.{key}: {getattr(self, key)!r} is for "
                    "kind='transformer', which reads words itself"
                )
        super().check(shapes)

    @property
    def answers(self) -> bool:
        """False: it continues from the text tower, which encodes only captions."""
        return False

    @property
    def needs_row_each(self) -> tuple[str, ...]:
        """The kind, since the text tower encodes each text in a row of its own, and the keys of a
        decoder with its own words."""
        return ("kind", *super().needs_row_each)

    def decode(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        mask: jax.Array | None,
        memory: Encoding | None,
        train: bool,
        encoding: Encoding | None,
        prefix: jax.Array | None,
        packed: PackedRows | None,
    ) -> jax.Array:
        """Logits from the text tower's tokens, which are computed where `encoding` is None."""
        tokens = (model.encode_text(text, mask, train) if encoding is None else encoding).tokens
        return model.decoder(tokens, mask, memory, prefix, train, packed=packed)

    def decode_next(
        self,
        model: "VisionLanguageModel",
        text: jax.Array,
        position: jax.Array,
        memory: Encoding | None,
    ) -> jax.Array:
        """Logits of the text tower's layers and its own, all of which cache keys and values."""
        cache = Cache(position, model.config.text.length)
        return model.decoder(model.text(text, cache=cache).tokens, memory=memory, cache=cache)

    def input_flops(self, shapes: ModelShapes, length: int) -> int:
        """The linear map from the text tower's width, where the widths differ."""
        own, of_text = self.size.width, shapes.text.token_width
        return 2 * length * of_text * own if of_text != own else 0


@flax.struct.dataclass
class Decoding:
    """Output of a decoder.

    Attributes:
      logits: float32 [B, L, V]; those at position i predict token i + 1.
      prefix: int32 [B], the number of first tokens of a text that were visible to all and are not
        to be predicted.
    """

    logits: jax.Array
    prefix: jax.Array


class TextDecoder(nn.Module):
    """Decoder-only transformer (Radford et al. 2019, "GPT-2"), or the decoder of an encoder-decoder
    (Vaswani et al. 2017).

    Args of the call:
      text: int32 [B, L] token ids, L at most `length`; [B, L, D'], a causal text tower's tokens,
        where the decoder reads these.
      mask: [B, L] bool, True for real tokens (a prefix of each row); None: all are real.
      memory: the image encoder's output; None with image="none", and where the cache already holds
        it.
      prefix: int32 [B], the number of first tokens of a text that all its tokens attend to, earlier
        ones too (prefix-LM); None: none.
      cache: position of `text` in texts whose beginning was passed in earlier calls.
      packed: segments of rows that hold several texts; memory is then of all their images, and each
        text attends to its own.
    Returns: logits float32 [B, L, V].

    Keys of `config`:
      image: `cross_attention` in every layer; the image's tokens as a `prefix` of the text with
        bidirectional attention (Wang et al. 2022, "SimVLM"); or `none`.
      image_queries: number of learned queries that pool the image's tokens first (Yu et al. 2022,
        "CoCa", section 3.2); 0: no pooling.
      tied: the output embeddings are those of the input (Press and Wolf 2017).
      word_head: a linear layer, an activation and a norm precede them, and a bias is added, as in
        BERT (Devlin et al. 2019); see `WordHead`.
    """

    config: TextDecoderConfig
    vocab_size: int
    length: int
    precision: Precision = Precision()

    @property
    def options(self) -> LayerOptions:
        """The options of the layers."""
        return self.config.layers(self.precision)

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        memory: Encoding | None = None,
        prefix: jax.Array | None = None,
        train: bool = False,
        cache: Cache | None = None,
        packed: PackedRows | None = None,
    ) -> jax.Array:
        options = self.options
        table = None if self.config.reads_text_tower else self.embeddings("tokens")
        if self.config.reads_text_tower:
            x = options.to_width(text, "text_projection")
        else:
            x = jnp.take(constrain(present(table), ("vocab", "activation_embed")), text, axis=0)
            table_of_places = self.positions()
            x = x + (
                places_of(table_of_places, text.shape[1], cache)
                if packed is None
                else jnp.take(table_of_places[0], packed.places(), axis=0)
            )
            if self.config.embedding_norm:
                x = options.normalisation("embedding_norm")(x)
            x = nn.Dropout(options.dropout, deterministic=not train)(x)
        stack = self.config.transformer(options, train)
        memory = None if memory is None else self.looked_at(memory)
        if packed is None:
            x = self.through(stack, x, mask, memory, prefix, cache)
        else:
            tokens, seen = (None, None) if memory is None else packed.pictures(memory)
            x = stack(x, AttentionInputs(mask=packed.themselves(), memory=tokens, memory_mask=seen))
        x = options.normalisation("norm")(x) if self.config.final_norm else x
        x = constrain(x, ("batch", "tokens", "activation_embed"))
        return constrain(self.logits(x, table), ("batch", None, "vocab"))

    def logits(self, x: jax.Array, table: jax.Array | None) -> jax.Array:
        """Tokens [B, L, D] to logits, float32 [B, L, V], by the input embeddings [V, D] where these
        are tied."""
        table = table if self.config.tied else None
        if self.config.word_head:
            return WordHead(self.options, self.vocab_size, name="head")(x, table)
        output = self.embeddings("output") if table is None else table
        logits = jnp.einsum("bld,vd->blv", x, output, preferred_element_type=jnp.float32)
        if not self.config.output_bias:
            return logits
        init = with_logical_axes(nn.initializers.zeros, ("vocab",))
        return logits + self.param("output_bias", init, (self.vocab_size,), jnp.float32)

    def through(
        self,
        stack: Transformer,
        x: jax.Array,
        mask: jax.Array | None,
        memory: Encoding | None,
        prefix: jax.Array | None,
        cache: Cache | None,
    ) -> jax.Array:
        """x [B, L, D] after all layers, with the attention mask of a cache and of a prefix."""
        seen, in_front = memory_mask(self, memory, cache), self.config.image == "prefix"
        places = present(seen).shape[1] if in_front else 0
        if in_front and memory is not None:
            x = jnp.concatenate([present(memory.tokens), x], axis=1)
        count = places + self.length if cache is not None else x.shape[1]
        start = 0 if cache is None else present(cache.position) + (places if memory is None else 0)
        own = Cache(start, count)
        visible = None  # plain causal attention: set in the options, supported by kernels
        if in_front or cache is not None or prefix is not None:
            shown = places + (0 if prefix is None else prefix[:, None, None])
            visible = own.visible(x.shape[1]) | (jnp.arange(count) < shown)
        if in_front:
            words = jnp.ones((len(x), count - places), bool) if mask is None else mask
            mask = jnp.concatenate([present(seen), words], axis=1)
        beside = (
            None
            if in_front or memory is None
            else constrain(present(memory.tokens), ("batch", "tokens", "activation_embed"))
        )
        x = stack(
            x,
            AttentionInputs(
                mask=mask,
                memory=beside,
                memory_mask=None if in_front else seen,
                visible=visible,
                cache=None if cache is None else own,
            ),
        )
        return x[:, places:] if memory is not None else x

    def looked_at(self, memory: Encoding) -> Encoding:
        """The image's tokens as memory of the layers: pooled by queries, or projected as a
        prefix."""
        if self.config.image_queries:
            pooler = AttentionPooling(
                self.options, self.config.image_queries, mlp=False, name="pooler"
            )
            pooled = pooler(present(memory.tokens), memory.mask)
            memory = Encoding(
                pooled.reshape(len(pooled), self.config.image_queries, -1), None, None
            )
        if self.config.image == "prefix":
            tokens = present(memory.tokens)
            mask = jnp.ones(tokens.shape[:2], bool) if memory.mask is None else memory.mask
            memory = dataclasses.replace(memory, tokens=self.as_prefix(tokens), mask=mask)
        return memory

    def as_prefix(self, tokens: jax.Array) -> jax.Array:
        """The image's tokens [B, M, D'] in the width of the layers, with a norm where the config
        has one."""
        options, epsilon = self.options, self.config.image_norm_epsilon
        if epsilon is None:
            return options.to_width(tokens, "image_projection")
        norm = options.precision.layer_norm(epsilon, "image_norm")
        return norm(options.linear(tokens, "image_projection"))

    def embeddings(self, name: str) -> jax.Array:
        """[V, D], in the compute dtype."""
        init = with_logical_axes(nn.initializers.normal(0.02), ("vocab", "embed"))
        table = self.param(name, init, (self.vocab_size, self.options.width), jnp.float32)
        return table.astype(self.precision.compute)

    def positions(self) -> jax.Array:
        """The learned position embeddings, [1, L, D], in the compute dtype."""
        init = with_logical_axes(nn.initializers.normal(0.01), (None, "text_positions", "embed"))
        positions = self.param("position", init, (1, self.length, self.options.width), jnp.float32)
        return positions.astype(self.precision.compute)
