"""Multi-head attention, and the choice of its implementation by platform and shapes."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name

from vlp_jax.models.layers.attention_inputs import Cache
from vlp_jax.models.layers.fused_attention import fused_attention, heads_per_program
from vlp_jax.models.layers.long_attention import long_attention
from vlp_jax.models.layers.segment_mask import Mask, Segments, shown
from vlp_jax.models.options import LayerOptions
from vlp_jax.sharding.collectives import on_each_device
from vlp_jax.sharding.layout import Layout, constrain, current_layout

# below this number of queries no kernel pays off: attention pooling has one learned query
SHORT = 8


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over several heads (Vaswani et al. 2017, section 3.2).

    The attention weights of each call, float32 [B, H, N, M], are sown as `weights`, a tuple, into
    the collection "attention" where the caller makes it mutable (`apply(...,
    mutable="attention")`). They are not computed otherwise. Where the caller passes a collection
    "attention_offset" of the same structure, its values are added to the weights of each call, by
    plain matrix products: the gradients with respect to them are those with respect to the
    weights.

    Args of the call:
      query: [B, N, D] tokens that attend.
      memory: [B, M, D] tokens attended to; the query itself for self-attention. None: only the keys
        and values in the cache.
      mask: [B, M] bool, False hides a token of the memory; hidden tokens (padding) come last. None:
        all visible. Or Segments.
      angles: [B or 1, N, K / 2] rotation angles of each pair of features of a head (see
        `positions.rotary2d`); a tuple of two, for query and memory, where these are different
        tokens.
      visible: [B or 1, N, M] bool, the allowed pairs, combined with `mask` and in place of
        `causal`. No kernel supports it.
      cache: where the keys and values of the memory are kept; the query then attends to all that
        are kept.
      bias: float32 [H, N, M] or [B, H, N, M], added to the logits (see `positions.relative_bias`).
        No kernel supports it.
    Returns: [B, N, D] in the compute dtype. A query without any visible token gets the bias of the
      output projection.

    Attributes:
      train: whether attention weights are dropped with probability `options.attention_dropout`;
        this needs a "dropout" rng, and no kernel supports it.
    """

    options: LayerOptions
    causal: bool = False
    train: bool = False

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        memory: jax.Array | None,
        *,
        mask: Mask = None,
        angles: jax.Array | tuple[jax.Array, jax.Array] | None = None,
        visible: jax.Array | None = None,
        cache: Cache | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        options, precision = self.options, self.options.precision
        initial = options.initializers()
        project = functools.partial(
            precision.dense,
            (options.heads, options.width // options.heads),
            ("embed", "heads", "head_dim"),
            kernel_init=initial["attention"],
            use_bias=options.bias,
        )
        inputs = (
            {"query": query} if memory is None else {"query": query, "key": memory, "value": memory}
        )
        # The heads are concatenated: as [B, N, H, K], a TPU would pad every head to 128 features.
        made = {
            name: checkpoint_name(
                constrain(
                    rearrange(project(name=name)(x), "b n h k -> b n (h k)"),
                    ("batch", None, "activation_heads"),
                ),
                name,
            )
            for name, x in inputs.items()
        }
        if options.qk_norm:
            made |= {
                name: self.norm_heads(made[name], f"{name}_norm")
                for name in made
                if name != "value"
            }
        if angles is not None:
            of_query, of_memory = angles if isinstance(angles, tuple) else (angles, angles)
            made |= {
                name: rotate(made[name], turns, heads=options.heads)
                for name, turns in (("query", of_query), ("key", of_memory))
            }
        q, k, v = (
            made["query"],
            *(
                made[name] if cache is None else self.kept(name, made.get(name), cache)
                for name in ("key", "value")
            ),
        )
        pairs = dict(
            heads=options.heads,
            mask=mask,
            causal=self.causal and visible is None,
            visible=visible,
            bias=bias,
        )
        attended = checkpoint_name(self.attended(q, k, v, pairs), "attended")
        attended = rearrange(attended, "b n (h k) -> b n h k", h=options.heads)
        return precision.dense(
            options.width,
            ("heads", "head_dim", "embed"),
            axis=(-2, -1),
            name="out",
            kernel_init=initial["residual"],
            use_bias=options.bias,
        )(attended)

    def attended(
        self, q: jax.Array, k: jax.Array, v: jax.Array, pairs: dict[str, Any]
    ) -> jax.Array:
        """`attend`, or the values by the caller's weights where it gives an offset of them.

        Args:
          q, k, v: [B, N, H K] and twice [B, M, H K].
          pairs: arguments of `attention_weights`.
        """
        recorded = self.recorded(q, k, pairs)
        if recorded is not None:
            return weighted(recorded, v, heads=self.options.heads)
        rate = self.options.attention_dropout
        drop = (self.make_rng("dropout"), rate) if self.train and rate else None
        return attend(q, k, v, **pairs, drop=drop, attention=self.options.attention)

    def recorded(self, q: jax.Array, k: jax.Array, pairs: dict[str, Any]) -> jax.Array | None:
        """Sows the attention weights where the caller asks for them.

        Args:
          q, k: [B, N, H K] and [B, M, H K].
          pairs: arguments of `attention_weights`.
        Returns: the weights with the caller's offset, float32 [B, H, N, M]; None without one.
        """
        if not self.is_mutable_collection("attention") or self.is_initializing():
            return None
        weights = attention_weights(q, k, **pairs)
        call = len(self.get_variable("attention", "weights", ()))
        self.sow("attention", "weights", weights)
        if not self.has_variable("attention_offset", "weights"):
            return None
        return weights + self.get_variable("attention_offset", "weights")[call]

    def kept(self, name: str, new: jax.Array | None, cache: Cache) -> jax.Array:
        """All keys, or all values, of the cache, after `new` [B, n, H K] is written to it."""
        if new is None:
            return self.get_variable("cache", name)
        if cache.position is not None:
            empty = jnp.zeros((len(new), cache.length, new.shape[2]), new.dtype)
            new = jax.lax.dynamic_update_slice_in_dim(
                self.get_variable("cache", name, empty), new, cache.position, axis=1
            )
        self.put_variable("cache", name, new)
        return new

    def norm_heads(self, x: jax.Array, name: str) -> jax.Array:
        """LayerNorm of each head's features of [B, N, H K]."""
        heads = rearrange(x, "b n (h k) -> b n h k", h=self.options.heads)
        norm = self.options.normalisation(name, "head_dim")
        return rearrange(norm(heads), "b n h k -> b n (h k)")


def rotate(x: jax.Array, angles: jax.Array, *, heads: int) -> jax.Array:
    """Rotary position embedding (Su et al. 2021, equation 34).

    Args:
      x: [B, N, H K]; features i and i + K / 2 of each head are a point in the plane.
      angles: [B or 1, N, K / 2], the rotation of each point.
      heads: H.
    Returns: [B, N, H K] in the dtype of x, computed in float32.
    """
    first, second = rearrange(x.astype(jnp.float32), "b n (h two k) -> two b n h k", h=heads, two=2)
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    turned = jnp.stack([first * cos - second * sin, first * sin + second * cos])
    return rearrange(turned, "two b n h k -> b n (h two k)").astype(x.dtype)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    heads: int,
    mask: Mask = None,
    causal: bool = False,
    visible: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: tuple[jax.Array, float] | None = None,
    attention: str = "auto",
) -> jax.Array:
    """softmax(q k^T / sqrt(K) + bias) v of every head, with the softmax in float32.

    Args:
      q: [B, N, H K], the heads concatenated.
      k, v: [B, M, H K].
      heads: H.
      mask: [B, M] bool, the visible tokens first; or Segments, or None.
      causal: whether a query attends to no later token.
      visible: [B or 1, N, M] bool, the allowed pairs, in place of `causal`; computed by plain
        matrix products.
      bias: float32 [H, N, M] or [B, H, N, M]; computed by plain matrix products.
      drop: a key and the probability with which each attention weight is set to 0; the others are
        divided by the keep probability (Vaswani et al. 2017, section 5.4, as in BERT). Computed by
        plain matrix products.
      attention: `auto` uses the platform's kernel where it supports the shapes, `plain` never does.
    Returns: [B, N, H K]; zeros for a query without any visible token.
    """
    if drop is not None and attention == "auto":
        warn_once(
            "attention_dropout is above 0: in training, attention takes plain products and "
            "a softmax, and no kernel"
        )
    if visible is not None or bias is not None or drop is not None:
        return plain_attention(
            q,
            k,
            v,
            heads=heads,
            mask=mask,
            causal=causal and visible is None,
            visible=visible,
            bias=bias,
            drop=drop,
        )
    layout = current_layout()
    kernel = (
        None
        if attention == "plain" or layout is None
        else kernel_for(layout, q, k, heads=heads, segments=isinstance(mask, Segments))
    )
    if kernel is None or layout is None:
        return plain_attention(q, k, v, heads=heads, mask=mask, causal=causal)
    axes, local_heads = (
        ("batch", None, "activation_heads"),
        heads // layout.parts("activation_heads"),
    )
    masks, structure = jax.tree.flatten(mask)

    def local(q, k, v, *masks):
        return kernel(
            q, k, v, heads=local_heads, mask=jax.tree.unflatten(structure, masks), causal=causal
        )

    return on_each_device(local, layout, (axes,) * 3 + (("batch", None),) * len(masks), axes)(
        q, k, v, *masks
    )


