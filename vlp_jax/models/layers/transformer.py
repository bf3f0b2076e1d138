"""Transformer layers shared by vision, text, fusion and decoder."""

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vlp_jax.models.layers.attention import MultiHeadAttention
from vlp_jax.models.layers.attention_inputs import ALL_TOKENS, AttentionInputs
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.positions import BIAS_INIT
from vlp_jax.models.options import ACTIVATIONS, GATES, LayerOptions, with_logical_axes
from vlp_jax.models.options import Precision as Precision
from vlp_jax.sharding.layout import constrain


@flax.struct.dataclass
class Encoding:
    """Output of an encoder.

    Attributes:
      tokens: [B, N, D]; None where only `pooled` was requested.
      mask: [B, N] bool, True for real tokens; None: all are real.
      pooled: [B, D], or None.
      ids: int32 [B, L], the token ids of a text.
      unnormalised: tokens before a transformer's final norm; None without such a norm.
      boxes: [B, R, 4], the boxes of an image's regions, for a graph fusion that uses them (see
        `graph.pooled_regions`).
      edges: bool [B, L, L], the edges between a text's tokens, for a graph fusion that uses them.
    """

    tokens: jax.Array | None
    mask: jax.Array | None
    pooled: jax.Array | None
    ids: jax.Array | None = None
    unnormalised: jax.Array | None = None
    boxes: jax.Array | None = None
    edges: jax.Array | None = None


class Mlp(nn.Module):
    """Two linear layers with an activation in between, or a gated one. [B, N, D] -> [B, N, D]."""

    options: LayerOptions
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options, initial = self.options, self.options.initializers()
        dense = functools.partial(options.precision.dense, use_bias=options.bias)
        project = functools.partial(
            dense, options.mlp_dim, ("embed", "mlp"), kernel_init=initial["mlp"]
        )
        gated = options.activation in GATES
        hidden = [project(name=name)(x) for name in (("in", "gate") if gated else ("in",))]
        hidden = [
            checkpoint_name(constrain(part, ("batch", None, "activation_mlp")), "hidden")
            for part in hidden
        ]
        hidden = (
            hidden[0] * GATES[options.activation](hidden[1])
            if gated
            else ACTIVATIONS[options.activation](hidden[0])
        )
        hidden = nn.Dropout(options.mlp_dropout, deterministic=not self.train)(hidden)
        return dense(options.width, ("mlp", "embed"), kernel_init=initial["residual"], name="out")(
            hidden
        )


