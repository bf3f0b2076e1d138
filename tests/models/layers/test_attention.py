"""Attention by plain products and by the TPU kernel (interpreted), against NumPy; and which of them
is chosen where."""

import functools
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.models.layers import attention
from vlp_jax.models.layers.attention import (
    attend,
    cpu_attention,
    cudnn_attention,
    kernel_for,
    plain_attention,
)
from vlp_jax.models.layers.fused_attention import fused_attention, heads_per_program
from vlp_jax.models.layers.long_attention import long_attention
from vlp_jax.models.layers.segment_mask import Segments
from vlp_jax.sharding.layout import Layout, layout_in_use

MASK = np.arange(6) < np.array([[6], [4], [1], [0]])
RULES = (("batch", ("data", "fsdp")), ("activation_heads", "tensor"))


interpreted = functools.partial(fused_attention, interpret=True)


def numpy_attention(q, k, v, mask, heads, causal):
    """float64; and its gradients for a loss of sum(out * cos(place)). mask: [B, M], or [B, N, M],
    or None."""
    q, k, v = (np.asarray(x, np.float64).reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5
    mask = np.ones((len(q), k.shape[1]), bool) if mask is None else mask
    visible = mask[:, None] if mask.ndim == 3 else mask[:, None, None, :]
    visible = visible & (np.tril(np.ones((q.shape[1], k.shape[1]), bool)) if causal else True)
    logits = np.einsum("bnhk,bmhk->bhnm", q, k) * scale
    weights = np.exp(logits - logits.max(-1, keepdims=True)) * visible
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    out = np.einsum("bhnm,bmhk->bnhk", weights, v)
    slope = np.cos(np.arange(out.size)).reshape(out.shape)
    dweights = np.einsum("bnhk,bmhk->bhnm", slope, v)
    dlogits = weights * (dweights - (weights * dweights).sum(-1, keepdims=True)) * scale
    gradients = (
        np.einsum("bhnm,bmhk->bnhk", dlogits, k),
        np.einsum("bhnm,bnhk->bmhk", dlogits, q),
        np.einsum("bhnm,bnhk->bmhk", weights, slope),
    )
    return [x.reshape(*x.shape[:2], -1) for x in (out, *gradients)]


@pytest.mark.variants
@pytest.mark.parametrize(
    "compute", [plain_attention, cpu_attention, interpreted], ids=["plain", "cpu", "kernel"]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_values_and_gradients_equal_numpy_and_are_zero_where_nothing_is_visible(
    compute, causal, masked, heads
):
    q, k, v = np.random.default_rng(0).normal(size=(3, 4, 6, 24)).astype(np.float32)
    mask = MASK if masked else None

    def loss(q, k, v):
        out = compute(q, k, v, heads=heads, mask=mask, causal=causal)
        return (
            out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        ).sum(), out

    gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    for got, expected in zip(
        (out, *gradients), numpy_attention(q, k, v, mask, heads, causal), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max())
    if masked:
        assert not np.asarray(out)[3].any() and not any(
            np.asarray(gradient)[3].any() for gradient in gradients
        )


@pytest.mark.variants
@pytest.mark.parametrize("kernel", [fused_attention, long_attention])
def test_the_kernels_take_a_memory_of_another_length(kernel):
    rng = np.random.default_rng(1)
    q, (k, v) = (
        rng.normal(size=(2, 5, 16)).astype(np.float32),
        rng.normal(size=(2, 2, 9, 16)).astype(np.float32),
    )
    np.testing.assert_allclose(
        kernel(q, k, v, heads=2, interpret=True), plain_attention(q, k, v, heads=2), atol=1e-6
    )


@pytest.mark.variants
@pytest.mark.parametrize(("length", "causal"), [(130, False), (130, True)])
def test_the_kernel_for_long_sequences_gives_values_and_gradients_of_plain_products(length, causal):
    """Two blocks of keys and padding behind; one example sees all, one a part, one nothing."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 3, length, 24)).astype(np.float32)
    mask = np.arange(length) < np.array([[length], [100], [0]])

    def gradients(attention):
        def loss(q, k, v):
            out = attention(q, k, v)
            return (
                out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
            ).sum(), out

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v))

    found = gradients(
        lambda q, k, v: long_attention(q, k, v, heads=2, mask=mask, causal=causal, interpret=True)
    )
    plain = gradients(lambda q, k, v: plain_attention(q, k, v, heads=2, mask=mask, causal=causal))
    for got, expected in zip(found, plain, strict=True):
        np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max())
        assert not np.asarray(got)[2].any()


@pytest.mark.variants
@pytest.mark.parametrize(
    "compute",
    [plain_attention, cpu_attention, functools.partial(long_attention, interpret=True)],
    ids=["plain", "cpu", "kernel"],
)
@pytest.mark.parametrize("itself", [True, False])
def test_tokens_see_those_of_their_own_number_and_none_of_number_0(compute, itself):
    """A row of two texts and padding, one without padding, one that is empty; and memories of their
    own order beside them."""
    rng = np.random.default_rng(3)
    queries = np.array([[1, 1, 3, 3, 3, 0], [2, 2, 2, 2, 4, 4], [0] * 6], np.int32)
    memory = queries if itself else np.array([[1, 2, 3, 4, 4, 2, 1, 3]] * 3, np.int32)
    q, k, v = rng.normal(size=(3, 6, 24)), *rng.normal(size=(2, 3, memory.shape[1], 24))
    visible = (queries[:, :, None] == memory[:, None]) & (queries > 0)[:, :, None]

    def loss(q, k, v):
        out = compute(
            q,
            k,
            v,
            heads=2,
            mask=Segments(jnp.asarray(queries), jnp.asarray(memory)),
            causal=itself,
        )
        return (
            out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        ).sum(), out

    gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(
        *(x.astype(np.float32) for x in (q, k, v))
    )
    for got, expected in zip(
        (out, *gradients), numpy_attention(q, k, v, visible, 2, itself), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "compute", [plain_attention, cpu_attention, interpreted], ids=["plain", "cpu", "kernel"]
)
def test_logits_far_apart_in_bfloat16_stay_finite(compute):
    q, k, v = (
        jnp.asarray(x, jnp.bfloat16)
        for x in np.random.default_rng(0).normal(size=(3, 1, 6, 16)) * 200
    )
    attended = compute(q, k, v, heads=2)
    assert attended.dtype == jnp.bfloat16 and jnp.isfinite(attended).all()


def test_the_kernel_takes_as_many_heads_as_fit_on_chip_in_whole_registers():
    assert heads_per_program(197, 197, heads=12, head_dim=64, itemsize=2) == 12
    # 128 lanes; all 16 would not fit
    assert heads_per_program(577, 577, heads=16, head_dim=64, itemsize=2) == 2
    assert heads_per_program(256, 256, heads=16, head_dim=72, itemsize=2) == 16
    assert heads_per_program(4096, 4096, heads=16, head_dim=64, itemsize=2) is None


def layout_on(platform, tensor=1):
    """A layout whose devices say that they are of another platform."""
    devices = np.array(jax.devices()[: 2 * tensor]).reshape(2, 1, tensor)
    mesh = types.SimpleNamespace(
        devices=np.array([types.SimpleNamespace(platform=platform)]),
        shape=dict(data=2, fsdp=1, tensor=tensor),
    )
    return Layout(
        jax.sharding.Mesh(devices, ("data", "fsdp", "tensor")) if platform == "cpu" else mesh, RULES
    )


@pytest.mark.parametrize(
    ("platform", "length", "kernel"),
    [
        ("cpu", 197, cpu_attention),
        ("cpu", 1, cpu_attention),
        ("tpu", 1, None),
        ("tpu", 197, fused_attention),
        ("tpu", 729, long_attention),
        ("gpu", 197, plain_attention),
        ("rocm", 197, None),
    ],
)
def test_the_kernel_is_chosen_by_platform_and_shape_and_a_lack_is_said_once(
    platform, length, kernel, caplog, monkeypatch
):
    attention.warn_once.cache_clear()
    monkeypatch.setattr(attention, "cudnn_attention", plain_attention)  # as if cuDNN were here
    q = jax.ShapeDtypeStruct((4, length, 144), jnp.bfloat16)
    with caplog.at_level(logging.WARNING):
        assert [kernel_for(layout_on(platform), q, q, heads=2) for _ in range(2)] == [
            kernel,
            kernel,
        ]
    lacking = kernel is None and platform != "cpu" and length > 1
    assert len(caplog.messages) == lacking
    assert not lacking or f"attention of {length} tokens" in caplog.messages[0]


def test_tokens_in_segments_have_the_kernel_for_long_sequences_on_tpu_and_none_on_gpu(caplog):
    attention.warn_once.cache_clear()
    q = jax.ShapeDtypeStruct((4, 197, 144), jnp.bfloat16)
    with caplog.at_level(logging.WARNING):
        found = [
            kernel_for(layout_on(platform), q, q, heads=2, segments=True)
            for platform in ("cpu", "tpu", "gpu")
        ]
    assert found == [cpu_attention, long_attention, None]
    assert "attention of 197 tokens in segments" in caplog.text


def test_what_cudnn_says_is_why_plain_products_are_used(caplog, monkeypatch):
    attention.warn_once.cache_clear()

    def without(*_, **__):
        raise RuntimeError("cuDNN not found.")

    monkeypatch.setattr(jax.nn, "dot_product_attention", without)
    q = jax.ShapeDtypeStruct((4, 197, 128), jnp.bfloat16)
    with caplog.at_level(logging.WARNING):
        assert kernel_for(layout_on("gpu"), q, q, heads=2) is None
    assert "(cuDNN not found.)" in caplog.messages[0]


@pytest.mark.variants
@pytest.mark.parametrize("length", [5, 6])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_what_cudnn_is_asked_is_the_same_attention(length, causal, masked, monkeypatch):
    """JAX's own implementation for any platform answers in cuDNN's place; it is asked even lengths
    only."""
    asked, answer = [], jax.nn.dot_product_attention

    def instead(q, k, v, *, implementation, **options):
        asked.append((q.shape[1] % 2, k.shape[1] % 2, implementation))
        return answer(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    q, k, v = np.random.default_rng(0).normal(size=(3, 4, length, 24)).astype(np.float32)
    mask = MASK[:, :length] if masked else None
    expected = plain_attention(q, k, v, heads=3, mask=mask, causal=causal)
    np.testing.assert_allclose(
        cudnn_attention(q, k, v, heads=3, mask=mask, causal=causal), expected, atol=2e-6
    )
    assert asked == [(0, 0, "cudnn")]


@pytest.mark.parametrize("tensor", [1, 2])
def test_the_kernel_runs_on_each_devices_examples_and_heads(tensor, monkeypatch):
    q, k, v = np.random.default_rng(0).normal(size=(3, 4, 6, 32)).astype(np.float32)
    monkeypatch.setattr(attention, "kernel_for", lambda *_, **__: interpreted)
    given = dict(heads=4, mask=MASK, causal=True)
    expected = plain_attention(q, k, v, **given)
    with layout_in_use(layout_on("cpu", tensor)):
        np.testing.assert_allclose(
            jax.jit(lambda *qkv: attend(*qkv, **given))(q, k, v), expected, atol=1e-6
        )
        text = str(jax.make_jaxpr(lambda *qkv: attend(*qkv, **given))(q, k, v))
        assert "shard_map" in text and "pallas_call" in text
        assert "pallas_call" not in str(
            jax.make_jaxpr(lambda *qkv: attend(*qkv, **given, attention="plain"))(q, k, v)
        )
