"""Sinusoidal and relative positions of words against the papers' formulas in float64, and what
padding may not change with them."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.attention import MultiHeadAttention
from vlp_jax.models.layers.attention_inputs import Cache
from vlp_jax.models.layers.positions import BUCKETS, FARTHEST, buckets, relative_bias, sinusoidal
from vlp_jax.models.layers.transformer import LayerOptions, Precision
from vlp_jax.models.text.transformer import TextTransformerConfig

LENGTHS = np.array([6, 4, 2])
TEXT = np.random.default_rng(1).integers(0, 20, (3, 6)).astype(np.int32)
MASK = np.arange(6) < LENGTHS[:, None]
SIZE = dict(preset="Ti", width=16, depth=2, heads=2, mlp_dim=24, vocab_size=20, length=9)


def tower(position, **changes):
    return TextTransformerConfig(**SIZE | dict(position=position, causal=False) | changes).build(
        Precision()
    )


@functools.cache
def parameters(module):
    rng, shapes = (
        np.random.default_rng(2),
        nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), TEXT))["params"],
    )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.asarray(
            (path[-1].key == "scale") + 0.5 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(module, text, mask=None):
    return module.apply({"params": parameters(module)}, text, mask)


def test_sinusoidal_positions_are_the_formula():
    """Vaswani et al. 2017, section 3.5."""
    table, width = sinusoidal(77, 12), 12
    for place, i in itertools.product((0, 1, 5, 76), range(width // 2)):
        angle = place / 10000 ** (2 * i / width)
        np.testing.assert_allclose(
            table[place, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)], atol=1e-6
        )


def test_sinusoidal_positions_are_added_to_the_words_times_the_root_of_the_width():
    """Vaswani et al. 2017, sections 3.4 and 3.5: a tower without layers and norm gives what entered
    it."""
    module = tower("sinusoidal", depth=0, final_norm=False)
    words = parameters(module)["tokens"]["embedding"].astype(np.float64)
    assert set(parameters(module)) == {"tokens"}
    np.testing.assert_allclose(
        encode(module, TEXT).tokens, 4.0 * words[TEXT] + sinusoidal(9, 16)[:6], atol=1e-5
    )


def bucket(distance, causal):
    """Raffel et al. 2020, section 2.1, as their code computes it, of memory minus query; in float64
    with room for rounding."""
    count, first = (BUCKETS, 0) if causal else (BUCKETS // 2, BUCKETS // 2 if distance > 0 else 0)
    far = max(-distance, 0) if causal else abs(distance)
    if far < count // 2:
        return first + far
    steps = math.log(far / (count // 2)) / math.log(FARTHEST / (count // 2)) * (count - count // 2)
    return first + min(count // 2 + math.floor(steps + 1e-9), count - 1)


@pytest.mark.parametrize("causal", [False, True])
def test_buckets_of_distances_are_those_of_t5(causal):
    found = np.asarray(buckets(0, 300, memory=300, causal=causal))
    expected = [[bucket(memory - query, causal) for memory in range(300)] for query in range(300)]
    np.testing.assert_array_equal(found, expected)
    # no word is later by nothing
    assert set(found.ravel()) == set(range(BUCKETS)) - (set() if causal else {BUCKETS // 2})
    np.testing.assert_array_equal(buckets(jnp.int32(7), 5, memory=300, causal=causal), found[7:12])


@pytest.mark.full
@pytest.mark.parametrize("causal", [False, True])
def test_attention_adds_the_bias_to_its_logits(causal):
    """softmax(q k^T / sqrt(K) + b) v in float64, with a table's entry for each head and
    distance."""
    rng, heads, width, count = np.random.default_rng(0), 2, 8, 40
    x, table = rng.normal(size=(3, count, width)), rng.normal(size=(BUCKETS, heads))
    mask = np.arange(count) < np.array([[40], [25], [3]])
    module = MultiHeadAttention(LayerOptions(width=width, heads=heads, mlp_dim=8), causal=causal)
    bias = relative_bias(
        jnp.asarray(table, jnp.float32), 0, queries=count, memory=count, causal=causal
    )
    params = nn.meta.unbox(module.init(jax.random.key(0), x, x))["params"]
    found = module.apply(
        {"params": params},
        jnp.asarray(x, jnp.float32),
        jnp.asarray(x, jnp.float32),
        mask=mask,
        bias=bias,
    )
    q, k, v = (
        np.einsum("bnd,dhk->bhnk", x, np.asarray(params[name]["kernel"], np.float64))
        for name in ("query", "key", "value")
    )
    logits = np.einsum("bhnk,bhmk->bhnm", q, k) / np.sqrt(width // heads)
    for n, m in itertools.product(range(count), range(count)):
        logits[:, :, n, m] += table[bucket(m - n, causal)]
    seen = mask[:, None, None, :] & (np.tril(np.ones((count, count), bool)) if causal else True)
    weights = np.where(seen, np.exp(logits), 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.einsum(
        "bhnm,bhmk,hkd->bnd", weights, v, np.asarray(params["out"]["kernel"], np.float64)
    )
    np.testing.assert_allclose(found, expected, atol=2e-5)


WAYS = [
    (position, dict(pooling=pooling, causal=causal, scan=scan))
    for position in ("sinusoidal", "relative")
    for pooling, causal, scan in (
        ("end", True, False),
        ("mean", False, True),
        ("cls", False, False),
        ("first", False, True),
        ("cls_end", True, False),
    )
]


@pytest.mark.full
@pytest.mark.parametrize(("position", "changes"), WAYS)
def test_padding_changes_nothing_and_without_tokens_the_pooled_vector_is_the_same(
    position, changes
):
    module = tower(position, **changes)
    before = encode(module, TEXT, MASK)
    np.testing.assert_array_equal(
        encode(module, np.where(MASK, TEXT, 19), MASK).pooled, before.pooled
    )
    wider = encode(
        module, np.pad(TEXT, ((0, 0), (0, 3)), constant_values=7), np.pad(MASK, ((0, 0), (0, 3)))
    )
    np.testing.assert_allclose(wider.pooled, before.pooled, atol=2e-5)
    np.testing.assert_allclose(encode(module, TEXT[1:2, :4]).pooled, before.pooled[1:2], atol=2e-5)
    without = module.apply({"params": parameters(module)}, TEXT, MASK, tokens=False)
    assert without.tokens is None
    np.testing.assert_allclose(without.pooled, before.pooled, atol=2e-5)


@pytest.mark.full
@pytest.mark.parametrize("position", ["sinusoidal", "relative"])
def test_the_order_of_words_counts_and_gradients_are_finite(position):
    module = tower(position, pooling="mean")
    swapped = TEXT[:, [1, 0, 2, 3, 4, 5]]
    assert (
        np.abs(encode(module, swapped).pooled - encode(module, TEXT).pooled).max(axis=1) > 1e-4
    ).all()
    gradients = jax.grad(
        lambda params: jnp.square(module.apply({"params": params}, TEXT, MASK).pooled).sum()
    )(parameters(module))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert "position" not in gradients
    if position == "relative":
        assert np.abs(gradients["relative_bias"]).max() > 1e-6


@pytest.mark.full
@pytest.mark.parametrize(
    ("position", "scan"), [("sinusoidal", False), ("relative", False), ("relative", True)]
)
def test_a_cache_continues_a_text_at_its_place(position, scan):
    module = tower(position, causal=True, scan=scan)
    whole, variables, found = encode(module, TEXT).tokens, {"params": parameters(module)}, []
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        encoding, cache = module.apply(
            variables, TEXT[:, start:stop], cache=Cache(jnp.int32(start), 9), mutable="cache"
        )
        variables = {"params": parameters(module), **cache}
        found.append(encoding.tokens)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, atol=2e-5)


def test_an_odd_width_has_no_sinusoidal_positions():
    with pytest.raises(
        ConfigError, match="model.text.position: 'sinusoidal' needs an even width, got 15"
    ):
        tower("sinusoidal", width=15, heads=3)