class TransformerLayer(nn.Module):
    """Self-attention, optional cross-attention and an MLP, each on a residual branch; with
    `inner_mlp` also an MLP between the two attentions.

    Args of the call:
      x: [B, N, D].
      drop_rate: scalar, probability of skipping a branch (stochastic depth); None: 0.
      inputs: what attention reads besides x.
    Returns: [B, N, D], or [B, 1, D] with `inputs.pool_position`.
    """

    options: LayerOptions
    train: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, drop_rate: jax.Array | None, inputs: AttentionInputs = ALL_TOKENS
    ) -> jax.Array:
        options, name_of, pool_position = self.options, self.options.name_of, inputs.pool_position
        if options.position_buckets:
            shape = (options.position_buckets, options.heads)
            inputs = inputs.with_bias(self.param("position_bias", BIAS_INIT, shape, jnp.float32))
        attention = functools.partial(
            MultiHeadAttention, options, train=self.train, name=name_of("attention")
        )
        if pool_position is None:
            x = self.residual(
                "attention",
                x,
                drop_rate=drop_rate,
                branch=lambda y: attention(causal=options.causal)(
                    y,
                    y,
                    mask=inputs.mask,
                    angles=inputs.angles,
                    visible=inputs.visible,
                    cache=inputs.cache,
                    bias=inputs.bias,
                ),
            )
        else:
            batch, count, _ = x.shape
            mask = inputs.mask  # of packed texts, whose mask is Segments, nothing is pooled
            if options.causal:
                mask = pool_position.sees(cast(jax.Array | None, mask), batch=batch, count=count)
            angles = (
                None if inputs.angles is None else (pool_position.of(inputs.angles), inputs.angles)
            )
            bias = None if inputs.bias is None else pool_position.rows(inputs.bias)
            x = self.residual(
                "attention",
                x,
                drop_rate=drop_rate,
                pool_position=pool_position,
                branch=lambda y: attention()(
                    pool_position.of(y), y, mask=mask, angles=angles, bias=bias
                ),
            )
        if options.cross_attention:
            # the memory is complete
            cache = (
                None if inputs.cache is None else dataclasses.replace(inputs.cache, position=None)
            )
            memory = inputs.memory
            if options.memory_norm and memory is not None:
                memory = options.normalisation(f"{name_of('cross')}_memory_norm")(memory)
            if options.inner_mlp:
                inner = Mlp(options, self.train, name="inner_mlp")
                x = self.residual("inner_mlp", x, drop_rate=drop_rate, branch=inner)
            cross = MultiHeadAttention(options, train=self.train, name=name_of("cross"))
            x = self.residual(
                "cross",
                x,
                drop_rate=drop_rate,
                branch=lambda y: cross(y, memory, mask=inputs.memory_mask, cache=cache),
            )
        return self.residual(
            "mlp", x, drop_rate=drop_rate, branch=Mlp(options, self.train, name=name_of("mlp"))
        )

    def residual(
        self,
        name: str,
        x: jax.Array,
        *,
        drop_rate: jax.Array | None,
        branch: Callable,
        pool_position: PoolPosition | None = None,
    ) -> jax.Array:
        """x + scale * branch(norm(x)), or with post-norm norm(x + scale * branch(x)); of one token
        with `pool_position`."""
        options = self.options
        norm = options.normalisation(f"{options.name_of(name)}_norm")
        y = branch(norm(x)) if options.norm == "pre" else branch(x)
        x = x if pool_position is None else pool_position.of(x)
        if options.keeps_branches:
            y = checkpoint_name(
                constrain(y, ("batch", "tokens", "activation_embed")), f"{name}_residual"
            )
        if options.layer_scale is not None:
            init = with_logical_axes(nn.initializers.constant(options.layer_scale), ("embed",))
            y = y * self.param(
                f"{options.name_of(name)}_layer_scale", init, (options.width,), jnp.float32
            ).astype(y.dtype)
        y = nn.Dropout(options.dropout, deterministic=not self.train)(y)
        if self.train and drop_rate is not None:
            y = drop_branch(self.make_rng("dropout"), y, rate=drop_rate)
        x = constrain(
            x + y if options.norm == "pre" else norm(x + y), ("batch", "tokens", "activation_embed")
        )
        return x if options.keeps_branches else checkpoint_name(x, f"{name}_residual")