def kernel_for(
    layout: Layout, q: jax.Array, k: jax.Array, *, heads: int, segments: bool = False
) -> Callable | None:
    """The attention kernel of this platform for these shapes; None, logged once, where there is
    none."""
    platform = layout.mesh.devices.flat[0].platform
    local, rest = divmod(heads, layout.parts("activation_heads"))
    rest = rest or q.shape[0] % layout.parts("batch")
    if platform == "cpu":
        return None if rest else cpu_attention
    if q.shape[1] < SHORT:
        return None
    head_dim = q.shape[-1] // heads
    if not rest and platform == "tpu":
        on_chip = heads_per_program(
            q.shape[1], k.shape[1], heads=local, head_dim=head_dim, itemsize=q.dtype.itemsize
        )
        return fused_attention if on_chip and not segments else long_attention
    lack = ""
    if not rest and platform in ("gpu", "cuda") and not segments:
        try:
            jax.eval_shape(jax.grad(lambda q, k: cudnn_attention(q, k, k, heads=heads).sum()), q, k)
            return cudnn_attention
        except (RuntimeError, ValueError) as error:  # no cuDNN, or it does not support these shapes
            lack = f" ({str(error).splitlines()[0]})"
    what = (
        f"{q.shape[1]} tokens{' in segments' if segments else ''}, {heads} heads of {head_dim} "
        f"in {q.dtype}"
    )
    warn_once(
        f"attention of {what} has no kernel on {platform}{lack}: plain products and a "
        "softmax are used"
    )
    return None


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning, each message only once per process."""
    logging.getLogger(__name__).warning(message)


def cudnn_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    heads: int,
    mask: jax.Array | None = None,
    causal: bool = False,
) -> jax.Array:
    """`attend` by cuDNN's flash attention, on NVIDIA GPUs from the A100 on.

    cuDNN takes the number of visible tokens instead of a mask, and in training only even numbers of
    tokens: an odd number is padded by one hidden token.
    """
    length, memory_length = q.shape[1], k.shape[1]
    q, k, v = (
        rearrange(
            jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0))), "b n (h k) -> b n h k", h=heads
        )
        for x in (q, k, v)
    )
    visible = (
        jnp.full(len(q), memory_length, jnp.int32)
        if mask is None
        else mask.sum(axis=1, dtype=jnp.int32)
    )
    lengths = None if mask is None and memory_length % 2 == 0 else jnp.maximum(visible, 1)
    attended = jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=lengths, is_causal=causal, implementation="cudnn"
    )
    attended = rearrange(attended[:, :length], "b n h k -> b n (h k)")
    return attended if mask is None else jnp.where(visible[:, None, None] > 0, attended, 0)


def plain_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    heads: int,
    mask: Mask = None,
    causal: bool = False,
    visible: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop: tuple[jax.Array, float] | None = None,
) -> jax.Array:
    """`attend` by two matrix products and a softmax, on any platform."""
    weights = attention_weights(
        q, k, heads=heads, mask=mask, causal=causal, visible=visible, bias=bias
    )
    if drop is not None:
        key, rate = drop
        weights = jnp.where(
            jax.random.bernoulli(key, 1.0 - rate, weights.shape), weights / (1.0 - rate), 0.0
        )
    return weighted(weights, v, heads=heads)


def weighted(weights: jax.Array, v: jax.Array, *, heads: int) -> jax.Array:
    """The values by the attention weights [B, H, N, M] of each head: [B, M, H K] -> [B, N, H K]."""
    v = rearrange(v, "b n (h k) -> b n h k", h=heads)
    return rearrange(
        jnp.einsum("bhnm,bmhk->bnhk", weights.astype(v.dtype), v), "b n h k -> b n (h k)"
    )


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    *,
    heads: int,
    mask: Mask = None,
    causal: bool = False,
    visible: jax.Array | None = None,
    bias: jax.Array | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(K) + bias) of every head, float32 [B, H, N, M]; arguments as in
    `attend`."""
    q, k = (rearrange(x, "b n (h k) -> b n h k", h=heads) for x in (q, k))
    logits = jnp.einsum(
        "bnhk,bmhk->bhnm", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
    )
    logits = logits if bias is None else logits + bias
    if mask is not None:
        visible = shown(mask) if visible is None else visible & shown(mask)
    return visible_softmax(logits, None if visible is None else visible[:, None], causal=causal)


