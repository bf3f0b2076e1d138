"""The transformer parts that vision, text, fusion and decoder share, and the precision they compute in."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange

Initializer = Callable[..., jax.Array]


@flax.struct.dataclass
class Encoding:
    """What every encoder returns: tokens [B, N, D], mask [B, N] bool (None: all real) and pooled [B, D] (or None)."""

    tokens: jax.Array
    mask: jax.Array | None
    pooled: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Precision:
    """Parameters are float32; matrix products and activations use `compute`. Passed down, never decided twice."""

    compute: jnp.dtype = jnp.float32

    def dense(self, features: int | Sequence[int], axes: tuple[str, ...], *, kernel_init: Initializer,
              use_bias: bool = True, axis: int | Sequence[int] = -1, name: str | None = None) -> nn.DenseGeneral:
        """A linear layer whose kernel carries the logical `axes` (inputs first, then outputs)."""
        outputs = len(features) if isinstance(features, Sequence) else 1
        return nn.DenseGeneral(
            features, axis=axis, use_bias=use_bias, dtype=self.compute, param_dtype=jnp.float32, name=name,
            kernel_init=nn.with_logical_partitioning(kernel_init, axes),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[-outputs:]))

    def layer_norm(self, epsilon: float, name: str | None = None, axis: str = "embed") -> nn.LayerNorm:
        """Statistics in float32, result in `compute`."""
        return nn.LayerNorm(
            epsilon=epsilon, dtype=self.compute, param_dtype=jnp.float32, name=name,
            scale_init=nn.with_logical_partitioning(nn.initializers.ones, (axis,)),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axis,)))


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), OpenAI CLIP's approximation (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """Everything about a transformer layer except its place in the stack."""

    width: int
    heads: int
    mlp_dim: int
    norm: str = "pre"  # "pre": x + f(norm(x)); "post": norm(x + f(x))
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    qk_norm: bool = False
    layer_scale: float | None = None
    dropout: float = 0.0
    causal: bool = False
    cross_attention: bool = False
    initialization: str = "xavier"
    depth: int = 1  # of the stack, which scales CLIP's initial values
    precision: Precision = Precision()

    def initializers(self) -> dict[str, Initializer]:
        """Kernel initial values: `xavier` uniform (as big_vision), or `clip`: normal with a standard deviation of
        D^-1/2 for query, key, value, D^-1/2 (2 depth)^-1/2 for what writes to the residual stream and (2 D)^-1/2 for
        the MLP's input (Radford et al. 2021, section 2.4 and its code)."""
        if self.initialization == "xavier":
            xavier = nn.initializers.xavier_uniform()
            return dict(attention=xavier, residual=xavier, mlp=xavier)
        std = self.width**-0.5
        return dict(attention=nn.initializers.normal(std), residual=nn.initializers.normal(std * (2 * self.depth)**-0.5),
                    mlp=nn.initializers.normal((2 * self.width)**-0.5))


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2).

    Args of the call:
      query: [B, N, D] tokens that look.
      memory: [B, M, D] tokens looked at; the query itself for self-attention.
      mask: [B, M] bool, False hides a token of the memory; None shows all.
    Returns: [B, N, D] in the compute dtype. A query that may see nothing gets the output projection's bias.
    """

    options: LayerOptions
    causal: bool = False

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        options, precision = self.options, self.options.precision
        initial = options.initializers()
        head_dim = options.width // options.heads
        project = functools.partial(precision.dense, (options.heads, head_dim), ("embed", "heads", "head_dim"),
                                    kernel_init=initial["attention"])
        q, k, v = project(name="query")(query), project(name="key")(memory), project(name="value")(memory)
        if options.qk_norm:
            q = precision.layer_norm(options.norm_epsilon, "query_norm", "head_dim")(q)
            k = precision.layer_norm(options.norm_epsilon, "key_norm", "head_dim")(k)
        attended = attend(q, k, v, mask, self.causal)
        return precision.dense(options.width, ("heads", "head_dim", "embed"), axis=(-2, -1), name="out",
                               kernel_init=initial["residual"])(attended)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, causal: bool) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v with the softmax in float32.

    q: [B, N, H, K]; k, v: [B, M, H, K]; mask: [B, M] bool or None. Returns [B, N, H, K]; zeros where nothing is seen.
    """
    logits = jnp.einsum("bnhk,bmhk->bhnm", q * q.shape[-1]**-0.5, k, preferred_element_type=jnp.float32)
    visible = None if mask is None else mask[:, None, None, :]
    if causal:
        lower = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
        visible = lower if visible is None else visible & lower
    if visible is None:
        weights = jax.nn.softmax(logits)
    else:  # a finite floor and a second mask, so that a row with nothing visible gives zeros and no NaN gradient
        weights = jnp.where(visible, jax.nn.softmax(jnp.where(visible, logits, -1e30)), 0.0)
    return jnp.einsum("bhnm,bmhk->bnhk", weights.astype(v.dtype), v)


class Mlp(nn.Module):
    """Two linear layers with an activation between them. [..., D] -> [..., D]."""

    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options, initial = self.options, self.options.initializers()
        dense = options.precision.dense
        hidden = dense(options.mlp_dim, ("embed", "mlp"), kernel_init=initial["mlp"], name="in")(x)
        hidden = ACTIVATIONS[options.activation](hidden)
        return dense(options.width, ("mlp", "embed"), kernel_init=initial["residual"], name="out")(hidden)


