"""Attention as one Pallas kernel on TPU, for short sequences (images, captions).

One example must fit on-chip. A program of the kernel processes a few heads of one example: their
queries, keys and values, [N, heads x K], with the heads concatenated as the projections return
them. The [N, M] logits of a head never leave the chip, forward or backward. Only q, k and v are
kept for the backward pass, which computes the weights again. JAX's own TPU kernels
(`jax.experimental.pallas.ops.tpu`) are designed for long sequences: they need one head per row,
which doubles 64-wide heads in memory, and lengths that divide by 128.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

# width of a TPU's vector registers; a block's last axis is a multiple of it, or the whole axis
LANES = 128
ON_CHIP = 12 * 2**20  # bytes, out of the 16 MiB that a v5e's compiler gives one kernel


def heads_per_program(
    length: int, memory_length: int, *, heads: int, head_dim: int, itemsize: int
) -> int | None:
    """The largest number of heads that fit on-chip with their blocks and logits; None where no
    block of heads does."""
    for count in range(heads, 0, -1):
        width = count * head_dim
        if heads % count or (count < heads and width % LANES):
            continue
        padded = -(-width // LANES) * LANES
        # backward: q, dO, dQ; k, v, dK, dV; double buffers
        blocks = 2 * (3 * length + 4 * memory_length) * padded * itemsize
        logits = 6 * length * (-(-memory_length // LANES) * LANES) * 4
        if blocks + logits <= ON_CHIP:
            return count
    return None


def fused_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    heads: int,
    mask: jax.Array | None = None,
    causal: bool = False,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v of every head, with the softmax in float32.

    Args:
      q: [B, N, H K], the heads concatenated.
      k, v: [B, M, H K].
      heads: H.
      mask: [B, M] bool, False hides a token; None: all visible.
      causal: whether a query attends to no later token.
      interpret: runs the kernel in Pallas' interpreter, on any platform.
    Returns: [B, N, H K]; zeros for a query without any visible token.
    """
    return _fused(q, k, v, mask, heads, causal, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _fused(q, k, v, mask, heads, causal, interpret):
    return _call(_forward_kernel, (q, k, v), mask, (q,), heads, causal, interpret, products=2)[0]


def _forward(q, k, v, mask, heads, causal, interpret):
    return _fused(q, k, v, mask, heads, causal, interpret), (q, k, v, mask)


def _backward(heads, causal, interpret, kept, gradient):
    q, k, v, mask = kept
    gradients = _call(
        _backward_kernel, (q, k, v, gradient), mask, (q, k, v), heads, causal, interpret, products=5
    )
    return *gradients, None


_fused.defvjp(_forward, _backward)


def _call(kernel, arrays, mask, outputs, heads, causal, interpret, products):
    """Runs `kernel` for every example and group of heads; its outputs have the shapes of
    `outputs`."""
    batch, length, width = arrays[0].shape
    memory_length, head_dim = arrays[1].shape[1], width // heads
    count = heads_per_program(
        length, memory_length, heads=heads, head_dim=head_dim, itemsize=arrays[0].dtype.itemsize
    )

    def block(array):
        return pl.BlockSpec(
            (1, array.shape[1], count * head_dim), lambda example, group: (example, 0, group)
        )

    mask_arrays = () if mask is None else (mask.astype(jnp.int32)[:, None, :],)
    mask_blocks = [
        pl.BlockSpec((1, 1, memory_length), lambda example, group: (example, 0, 0))
        for _ in mask_arrays
    ]
    size = sum(array.size * array.dtype.itemsize for array in (*arrays, *outputs))
    return pl.pallas_call(
        functools.partial(kernel, heads=count, masked=mask is not None, causal=causal),
        grid=(batch, heads // count),
        in_specs=[*map(block, arrays), *mask_blocks],
        out_specs=[*map(block, outputs)],
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in outputs],
        interpret=interpret,
        cost_estimate=pl.CostEstimate(
            flops=2 * products * batch * length * memory_length * width,
            bytes_accessed=size,
            transcendentals=batch * heads * length * memory_length,
        ),
    )(*arrays, *mask_arrays)


def _forward_kernel(q_ref, k_ref, v_ref, *refs, heads, masked, causal):
    *mask_ref, out_ref = refs
    visible = _visible(mask_ref, masked, causal, q_ref.shape[1], k_ref.shape[1])
    for lanes in _lanes_of_heads(q_ref.shape[2], heads):
        weights = _weights(q_ref[0, :, lanes], k_ref[0, :, lanes], visible)
        out_ref[0, :, lanes] = _dot(weights.astype(v_ref.dtype), v_ref[0, :, lanes], (1, 0)).astype(
            out_ref.dtype
        )


def _backward_kernel(q_ref, k_ref, v_ref, gradient_ref, *refs, heads, masked, causal):
    *mask_ref, dq_ref, dk_ref, dv_ref = refs
    visible = _visible(mask_ref, masked, causal, q_ref.shape[1], k_ref.shape[1])
    for lanes in _lanes_of_heads(q_ref.shape[2], heads):
        q, k, v, gradient = (ref[0, :, lanes] for ref in (q_ref, k_ref, v_ref, gradient_ref))
        weights = _weights(q, k, visible)
        slope = _dot(gradient, v, (1, 1))
        slope = (
            weights * (slope - (weights * slope).sum(axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
        )
        weights, slope = weights.astype(v.dtype), slope.astype(q.dtype)
        dq_ref[0, :, lanes] = _dot(slope, k, (1, 0)).astype(dq_ref.dtype)
        dk_ref[0, :, lanes] = _dot(slope, q, (0, 0)).astype(dk_ref.dtype)
        dv_ref[0, :, lanes] = _dot(weights, gradient, (0, 0)).astype(dv_ref.dtype)


def _lanes_of_heads(width, heads):
    return [slice(head * width // heads, (head + 1) * width // heads) for head in range(heads)]


def _weights(q, k, visible):
    """float32 [N, M] attention weights of one head."""
    logits = _dot(q, k, (1, 1)) * q.shape[-1] ** -0.5
    if visible is not None:
        logits = jnp.where(visible, logits, -1e30)
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return weights if visible is None else jnp.where(visible, weights, 0.0)


def _visible(mask_ref, masked, causal, length, memory_length):
    """bool [N, M], or None where all pairs are visible."""
    shape = (length, memory_length)
    visible = None
    if masked:
        visible = jnp.broadcast_to(mask_ref[0][0] != 0, shape)
    if causal:
        lower = jax.lax.broadcasted_iota(jnp.int32, shape, 0) >= jax.lax.broadcasted_iota(
            jnp.int32, shape, 1
        )
        visible = lower if visible is None else visible & lower
    return visible


def _dot(a, b, axes):
    """The product of two matrices over the given axis of each, accumulated in float32."""
    return jax.lax.dot_general(
        a, b, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=jnp.float32
    )
