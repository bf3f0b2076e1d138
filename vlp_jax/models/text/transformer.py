"""A transformer over token ids: CLIP's causal text tower, SigLIP's bidirectional one, BERT, GPT-2, and what lies between."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.layers.attention import Cache
from vlp_jax.models.layers.pool_position import PoolPosition, last_visible
from vlp_jax.models.layers.positions import BUCKETS, relative_bias, sinusoidal
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding, LayerOptions, Precision, Transformer, masked_mean
from vlp_jax.sharding.layout import constrain


@dataclasses.dataclass(frozen=True)
class TextMode:
    """One of the ways through a text tower's layers, all of which share their parameters (Li et al. 2022, "BLIP", section 3.1).

    start: name of a learned token that takes the place of each text's first one; None: the text as it is.
    cross_attention: whether the layers attend a memory, between their self-attention and their MLP.
    writing: whether no word sees a later one. Its words are all it gives: nothing is pooled, and no class token is there.
    own: what this way does not share, of "attention", "cross" and "mlp", each with its norm.
    """

    start: str | None = None
    cross_attention: bool = False
    decoding: bool = False
    own: tuple[str, ...] = ()

    def layers(self, options: LayerOptions) -> LayerOptions:
        """A tower's options, as this way goes through its layers."""
        return dataclasses.replace(options, causal=options.causal or self.decoding, cross_attention=self.cross_attention,
                                   own=self.own)


ALONE = TextMode()  # a text by itself


class TextTransformer(nn.Module):
    """A text encoder. Whether it is causal stands in `options`.

    Args of the call:
      text: int32 [B, L] token ids, L at most `length`.
      mask: [B, L] bool, True for real tokens (a prefix of each row); None: all are real.
      train: whether to drop branches and activations; needs a "dropout" rng then.
      tokens: False where only `pooled` is wanted, so that a last layer need not compute what is not pooled.
      types: int32 [B, L], which of `token_types` segments a token belongs to; None: all to the first.
      cache: where `text` stands in rows whose earlier tokens this causal tower was given before; nothing is pooled then.
      reading: the way through the layers. memory: what they attend, [B, M, D'] of any width, where `reading` says so; a cache that
        was given it before holds it.
    Returns: Encoding with tokens [B, L, D] (one more, in front, with pooling "cls"), their mask, pooled [B, D].

    Pooling: `end` the last real token, `last` the last position whatever it holds, `first` the first one, `cls` a learned token
    in front, `cls_end` one right behind the last real token (Yu et al. 2022, "CoCa"), `mean` over real tokens, `map` attention
    pooling. An empty row pools its first position, or zeros for `mean`. With `cls_end` the tokens are those of the words and
    not normalised: a decoder's layers go on with them.
    pooler: a linear layer and tanh on what is pooled, as BERT has (Devlin et al. 2019).
    position: `learned` and `sinusoidal` are added to the words, the latter to sqrt(D) times them (Vaswani et al. 2017, sections 3.4
      and 3.5); `relative` to the logits of all layers' attention (see `positions.relative_bias`).
    """

    options: LayerOptions
    vocab_size: int
    length: int
    pooling: str = "end"
    position: str = "learned"
    padding_mask: bool = True
    token_types: int = 0
    embedding_norm: bool = False
    final_norm: bool = True
    pooler: bool = False
    word_std: float = 0.02  # of the first values of the words' embeddings
    position_std: float = 0.01  # and of those of positions and token types
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, text: jax.Array, mask: jax.Array | None = None, train: bool = False, tokens: bool = True,
                 types: jax.Array | None = None, cache: Cache | None = None, text_mode: TextMode = ALONE,
                 memory: Encoding | None = None) -> Encoding:
        options = text_mode.layers(self.options)
        mask = jnp.ones(text.shape, bool) if mask is None else mask
        x, mask = self.embedded(text, mask, train, types, cache, text_mode)
        beside = None if memory is None else constrain(memory.tokens, ("batch", "tokens", "activation_embed"))
        transformer = functools.partial(
            Transformer(options, self.stochastic_depth, self.scan, self.rematerialisation, self.saved, train, name="transformer"),
            memory=beside, memory_mask=memory_mask(self, memory, cache), bias=self.bias(x.shape[1], cache))
        if cache is not None or text_mode.decoding:
            visible = None if cache is None else cache.visible(x.shape[1])
            x = transformer(x, mask if self.padding_mask and cache is None else None, visible=visible, cache=cache)
            continued = self.pooling == "cls_end" and text_mode == ALONE  # by a decoder's layers
            return Encoding(x if continued else self.normalised(x), mask, None, text)
        position = self.pooled_position(mask)
        alone = not tokens and position is not None
        x = transformer(x, mask if self.padding_mask else None, pool_position=position if alone else None)
        unnormalised, x = x, self.normalised(x)
        pooled = x[:, 0] if alone else self.pool(x, mask, position)
        if self.pooler:
            dense = options.precision.dense(options.width, ("embed", "mlp"), kernel_init=options.initializers()["residual"],
                                            name="pooler")
            pooled = jnp.tanh(dense(pooled))
        if self.pooling == "cls_end":
            unnormalised, mask = unnormalised[:, :-1], mask[:, 1:]
            x = unnormalised if text_mode == ALONE else x[:, :-1]
        return Encoding(x, mask, pooled, text, unnormalised) if tokens else Encoding(None, mask, pooled, text)

    def embedded(self, text: jax.Array, mask: jax.Array, train: bool, types: jax.Array | None, cache: Cache | None,
                 text_mode: TextMode) -> tuple[jax.Array, jax.Array]:
        """The layers' input [B, N, D] and its mask [B, N], with the class token where the tower has one and does not write."""
        options = self.options
        x = embedded_words(text, self.vocab_size, options.width, options.precision, self.word_std)
        if text_mode.start is not None:
            first = jnp.arange(text.shape[1]) == (0 if cache is None else -cache.position)
            x = jnp.where(first[:, None], self.learned(text_mode.start, (1, 1, options.width)), x)
        x = self.placed(x, cache)
        if self.token_types:
            segments = self.learned("token_type", (self.token_types, options.width), self.position_std)
            x = x + (segments[0] if types is None else jnp.take(segments, types, axis=0))
        if self.pooling == "cls" and not text_mode.decoding:
            token = self.learned("class_token", (1, 1, options.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, options.width)), x], axis=1)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        if self.pooling == "cls_end" and cache is None and not text_mode.decoding:
            x, mask = self.append_class_token(x, mask)
        if self.embedding_norm:
            x = options.normalisation("embedding_norm")(x)
        x = nn.Dropout(options.dropout, deterministic=not train)(x)
        return constrain(x, ("batch", "tokens", "activation_embed")), mask

    def placed(self, x: jax.Array, cache: Cache | None) -> jax.Array:
        """The words' embeddings [B, L, D] with what says where each stands, if that is added to them."""
        width = self.options.width
        if self.position == "sinusoidal":
            positions = jnp.asarray(sinusoidal(self.length, width), x.dtype)[None]
            return x * width**0.5 + places_of(positions, x.shape[1], cache)
        if self.position == "relative":
            return x
        return x + places_of(self.learned("position", (1, self.length, width), self.position_std), x.shape[1], cache)

    def bias(self, count: int, cache: Cache | None) -> jax.Array | None:
        """What is added to the logits of self-attention, [H, N, M], None where nothing is."""
        if self.position != "relative":
            return None
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "heads"))
        table = self.param("relative_bias", init, (BUCKETS, self.options.heads), jnp.float32)
        first, memory = (0, count) if cache is None else (cache.position, cache.length)
        return relative_bias(table, first, count, memory, self.options.causal)

    def normalised(self, x: jax.Array) -> jax.Array:
        """What the last layer gave, with the final norm where the tower has one."""
        x = self.options.normalisation("norm")(x) if self.final_norm else x
        return constrain(x, ("batch", "tokens", "activation_embed"))

    def append_class_token(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, L, D], [B, L] -> [B, L + 1, D], [B, L + 1], with a learned token behind each row's last real one."""
        token = self.learned("class_token", (1, 1, self.options.width))
        mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        last = mask.sum(axis=1, keepdims=True) - 1
        x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
        return jnp.where((jnp.arange(mask.shape[1]) == last)[:, :, None], token, x), mask

    def learned(self, name: str, shape: tuple[int, ...], std: float = 0.01) -> jax.Array:
        axes = (*[None] * (len(shape) - 1), "embed")
        init = nn.with_logical_partitioning(nn.initializers.normal(std), axes)
        return self.param(name, init, shape, jnp.float32).astype(self.options.precision.compute)

    def pooled_position(self, mask: jax.Array) -> PoolPosition | None:
        """Where the one token that is pooled stands; None where pooling reads them all."""
        if self.pooling in ("cls", "first"):
            return PoolPosition()
        if self.pooling == "last":
            return PoolPosition(jnp.full(len(mask), mask.shape[1] - 1, jnp.int32))
        return last_visible(mask) if self.pooling in ("end", "cls_end") else None

    def pool(self, x: jax.Array, mask: jax.Array, pool_position: PoolPosition | None) -> jax.Array:
        """[B, L, D] -> [B, D]."""
        if pool_position is not None:
            return pool_position.of(x)[:, 0]
        if self.pooling == "mean":
            return masked_mean(x, mask).astype(x.dtype)
        return AttentionPooling(self.options, name="pooling_head")(x, mask if self.padding_mask else None)