class TransformerLayer(nn.Module):
    """Self-attention, optional cross-attention and an MLP, each on a residual branch.

    Args of the call:
      x: [B, N, D]; drop_rate: scalar, the probability of skipping a branch (stochastic depth).
      mask: [B, N] bool or None; memory: [B, M, D] and memory_mask: [B, M] for cross-attention.
    Returns: [B, N, D].
    """

    options: LayerOptions
    train: bool = False

    @nn.compact
    def __call__(self, x, drop_rate, mask=None, memory=None, memory_mask=None):
        options = self.options
        attention = functools.partial(MultiHeadAttention, options)
        x = self.residual("attention", x, drop_rate, lambda y: attention(causal=options.causal, name="attention")(y, y, mask))
        if options.cross_attention:
            x = self.residual("cross", x, drop_rate,
                              lambda y: attention(name="cross")(y, memory, memory_mask))
        return self.residual("mlp", x, drop_rate, Mlp(options, name="mlp"))

    def residual(self, name: str, x: jax.Array, drop_rate: jax.Array, branch: Callable) -> jax.Array:
        """x + scale * branch(norm(x)), or norm(x + scale * branch(x)) with post-normalisation."""
        options = self.options
        norm = options.precision.layer_norm(options.norm_epsilon, f"{name}_norm")
        y = branch(norm(x)) if options.norm == "pre" else branch(x)
        if options.layer_scale is not None:
            init = nn.with_logical_partitioning(nn.initializers.constant(options.layer_scale), ("embed",))
            y = y * self.param(f"{name}_layer_scale", init, (options.width,), jnp.float32).astype(y.dtype)
        y = nn.Dropout(options.dropout, deterministic=not self.train)(y)
        if self.train and drop_rate is not None:
            y = drop_branch(self.make_rng("dropout"), y, drop_rate)
        return x + y if options.norm == "pre" else norm(x + y)


def drop_branch(key: jax.Array, x: jax.Array, rate: jax.Array) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): whole examples of x [B, ...] become 0 with probability `rate`, the rest
    is divided by 1 - rate."""
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1.0 - rate).astype(x.dtype), 0)


class Transformer(nn.Module):
    """A stack of `options.depth` layers. `scan` and `rematerialisation` change memory and compile time, not numbers.

    With `scan`, parameters live in `layers` with a leading axis of length depth; without, in `layer_0`, `layer_1`, ...
    The call is that of `TransformerLayer` without the rate.
    """

    options: LayerOptions
    stochastic_depth: float = 0.0
    scan: bool = False
    rematerialisation: str = "none"
    train: bool = False

    @nn.compact
    def __call__(self, x, mask=None, memory=None, memory_mask=None):
        depth = self.options.depth
        rates = jnp.linspace(0.0, self.stochastic_depth, depth) if self.stochastic_depth else None
        layer = rematerialised(TransformerLayer, self.rematerialisation, prevent_cse=not self.scan)
        if not self.scan:
            for i in range(depth):
                rate = None if rates is None else rates[i]
                x = layer(self.options, self.train, name=f"layer_{i}")(x, rate, mask, memory, memory_mask)
            return x

        def body(module, x, rate):
            return module(x, rate, mask, memory, memory_mask), None

        scanned = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
                          length=depth, metadata_params={nn.PARTITION_NAME: "layers"})
        return scanned(layer(self.options, self.train, name="layers"), x, rates)[0]


def rematerialised(layer: type[nn.Module], policy: str, prevent_cse: bool) -> type[nn.Module]:
    """`layer` that recomputes in the backward pass: `none` nothing, `save_matmuls` all but matrix products with
    parameters, `full` everything."""
    if policy == "none":
        return layer
    policies = {"full": None, "save_matmuls": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    return nn.remat(layer, policy=policies[policy], prevent_cse=prevent_cse)


class AttentionPooling(nn.Module):
    """Multi-head attention pooling: one learned query looks at all tokens, then a residual MLP (Zhai et al. 2022,
    "Scaling Vision Transformers", section 3.4). tokens [B, N, D], mask [B, N] or None -> [B, D]."""

    options: LayerOptions

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        options = dataclasses.replace(self.options, qk_norm=False)
        init = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), (None, None, "embed"))
        probe = self.param("probe", init, (1, 1, options.width), jnp.float32).astype(tokens.dtype)
        probe = jnp.broadcast_to(probe, (tokens.shape[0], 1, options.width))
        x = MultiHeadAttention(options, name="attention")(probe, tokens, mask)
        y = options.precision.layer_norm(options.norm_epsilon, "mlp_norm")(x)
        return rearrange(x + Mlp(options, name="mlp")(y), "b 1 d -> b d")


def masked_mean(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The mean of the visible tokens, in float32. [B, N, D], [B, N] -> [B, D]; zeros where nothing is visible."""
    tokens = tokens.astype(jnp.float32)
    if mask is None:
        return tokens.mean(axis=1)
    weights = mask.astype(jnp.float32)
    return jnp.einsum("bnd,bn->bd", tokens, weights) / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0)