def drop_branch(key: jax.Array, x: jax.Array, *, rate: jax.Array) -> jax.Array:
    """Stochastic depth (Huang et al. 2016).

    Args:
      key: random key.
      x: [B, ...].
      rate: scalar, the probability with which a whole example becomes 0.
    Returns: x, with the remaining examples divided by 1 - rate.
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1.0 - rate).astype(x.dtype), 0)


class Transformer(nn.Module):
    """A stack of `options.depth` layers (0: the identity).

    `scan` and `rematerialisation` change memory and compile time, not results. With `scan`,
    parameters are in `layers` with a leading axis of length depth; without, in `layer_0`,
    `layer_1`, ...

    Args of the call:
      x: [B, N, D].
      inputs: what the attention of all layers reads besides x. With `inputs.pool_position`, the
        last layer computes only keys and values of the other tokens; a scanned stack computes
        everything, since all its layers are alike.
    Returns: [B, N, D], or [B, 1, D] with `inputs.pool_position`.
    """

    options: LayerOptions
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    saved: tuple[str, ...] = ()
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, inputs: AttentionInputs = ALL_TOKENS) -> jax.Array:
        depth, pool_position = self.options.depth, inputs.pool_position
        # of layers that compute all tokens
        everywhere = dataclasses.replace(inputs, pool_position=None)
        rates = jnp.linspace(0.0, self.stochastic_depth, depth) if self.stochastic_depth else None
        layer = rematerialised(
            self.rematerialisation, self.saved, options=self.options, prevent_cse=not self.scan
        )
        if depth == 0:
            return x if pool_position is None else pool_position.of(x)
        if not self.scan:
            for i in range(depth):
                rate = None if rates is None else rates[i]
                x = layer(self.options, self.train, name=f"layer_{i}")(
                    x, rate, inputs if i == depth - 1 else everywhere
                )
            return x

        def body(module, x, rate):
            return module(x, rate, everywhere), None

        scanned = nn.scan(
            body,
            variable_axes={"params": 0, "cache": 0, "attention": 0},
            length=depth,
            split_rngs={"params": True, "dropout": True},
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x = scanned(layer(self.options, self.train, name="layers"), x, rates)[0]
        return x if pool_position is None else pool_position.of(x)


# Activations that the backward pass of a layer needs to compute no product with parameters again.
# The input of a layer is kept in any case. Attention itself is computed again from the kept
# queries, keys and values: a few hundredths of a layer's operations.
MATMULS = (
    "query",
    "key",
    "value",
    "attention_residual",
    "inner_mlp_residual",
    "cross_residual",
    "hidden",
)


def rematerialised(
    policy: str, saved: tuple[str, ...], *, options: LayerOptions, prevent_cse: bool
) -> type[nn.Module]:
    """`TransformerLayer` with activations recomputed in the backward pass.

    Args:
      policy: `none` (and `auto`, which training replaces) recomputes nothing; `save_matmuls`
        everything except products with parameters; `full` everything; `save_names` everything
        except the activations named in `saved`.
      saved: any of MATMULS, `attended`, `mlp_residual`.
      options: of the layer.
      prevent_cse: as in `flax.linen.remat`.
    """
    if policy in ("none", "auto"):
        return TransformerLayer
    matmuls = (*MATMULS, "mlp_residual") if options.keeps_branches else MATMULS
    names = {"full": (), "save_matmuls": matmuls, "save_names": saved}[policy]
    kept = jax.checkpoint_policies.save_only_these_names(*names)
    return nn.remat(TransformerLayer, policy=kept, prevent_cse=prevent_cse)


class AttentionPooling(nn.Module):
    """Multi-head attention pooling: learned queries attend to all tokens, then a residual MLP.

    Zhai et al. 2022, "Scaling Vision Transformers", section 3.4.

    Args of the call:
      tokens: [B, N, D'].
      mask: [B, N] bool, or None.
    Returns: [B, D], or [B, queries, D] for more than one query.

    Attributes:
      mlp: False replaces the MLP by a norm, as in CoCa (Yu et al. 2022, figure 2).
      input_norms: whether queries and tokens each have a norm before attention.
    """

    options: LayerOptions
    queries: int = 1
    mlp: bool = True
    input_norms: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        options = dataclasses.replace(self.options, qk_norm=False)
        init = with_logical_axes(nn.initializers.xavier_uniform(), (None, None, "embed"))
        probe = self.param("probe", init, (1, self.queries, options.width), jnp.float32).astype(
            tokens.dtype
        )
        if self.input_norms:
            probe = options.normalisation("probe_norm")(probe)
            tokens = options.normalisation("token_norm")(tokens)
        probe = jnp.broadcast_to(probe, (tokens.shape[0], self.queries, options.width))
        x = MultiHeadAttention(options, name="attention")(probe, tokens, mask=mask)
        if self.mlp:
            pooled = x + Mlp(options, name="mlp")(options.normalisation("mlp_norm")(x))
        else:
            pooled = options.normalisation("norm")(x)
        return pooled[:, 0] if self.queries == 1 else pooled


def masked_mean(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean of the visible tokens, in float32: [B, N, D], [B, N] -> [B, D]; zeros where no token is
    visible."""
    tokens = tokens.astype(jnp.float32)
    if mask is None:
        return tokens.mean(axis=1)
    weights = mask.astype(jnp.float32)
    return jnp.einsum("bnd,bn->bd", tokens, weights) / jnp.maximum(
        weights.sum(axis=1, keepdims=True), 1.0
    )
