"""Fusions of what the towers pooled, against float64 NumPy written from the papers' equations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import relative_error
from tiny_experiment import batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.pooled import (
    GatedSum,
    GatedSumConfig,
    LowRankBilinear,
    LowRankBilinearConfig,
    VisualAttention,
    VisualAttentionConfig,
)
from vlp_jax.models.layers.transformer import Encoding, Precision
from vlp_jax.training.build import build_module

WIDTH, RANK = 6, 5
RNG = np.random.default_rng(0)
IMAGE, TEXT = RNG.normal(size=(4, 7)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
REGIONS = RNG.normal(size=(4, 5, 7)).astype(np.float32)
MODULES = {
    "gated": GatedSum(GatedSumConfig(width=WIDTH)),
    "bilinear": LowRankBilinear(LowRankBilinearConfig(width=WIDTH, rank=RANK)),
    "visual_attention": VisualAttention(VisualAttentionConfig(width=WIDTH, hops=2)),
}


def gated(p, image, text):
    """h = z * tanh(W_v v) + (1 - z) * tanh(W_t t), z = sigmoid(W_z [v, t]) (Arevalo et al. 2017)"""
    gate = 1 / (1 + np.exp(-np.concatenate([image, text], axis=1) @ p["gate"]["kernel"]))
    return gate * np.tanh(image @ p["image"]["kernel"]) + (1 - gate) * np.tanh(
        text @ p["text"]["kernel"]
    )


def bilinear(p, image, text):
    """P^T (tanh(U^T x) * tanh(V^T y)) + b (Kim et al. 2017)"""
    product = np.tanh(image @ p["image"]["kernel"]) * np.tanh(text @ p["text"]["kernel"])
    return product @ p["out"]["kernel"] + p["out"]["bias"]


def visual_attention(p, regions, text):
    """v = tanh(W_I f + b_I), u = W_T q + b_T; p = softmax(w . tanh(W_v v + W_u u + b)), u <- u +
    sum_i p_i v_i, twice (Yang et al. 2016). Returns u and the hops' p.
    """
    v, u = (
        np.tanh(regions @ p["image"]["kernel"] + p["image"]["bias"]),
        text @ p["text"]["kernel"] + p["text"]["bias"],
    )
    hops = []
    for hop in range(2):
        of_text = u @ p[f"looking_{hop}"]["kernel"] + p[f"looking_{hop}"]["bias"]
        logits = (
            np.tanh(v @ p[f"regions_{hop}"]["kernel"] + of_text[:, None])
            @ p[f"weight_{hop}"]["kernel"][:, 0]
        )
        hops.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        u = u + (hops[-1][:, :, None] * v).sum(1)
    return u, hops


def encodings(image, text, regions=REGIONS):
    return Encoding(regions, None, image), Encoding(None, None, text)


def parameters(module):
    shapes = nn.meta.unbox(
        jax.eval_shape(lambda: module.init(jax.random.key(0), *encodings(IMAGE, TEXT)))["params"]
    )
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("kind", "equation"), [("gated", gated), ("bilinear", bilinear)])
def test_what_is_pooled_equals_float64_numpy(kind, equation):
    module, params = MODULES[kind], parameters(MODULES[kind])
    fused = module.apply({"params": params}, *encodings(IMAGE, TEXT))
    assert fused.tokens is None and fused.image_tokens is None and fused.pooled.shape == (4, WIDTH)
    expected = equation(
        jax.tree.map(lambda x: x.astype(np.float64), params),
        IMAGE.astype(np.float64),
        TEXT.astype(np.float64),
    )
    assert relative_error(fused.pooled, expected) <= 1e-5


def test_visual_attention_equals_float64_numpy_and_its_weights_are_there_for_who_asks():
    module, params = MODULES["visual_attention"], parameters(MODULES["visual_attention"])
    fused, asked = module.apply({"params": params}, *encodings(IMAGE, TEXT), mutable="attention")
    exact = jax.tree.map(lambda x: x.astype(np.float64), params)
    pooled, hops = visual_attention(exact, REGIONS.astype(np.float64), TEXT.astype(np.float64))
    assert fused.tokens is None and relative_error(fused.pooled, pooled) <= 1e-5
    weights = asked["attention"]["weights"]
    assert len(weights) == 2 and all(
        relative_error(*pair) <= 1e-5 for pair in zip(weights, hops, strict=True)
    )
    np.testing.assert_array_equal(
        module.apply({"params": params}, *encodings(IMAGE, TEXT)).pooled, fused.pooled
    )
    assert module.init(jax.random.key(0), *encodings(IMAGE, TEXT)).keys() == {"params"}


def test_hidden_regions_are_not_looked_at():
    module, params = MODULES["visual_attention"], parameters(MODULES["visual_attention"])
    more = np.concatenate([REGIONS, 9.0 * REGIONS[:, :2]], axis=1)
    image, text = encodings(IMAGE, TEXT, more)
    hidden = module.apply(
        {"params": params}, image.replace(mask=np.arange(7) < np.full((4, 1), 5)), text
    )
    np.testing.assert_allclose(
        hidden.pooled, module.apply({"params": params}, *encodings(IMAGE, TEXT)).pooled, atol=1e-6
    )


@pytest.mark.variants
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_gradients_are_finite_at_the_ends_of_tanh_and_the_gate(kind, size):
    module, params = MODULES[kind], parameters(MODULES[kind])

    def loss(params, image, text, regions):
        return jnp.square(
            module.apply({"params": params}, *encodings(image, text, regions)).pooled
        ).sum()

    inputs = (size * jnp.asarray(x) for x in (IMAGE, -TEXT, REGIONS))
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(params, *inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("kind", MODULES)
def test_parameters_stay_float32_where_it_computes_in_bfloat16(kind):
    module = MODULES[kind].clone(precision=Precision(jnp.bfloat16))
    fused, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), *encodings(IMAGE, TEXT))
    )
    assert fused.pooled.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@pytest.mark.full
@pytest.mark.parametrize(
    "fusion",
    [
        dict(kind="gated", width=8),
        dict(kind="bilinear", width=8, rank=8),
        dict(kind="visual_attention", width=8),
    ],
)
def test_matching_learns_by_them_and_masked_words_have_no_tokens_to_be_told_from(fusion):
    towers = dict(model__text__causal=False, model__text__pooling="first", model__fusion=fusion)
    batch = jax.tree.map(jnp.asarray, batch_of()) | {"image": jnp.ones((8, 8, 8, 3))}
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    module = build_module(
        experiment(objectives=dict(pair=dict(kind="matching", negatives="uniform")), **towers)
    )
    variables = module.init(keys, batch)
    gradients = jax.grad(
        lambda params: module.apply({"params": params}, batch, True, rngs=keys).value
    )(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["model"]["fusion"]))
    module = build_module(experiment(objectives=dict(words=dict(kind="masked_language")), **towers))
    with pytest.raises(ConfigError, match=f"model.fusion.kind: '{fusion['kind']}' gives no tokens"):
        jax.eval_shape(lambda: module.init(keys, batch))
