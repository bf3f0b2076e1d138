"""A transformer over token ids: CLIP's causal text tower, SigLIP's bidirectional one, BERT,
GPT-2."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.attention_inputs import AttentionInputs, Cache
from vlp_jax.models.layers.flops import pooling_flops
from vlp_jax.models.layers.pool_position import PoolPosition, last_visible
from vlp_jax.models.layers.positions import BUCKETS, relative_bias, sinusoidal, sinusoidal_halves
from vlp_jax.models.layers.transformer import AttentionPooling, Encoding, masked_mean
from vlp_jax.models.options import LayerOptions, Precision, present, with_logical_axes
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
SINUSOIDS = {"sinusoidal": sinusoidal, "sinusoidal_halves": sinusoidal_halves}
CLASS_BEHIND = ("cls_end", "cls_last")  # poolings by a learned token behind the text


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(StackConfig, TextTowerConfig):
    """A text transformer."""

    preset: str = "clip-B"
    causal: bool = True
    padding_mask: bool = True  # False: tokens attend to padding, as in SigLIP
    # cls_end: a learned token after the text
    # cls_last: a learned token in the last position, which sees the text and one padding token
    pooling: Literal["end", "last", "first", "cls", "cls_end", "cls_last", "mean", "map"] = "end"
    # sinusoidal_halves: all sines before all cosines; relative: T5's, without an attention kernel
    position: Literal["learned", "sinusoidal", "sinusoidal_halves", "relative"] = "learned"
    # number of learned positions before that of the first token; RoBERTa has two
    position_offset: int = between(0, 0)
    token_types: int = between(0, 0)  # number of segment embeddings; BERT has two
    embedding_norm: bool = False  # BERT's LayerNorm before the first layer
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on the pooled vector
    pooler_activation: Literal["tanh", "none"] = "tanh"
    pooler_width: int | None = between(None, 1)  # of its output; None: that of the layers
    word_std: float = between(0.02, 0.0)  # std of the initial token embeddings
    # std of the initial embeddings of positions and token types
    position_std: float = between(0.01, 0.0)

    def build(self, precision: Precision) -> "TextTransformer":
        """The text transformer of these settings."""
        self.check()
        return TextTransformer(self, precision)

    def check(self) -> None:
        """Checks that the pooled token attends to the text, and that sinusoids fit the width.

        Raises: ConfigError where one of them does not, and as `size`.
        """
        if self.causal and self.pooling in ("cls", "first"):
            raise ConfigError(
                f"{self.section}.pooling: {self.pooling!r} precedes the text and "
                "attends to none of it with causal=True; use 'end', 'last', 'mean' "
                "or 'map', or causal=False"
            )
        if self.position in SINUSOIDS and self.size.width % 2:
            raise ConfigError(
                f"{self.section}.position: {self.position!r} needs an even width, got "
                f"{self.size.width}"
            )

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`position_offset` without a table of positions, and the keys of an absent pooler."""
        unused = {}
        if self.position != "learned":
            unused["position_offset"] = f"with position={self.position!r}"
        if not self.pooler:
            unused |= dict.fromkeys(("pooler_activation", "pooler_width"), "with pooler=False")
        return {**super().ignored(experiment), **unused}

    def transformer_layers(self, precision: Precision) -> LayerOptions:
        """The options of the layers, causal as the tower is."""
        return self.layer_options(precision, causal=self.causal)

    @property
    def tokens(self) -> int:
        """The length, and the class token in front, where there is one."""
        return self.length + (self.pooling == "cls")

    @property
    def layer_tokens(self) -> int:
        """The length, and the learned token in front or behind, where there is one."""
        return self.length + (self.pooling in ("cls", *CLASS_BEHIND))

    @property
    def token_width(self) -> int:
        """The width of the layers."""
        return self.size.width

    @property
    def pooled_width(self) -> int:
        """The width of the layers, or of the pooler."""
        return (self.pooler_width if self.pooler else None) or self.size.width

    @property
    def is_causal(self) -> bool:
        """Whether the layers are causal and no class token shifts the positions."""
        return self.causal and self.pooling != "cls"

    def smoke(self, sizes: Sizes) -> Self:
        """Two layers, or none where there are none."""
        return dataclasses.replace(
            super().smoke(sizes), depth=0 if self.depth == 0 else sizes.depth
        )

    def small(self, sizes: Sizes) -> Self:
        """As many layers as in the other towers, also where the config has none."""
        return dataclasses.replace(super().small(sizes), depth=sizes.depth)

    def encoder_flops(self, tokens: bool) -> int:
        """The layers, attention pooling and the pooler, where there are any."""
        size, count = self.size, self.layer_tokens
        flops = self.stack_flops(
            count, one_wanted=self.pooling not in ("mean", "map") and not tokens
        )
        flops += (
            pooling_flops(size, count, activation=self.activation) if self.pooling == "map" else 0
        )
        return flops + (2 * size.width * self.pooled_width if self.pooler else 0)


