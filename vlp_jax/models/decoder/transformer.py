"""Causal transformer decoder: text alone, with an image as prefix or memory, or on top of a text tower."""

import dataclasses
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.packed_rows import PackedRows
from vlp_jax.models.layers.attention import Cache
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding, LayerOptions, Transformer
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.transformer import memory_mask, places_of
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDecoderConfig(StackConfig, DecoderConfig):
    """A causal transformer that predicts a text's tokens.

    A text has `model.text.length` tokens out of `model.text.vocab_size`.
    """

    preset: str = "B"
    image: Literal["cross_attention", "prefix", "none"] = "cross_attention"  # how the image's tokens are used, if at all
    image_queries: int = between(0, 0)  # number of learned queries that pool the image's tokens first; 0: no pooling
    text_prefix: float = between(0.0, 0.0, 1.0)  # largest part of a text that is a bidirectional prefix in training
    tied: bool = True  # the output embeddings are the input embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnTextTowerDecoderConfig(TextDecoderConfig):
    """A causal transformer whose layers follow those of `model.text` (CoCa)."""


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
    """Decoder-only transformer (Radford et al. 2019, "GPT-2"), or the decoder of an encoder-decoder (Vaswani et al. 2017).

    Args of the call:
      text: int32 [B, L] token ids, L at most `length`; with `on_tower` [B, L, D'], a causal text
        tower's tokens.
      mask: [B, L] bool, True for real tokens (a prefix of each row); None: all are real.
      memory: the image encoder's output; None with image="none", and where the cache already holds
        it.
      prefix: int32 [B], the number of first tokens of a text that all its tokens attend to, earlier
        ones too (prefix-LM); None: none.
      cache: position of `text` in texts whose beginning was passed in earlier calls.
      packed: segments of rows that hold several texts; memory is then of all their images, and each
        text attends to its own.
    Returns: logits float32 [B, L, V].

    Attributes:
      image: `cross_attention` in every layer; the image's tokens as a `prefix` of the text with
        bidirectional attention (Wang et al. 2022, "SimVLM"); or `none`.
      queries: number of learned queries that pool the image's tokens first (Yu et al. 2022, "CoCa",
        section 3.2); 0: no pooling.
      tied: the output embeddings are those of the input (Press and Wolf 2017).
    """

    options: LayerOptions  # causal, with cross-attention where `image` is "cross_attention"
    vocab_size: int
    length: int
    image: str = "cross_attention"
    queries: int = 0
    on_tower: bool = False
    tied: bool = True
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, text: jax.Array, mask: jax.Array | None = None, memory: Encoding | None = None,
                 prefix: jax.Array | None = None, train: bool = False, cache: Cache | None = None,
                 packed: PackedRows | None = None) -> jax.Array:
        options = self.options
        table = None if self.on_tower else self.embeddings("tokens")
        if self.on_tower:
            x = options.to_width(text, "text_projection")
        else:
            x = jnp.take(constrain(table, ("vocab", "activation_embed")), text, axis=0)
            table_of_places = self.positions()
            x = x + (places_of(table_of_places, text.shape[1], cache) if packed is None else
                     jnp.take(table_of_places[0], packed.places(), axis=0))
            x = nn.Dropout(options.dropout, deterministic=not train)(x)
        stack = Transformer(options, self.stochastic_depth, self.scan, self.rematerialisation, self.saved, train,
                            name="transformer")
        memory = None if memory is None else self.looked_at(memory)
        if packed is None:
            x = self.through(stack, x, mask, memory, prefix, cache)
        else:
            x = stack(x, packed.themselves(), *((None, None) if memory is None else packed.pictures(memory)))
        x = constrain(options.normalisation("norm")(x), ("batch", "tokens", "activation_embed"))
        output = table if self.tied else self.embeddings("output")
        logits = jnp.einsum("bld,vd->blv", x, output, preferred_element_type=jnp.float32)
        return constrain(logits, ("batch", None, "vocab"))

    def through(self, stack: Transformer, x: jax.Array, mask: jax.Array | None, memory: Encoding | None,
                prefix: jax.Array | None, cache: Cache | None) -> jax.Array:
        """x [B, L, D] after all layers, with the attention mask of a cache and of a prefix."""
        seen, in_front = memory_mask(self, memory, cache), self.image == "prefix"
        places = seen.shape[1] if in_front else 0
        if in_front and memory is not None:
            x = jnp.concatenate([memory.tokens, x], axis=1)
        count = places + self.length if cache is not None else x.shape[1]
        start = 0 if cache is None else cache.position + (places if memory is None else 0)
        own = Cache(start, count)
        visible = None  # plain causal attention: set in the options, supported by kernels
        if in_front or cache is not None or prefix is not None:
            shown = places + (0 if prefix is None else prefix[:, None, None])
            visible = own.visible(x.shape[1]) | (jnp.arange(count) < shown)
        if in_front:
            words = jnp.ones((len(x), count - places), bool) if mask is None else mask
            mask = jnp.concatenate([seen, words], axis=1)
        beside = None if in_front or memory is None else constrain(memory.tokens, ("batch", "tokens", "activation_embed"))
        x = stack(x, mask, beside, None if in_front else seen, visible=visible, cache=None if cache is None else own)
        return x[:, places:] if memory is not None else x

    def looked_at(self, memory: Encoding) -> Encoding:
        """The image's tokens as memory of the layers: pooled by queries, or projected as a prefix."""
        if self.queries:
            pooled = AttentionPooling(self.options, self.queries, mlp=False, name="pooler")(memory.tokens, memory.mask)
            memory = Encoding(pooled.reshape(len(pooled), self.queries, -1), None, None)
        if self.image == "prefix":
            mask = jnp.ones(memory.tokens.shape[:2], bool) if memory.mask is None else memory.mask
            memory = memory.replace(tokens=self.options.to_width(memory.tokens, "image_projection"), mask=mask)
        return memory

    def embeddings(self, name: str) -> jax.Array:
        """[V, D], in the compute dtype."""
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("vocab", "embed"))
        table = self.param(name, init, (self.vocab_size, self.options.width), jnp.float32)
        return table.astype(self.options.precision.compute)

    def positions(self) -> jax.Array:
        """The learned position embeddings, [1, L, D], in the compute dtype."""
        init = nn.with_logical_partitioning(nn.initializers.normal(0.01), (None, None, "embed"))
        positions = self.param("position", init, (1, self.length, self.options.width), jnp.float32)
        return positions.astype(self.options.precision.compute)