def cpu_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, heads: int, mask: Mask = None, causal: bool = False
) -> jax.Array:
    """`plain_attention` with one batch axis, examples times heads, which XLA computes fastest on
    CPUs."""
    q, k, v = (
        rearrange(x, "b n (h k) -> (b h) n k", h=heads)
        for x in (q * (q.shape[-1] // heads) ** -0.5, k, v)
    )
    logits = jnp.einsum("bnk,bmk->bnm", q, k, preferred_element_type=jnp.float32)
    weights = visible_softmax(
        logits, None if mask is None else jnp.repeat(shown(mask), heads, axis=0), causal=causal
    )
    return rearrange(
        jnp.einsum("bnm,bmk->bnk", weights.astype(v.dtype), v), "(b h) n k -> b n (h k)", h=heads
    )


def visible_softmax(logits: jax.Array, visible: jax.Array | None, *, causal: bool) -> jax.Array:
    """Softmax over the last axis of logits, without hidden positions.

    Args:
      logits: float32 [..., N, M].
      visible: bool, broadcastable to the logits; None: all visible.
      causal: whether later positions are hidden.
    Returns: float32 [..., N, M], 0 at hidden positions.
    """
    if causal:
        lower = np.tril(np.ones(logits.shape[-2:], bool))
        visible = jnp.asarray(lower) if visible is None else visible & lower
    if visible is None:
        return jax.nn.softmax(logits)
    # A finite floor and a second mask, so that a row without visible tokens gives zeros and no NaN
    # gradient.
    return jnp.where(visible, jax.nn.softmax(jnp.where(visible, logits, -1e30)), 0.0)