@dataclasses.dataclass(frozen=True)
class TextMode:
    """A mode of a text tower; all modes share the parameters (Li et al. 2022, "BLIP", section 3.1).

    Attributes:
      start: name of a learned token that replaces the first token of each text; None: the text is
        unchanged.
      cross_attention: whether the layers cross-attend to a memory, between self-attention and MLP.
      decoding: whether self-attention is causal. Only tokens are returned: nothing is pooled, and
        there is no class token.
      own: the branches that this mode does not share, of "attention", "cross" and "mlp", each with
        its norm.
    """

    start: str | None = None
    cross_attention: bool = False
    decoding: bool = False
    own: tuple[str, ...] = ()

    def layers(self, options: LayerOptions) -> LayerOptions:
        """A tower's layer options in this mode."""
        return dataclasses.replace(
            options,
            causal=options.causal or self.decoding,
            cross_attention=self.cross_attention,
            own=self.own,
        )


ALONE = TextMode()  # the text without an image


class TextTransformer(nn.Module):
    """Transformer text encoder, causal or not by `config.causal`.

    Args of the call:
      text: int32 [B, L] token ids, L at most `length`.
      mask: [B, L] bool, True for real tokens (a prefix of each row); None: all are real.
      train: whether to drop branches and activations; this needs a "dropout" rng.
      tokens: False where only `pooled` is needed; the last layer then computes only what is pooled,
        where it can.
      types: int32 [B, L], the segment of each token, of `token_types`; None: the first for all.
      cache: position of `text` in rows whose earlier tokens were passed in earlier calls; the tower
        is causal, and nothing is pooled.
      text_mode: the mode of the layers.
      memory: [B, M, D'] of any width, for cross-attention in modes that have it. A cache that was
        given it before holds it.
    Returns: Encoding with tokens [B, L, D] (one more, in front, with pooling "cls"), their mask,
      pooled [B, D].

    Keys of `config`:
      pooling: `end` the last real token, `last` the last position whatever it holds, `first` the
        first token, `cls` a learned token in front, `cls_end` a learned token after the last real
        one (Yu et al. 2022, "CoCa"), `cls_last` one behind all padding, which attends to the real
        tokens and the first padding token (as in OpenCLIP's published CoCas), `mean` over real
        tokens, `map` attention pooling. An empty row pools its first position, or zeros for `mean`.
        With `cls_end` and `cls_last`, the returned tokens are those of the text, before the final
        norm: a decoder's layers continue from them.
      pooler: a linear layer and tanh on the pooled vector, as in BERT (Devlin et al. 2019), or a
        linear layer alone by `pooler_activation`, as in AltCLIP (Chen et al. 2022).
      position: `learned`, `sinusoidal` and `sinusoidal_halves` positions are added to token
        embeddings, for the latter two multiplied by sqrt(D) (Vaswani et al. 2017, sections 3.4 and
        3.5); `relative` adds a bias to the attention logits of all layers (see
        `positions.relative_bias`).
    """

    config: TextTransformerConfig = TextTransformerConfig()
    precision: Precision = Precision()

    @property
    def options(self) -> LayerOptions:
        """The options of the layers."""
        return self.config.transformer_layers(self.precision)

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        tokens: bool = True,
        types: jax.Array | None = None,
        cache: Cache | None = None,
        text_mode: TextMode = ALONE,
        memory: Encoding | None = None,
    ) -> Encoding:
        config, options = self.config, text_mode.layers(self.options)
        mask = jnp.ones(text.shape, bool) if mask is None else mask
        x, mask = self.embedded(text, mask, train, types, cache, text_mode)
        beside = (
            None
            if memory is None
            else constrain(present(memory.tokens), ("batch", "tokens", "activation_embed"))
        )
        transformer = config.transformer(options, train)
        inputs = AttentionInputs(
            memory=beside,
            memory_mask=memory_mask(self, memory, cache),
            bias=self.bias(x.shape[1], cache),
        )
        if cache is not None or text_mode.decoding:
            visible = None if cache is None else cache.visible(x.shape[1])
            own = mask if config.padding_mask and cache is None else None
            x = transformer(x, dataclasses.replace(inputs, mask=own, visible=visible, cache=cache))
            # a decoder's layers follow
            continued = config.pooling in CLASS_BEHIND and text_mode == ALONE
            return Encoding(x if continued else self.normalised(x), mask, None, text)
        position = self.pooled_position(mask)
        alone = not tokens and position is not None
        x = transformer(
            x,
            dataclasses.replace(
                inputs,
                mask=mask if config.padding_mask else None,
                pool_position=position if alone else None,
            ),
        )
        unnormalised, x = x, self.normalised(x)
        pooled = x[:, 0] if alone else self.pool(x, mask, position)
        if config.pooler:
            dense = options.precision.dense(
                config.pooled_width,
                ("embed", "mlp"),
                kernel_init=options.initializers()["residual"],
                name="pooler",
            )
            pooled = dense(pooled)
            pooled = jnp.tanh(pooled) if config.pooler_activation == "tanh" else pooled
        if config.pooling in CLASS_BEHIND:
            unnormalised, mask = unnormalised[:, :-1], mask[:, 1:]
            x = unnormalised if text_mode == ALONE else x[:, :-1]
        return (
            Encoding(x, mask, pooled, text, unnormalised)
            if tokens
            else Encoding(None, mask, pooled, text)
        )

    def embedded(
        self,
        text: jax.Array,
        mask: jax.Array,
        train: bool,
        types: jax.Array | None,
        cache: Cache | None,
        text_mode: TextMode,
    ) -> tuple[jax.Array, jax.Array]:
        """The layers' input [B, N, D] and its mask [B, N], with a class token except when
        decoding."""
        config, options = self.config, self.options
        x = embedded_words(text, config.vocab_size, options.width, self.precision, config.word_std)
        if text_mode.start is not None:
            first = jnp.arange(text.shape[1]) == (0 if cache is None else -present(cache.position))
            x = jnp.where(first[:, None], self.learned(text_mode.start, (1, 1, options.width)), x)
        x = self.placed(x, cache)
        if config.token_types:
            segments = self.learned(
                "token_type", (config.token_types, options.width), config.position_std
            )
            x = x + (segments[0] if types is None else jnp.take(segments, types, axis=0))
        if config.pooling == "cls" and not text_mode.decoding:
            token = self.learned("class_token", (1, 1, options.width))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, options.width)), x], axis=1)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        if config.pooling in CLASS_BEHIND and cache is None and not text_mode.decoding:
            x, mask = self.append_class_token(x, mask)
        if config.embedding_norm:
            x = options.normalisation("embedding_norm")(x)
        x = nn.Dropout(options.dropout, deterministic=not train)(x)
        return constrain(x, ("batch", "tokens", "activation_embed")), mask

    def placed(self, x: jax.Array, cache: Cache | None) -> jax.Array:
        """The token embeddings [B, L, D] with position embeddings, where these are added."""
        width = self.options.width
        if self.config.position in SINUSOIDS:
            table = SINUSOIDS[self.config.position](self.config.length, width)
            positions = jnp.asarray(table, x.dtype)[None]
            return x * width**0.5 + places_of(positions, x.shape[1], cache)
        if self.config.position == "relative":
            return x
        table = self.learned(
            "position",
            (1, self.config.position_offset + self.config.length, width),
            self.config.position_std,
            axes=(None, "text_positions"),
        )
        return x + places_of(table[:, self.config.position_offset :], x.shape[1], cache)

    def bias(self, count: int, cache: Cache | None) -> jax.Array | None:
        """The bias of the self-attention logits, [H, N, M]; None without relative positions."""
        if self.config.position != "relative":
            return None
        init = with_logical_axes(nn.initializers.normal(0.02), (None, "heads"))
        table = self.param("relative_bias", init, (BUCKETS, self.options.heads), jnp.float32)
        first, memory = (0, count) if cache is None else (present(cache.position), cache.length)
        return relative_bias(table, first, queries=count, memory=memory, causal=self.options.causal)

    def normalised(self, x: jax.Array) -> jax.Array:
        """The output of the last layer, with the final norm where the tower has one."""
        x = self.options.normalisation("norm")(x) if self.config.final_norm else x
        return constrain(x, ("batch", "tokens", "activation_embed"))

    def append_class_token(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Appends a learned token after the last real one of each row, or with `cls_last` after the
        last of all: [B, L, D], [B, L] -> [B, L + 1, D], [B, L + 1]; one more token is visible."""
        token = self.learned("class_token", (1, 1, self.options.width))
        mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        if self.config.pooling == "cls_last":
            token = token + self.learned(
                "class_position", (1, 1, self.options.width), self.config.position_std
            )
            return jnp.concatenate([x, jnp.broadcast_to(token, (len(x), 1, x.shape[2]))], 1), mask
        last = mask.sum(axis=1, keepdims=True) - 1
        x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))
        return jnp.where((jnp.arange(mask.shape[1]) == last)[:, :, None], token, x), mask

    def learned(
        self,
        name: str,
        shape: tuple[int, ...],
        std: float = 0.01,
        *,
        axes: tuple[str | None, ...] | None = None,
    ) -> jax.Array:
        """A float32 parameter [.., D] with these logical axes before the width (None: unnamed),
        cast to the compute dtype."""
        front = (None,) * (len(shape) - 1) if axes is None else axes
        init = with_logical_axes(nn.initializers.normal(std), (*front, "embed"))
        return self.param(name, init, shape, jnp.float32).astype(self.precision.compute)

    def pooled_position(self, mask: jax.Array) -> PoolPosition | None:
        """Position of the one token that is pooled; None where pooling uses all tokens."""
        if self.config.pooling in ("cls", "first"):
            return PoolPosition()
        if self.config.pooling in ("last", "cls_last"):
            return PoolPosition(jnp.full(len(mask), mask.shape[1] - 1, jnp.int32))
        return last_visible(mask) if self.config.pooling in ("end", "cls_end") else None

    def pool(self, x: jax.Array, mask: jax.Array, pool_position: PoolPosition | None) -> jax.Array:
        """[B, L, D] -> [B, D]."""
        if pool_position is not None:
            return pool_position.of(x)[:, 0]
        if self.config.pooling == "mean":
            return masked_mean(x, mask).astype(x.dtype)
        return AttentionPooling(self.options, name="pooling_head")(
            x, mask if self.config.padding_mask else None
        )


def embedded_words(
    text: jax.Array, vocab_size: int, width: int, precision: Precision, std: float = 0.02
) -> jax.Array:
    """Token embeddings, int32 [B, L] -> [B, L, D] in the compute dtype, by a table of the calling
    module."""
    table = nn.Embed(
        vocab_size,
        width,
        param_dtype=jnp.float32,
        name="tokens",
        embedding_init=with_logical_axes(nn.initializers.normal(std), ("vocab", "embed")),
    )
    # The table is gathered along its width first; otherwise its sharded rows would be exchanged for
    # the batch.
    return jnp.take(
        constrain(table.embedding.astype(precision.compute), ("vocab", "activation_embed")),
        text,
        axis=0,
    )


def places_of(positions: jax.Array, count: int, cache: Cache | None) -> jax.Array:
    """Position embeddings [1, count, D] of the first positions, or of those from `cache.position`
    on."""
    if cache is None:
        return positions[:, :count]
    return jax.lax.dynamic_slice_in_dim(positions, present(cache.position), count, axis=1)


def memory_mask(
    module: nn.Module, memory: Encoding | None, cache: Cache | None
) -> jax.Array | None:
    """The visible tokens of a memory, [B, M] bool; None where all are visible.

    The module's cache keeps the mask for later calls without memory.
    """
    if memory is None:
        return (
            module.get_variable("cache", "memory_mask")[..., 0]
            if module.has_variable("cache", "memory_mask")
            else None
        )
    if memory.mask is not None and cache is not None:
        module.put_variable("cache", "memory_mask", memory.mask[..., None])
    return memory.mask
