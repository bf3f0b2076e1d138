"""Options that OpenCLIP's CoCas and SigLIPs, and TIPSv2, need, against what they are made of in
float64."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from counted_flops import counted_flops

from vlp_jax.errors import ConfigError
from vlp_jax.models.decoder.transformer import TextDecoderConfig
from vlp_jax.models.layers.positions import sinusoidal_halves
from vlp_jax.models.options import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViT, ViTConfig

TINY = dict(width=12, depth=1, heads=2, mlp_dim=20)
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
TEXT = np.array([[5, 6, 7, 0, 0, 0], [5, 6, 7, 8, 9, 4]])
MASK = TEXT > 0
QUERIES = dict(pooling="queries", queries=4, query_width=10, query_heads=5, class_tokens=1)


def image_tower(**changes):
    return ViTConfig(**{**TINY, "patch_size": 4, "image_size": 12, **changes}).build(Precision())


def text_tower(**changes):
    sizes = {**TINY, "vocab_size": 10, "length": 6, **changes}
    return TextTransformerConfig(**sizes).build(Precision())


def variables_of(module, *inputs):
    """Random values, also of what begins at 0 or 1."""
    rng = np.random.default_rng(1)
    shapes = nn.meta.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)))
    return jax.tree.map(lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


def norm(x, params):
    x = x - x.mean(axis=-1, keepdims=True)
    scaled = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * params["scale"] + params["bias"]


@pytest.mark.full
def test_queries_attend_to_all_tokens_with_norms_before_and_after():
    module = image_tower(**QUERIES)
    variables = variables_of(module, IMAGES)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    assert "norm" not in params
    config = ViTConfig(
        **TINY, patch_size=4, image_size=12, pooling="none", class_tokens=1
    )  # by which no tower can be built, as nothing pools
    seen = ViT(config, Precision())
    plain = {key: value for key, value in variables["params"].items() if key != "pooling_head"}
    plain["norm"] = {"scale": np.ones(12, np.float32), "bias": np.zeros(12, np.float32)}
    tokens = np.asarray(seen_tokens(seen, plain), np.float64)
    assert tokens.shape == (2, 10, 12)
    head = params["pooling_head"]
    made = {
        name: np.einsum("bnd,dhk->bhnk", x, head["attention"][name]["kernel"])
        + head["attention"][name]["bias"][:, None]
        for name, x in (
            ("query", norm(head["probe"], head["probe_norm"])),
            ("key", norm(tokens, head["token_norm"])),
            ("value", norm(tokens, head["token_norm"])),
        )
    }
    logits = np.einsum("bhqk,bhnk->bhqn", np.repeat(made["query"], 2, 0), made["key"]) / 2**0.5
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    out = np.einsum("bhqn,bhnk->bqhk", weights, made["value"])
    out = np.einsum("bqhk,hkd->bqd", out, head["attention"]["out"]["kernel"])
    expected = norm(out + head["attention"]["out"]["bias"], head["norm"])
    found = module.apply(variables, IMAGES)
    np.testing.assert_allclose(found.pooled, expected[:, 0], atol=2e-4)
    np.testing.assert_allclose(found.tokens, expected[:, 1:], atol=2e-4)
    assert module.config.shapes.tokens == 3 and module.config.shapes.token_width == 10


def seen_tokens(module, params):
    """The tokens behind the layers, before any norm."""
    return module.apply({"params": params}, IMAGES).unnormalised


@pytest.mark.parametrize(
    "changes",
    [
        QUERIES,
        dict(QUERIES, query_width=None, query_heads=None),
        dict(pooling="map"),
        dict(pooling="map", class_tokens=1, map_tokens="all", query_mlp_dim=20),
    ],
    ids=["queries", "as wide as the layers", "map", "map of all tokens"],
)
def test_flops_of_pooling_are_those_of_the_traced_program(changes):
    module = image_tower(**changes)
    variables = variables_of(module, IMAGES)
    program = jax.make_jaxpr(module.apply)(variables, IMAGES)
    assert counted_flops(program.jaxpr) == 2 * module.config.encoder_flops(False, True)


@pytest.mark.full
def test_a_class_token_in_the_last_place_sees_the_text_and_one_padding_token():
    """Its vector does not depend on other padding, and does on the first padding token and on its
    own only where the text fills the row."""
    module = text_tower(pooling="cls_last")
    variables = variables_of(module, TEXT, MASK)

    def pooled(text, **changes):
        params = {**variables["params"], **changes}
        return np.asarray(module.apply({"params": params}, text, MASK).pooled)

    before = pooled(TEXT)
    first, second = TEXT.copy(), TEXT.copy()
    first[0, 3], second[0, 4] = 8, 8
    np.testing.assert_array_equal(pooled(second), before)
    assert np.abs(pooled(first) - before)[0].max() > 1e-3
    place = variables["params"]["class_position"]
    assert place.shape == (1, 1, 12)
    assert np.abs(pooled(TEXT, class_position=-3 * place) - before).max(axis=1).min() > 1e-4
    alone = module.apply(variables, TEXT, MASK, tokens=False)
    np.testing.assert_allclose(alone.pooled, before, atol=1e-5)
    assert alone.tokens is None and module.config.layer_tokens == 7


@pytest.mark.full
def test_the_tokens_of_a_text_are_those_without_a_class_token():
    with_one, without = text_tower(pooling="cls_last"), text_tower(pooling="end")
    variables = variables_of(with_one, TEXT, MASK)
    mine = {
        key: value
        for key, value in variables["params"].items()
        if key not in ("class_token", "class_position")
    }
    expected = without.apply({"params": mine}, TEXT, MASK).unnormalised
    found = with_one.apply(variables, TEXT, MASK).tokens
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-5)


def test_pixels_behind_the_last_whole_patch_are_not_seen():
    whole, cut = image_tower(), image_tower(image_size=14, cut_remainder=True)
    variables = variables_of(whole, IMAGES)
    padded = np.pad(IMAGES, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=9.0)
    np.testing.assert_array_equal(
        cut.apply(variables, padded).pooled, whole.apply(variables, IMAGES).pooled
    )
    with pytest.raises(ConfigError, match="does not divide into patches"):
        image_tower(image_size=14)


def test_sinusoids_in_halves_are_those_of_tensor2tensor():
    table = sinusoidal_halves(5, 8)
    for place in range(5):
        for i in range(4):
            angle = place * 10_000.0 ** (-i / 3)
            expected = np.sin(angle), np.cos(angle)
            np.testing.assert_allclose((table[place, i], table[place, 4 + i]), expected, atol=1e-6)
    tower = text_tower(position="sinusoidal_halves")
    assert "position" not in variables_of(tower, TEXT, MASK)["params"]
    with pytest.raises(ConfigError, match="needs an even width"):
        text_tower(position="sinusoidal_halves", width=13, heads=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(pooling="queries"), "queries: pooling='queries' needs one"),
        (dict(QUERIES, pooler=True), "pooler: is for another pooling"),
        (dict(QUERIES, query_heads=3), "query_width: 10 does not divide into 3 heads"),
        (dict(pooling="cls", class_tokens=0), "class_tokens"),
    ],
)
def test_poolings_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        image_tower(**changes)


@pytest.mark.parametrize("key", ["memory_norm", "inner_mlp"])
def test_parts_of_cross_attention_need_it(key):
    shapes = None  # not asked for, as the key is refused first
    with pytest.raises(ConfigError, match=f"{key}: needs image='cross_attention'"):
        TextDecoderConfig(**TINY, image="none", **{key: True}).check(shapes)