def embedded_words(text: jax.Array, vocab_size: int, width: int, precision: Precision, std: float = 0.02) -> jax.Array:
    """int32 [B, L] -> [B, L, D] in the compute dtype, by a table `tokens` of the module inside whose call this stands."""
    table = nn.Embed(vocab_size, width, param_dtype=jnp.float32, name="tokens",
                     embedding_init=nn.with_logical_partitioning(nn.initializers.normal(std), ("vocab", "embed")))
    # Gathered along the width first: rows of a table that is divided there would have to be exchanged for the batch.
    return jnp.take(constrain(table.embedding.astype(precision.compute), ("vocab", "activation_embed")), text, axis=0)


def places_of(positions: jax.Array, count: int, cache: Cache | None) -> jax.Array:
    """The embeddings [1, count, D] of a row's first places, or of those from `cache.position` on."""
    return positions[:, :count] if cache is None else jax.lax.dynamic_slice_in_dim(positions, cache.position, count, axis=1)


def memory_mask(module: nn.Module, memory: Encoding | None, cache: Cache | None) -> jax.Array | None:
    """[B, M] bool, which of a memory's tokens are seen, None where all are; a module's cache keeps it for calls without memory."""
    if memory is None:
        return module.get_variable("cache", "memory_mask")[..., 0] if module.has_variable("cache", "memory_mask") else None
    if memory.mask is not None and cache is not None:
        module.put_variable("cache", "memory_mask", memory.mask[..., None])
    return memory.mask
