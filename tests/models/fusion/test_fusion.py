"""Fusion: what reaches what, padding, widths, and a layer of cross-attention against float64
NumPy."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_flops import counted_flops

from vlp_jax.config import base, to_config
from vlp_jax.errors import ConfigError
from vlp_jax.models.fusion.attention import CrossAttention, CrossAttentionConfig
from vlp_jax.models.layers.attention_inputs import AttentionInputs
from vlp_jax.models.layers.pool_position import PoolPosition
from vlp_jax.models.layers.transformer import Encoding, LayerOptions, Precision, Transformer
from vlp_jax.models.vision_language import VisionLanguageModel

WIDTH, IMAGE_WIDTH, TEXT_WIDTH = 16, 12, 8
LENGTHS = np.array([6, 3, 1])
RNG = np.random.default_rng(0)
IMAGE, TEXT = (
    RNG.normal(size=(3, 5, IMAGE_WIDTH)).astype(np.float32),
    RNG.normal(size=(3, 6, TEXT_WIDTH)).astype(np.float32),
)
POOLED = {
    "concatenation": dict(mlp_dim=20),
    "gated": {},
    "bilinear": dict(rank=20),
    "visual_attention": dict(hops=2),
}
KINDS = ["cross_attention", "merged", "co_attention", *POOLED]


def fusion_of(kind, **changes):
    config = base()
    config.update(steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform")))
    size = POOLED.get(kind, dict(mlp_dim=20, depth=2, heads=2, pooler=True))
    config.model.fusion = dict(kind=kind, width=WIDTH, **size, **changes)
    return built(to_config(config.to_dict()).model)


def built(model):
    return model.fusion.build(model.shapes(), Precision())


def encodings(image=IMAGE, text=TEXT, padding=0):
    """The pairs, the text with so many more hidden tokens of noise."""
    text = np.concatenate(
        [text, 9.0 * np.random.default_rng(1).normal(size=(3, padding, TEXT_WIDTH))], axis=1
    ).astype(np.float32)
    mask = np.arange(6 + padding) < LENGTHS[:, None]
    return (
        Encoding(jnp.asarray(image), None, jnp.asarray(image.mean(1))),
        Encoding(jnp.asarray(text), mask, jnp.asarray(text[:, 0])),
    )


def parameters(module, *inputs, scale=0.3):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng, shapes = (
        np.random.default_rng(2),
        nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))["params"],
    )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            (path[-1].key == "scale") + scale * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_and_widths_may_differ(kind):
    module = fusion_of(kind)
    params = parameters(module, *encodings())
    fused = [module.apply({"params": params}, *encodings(padding=padding)) for padding in (0, 4)]
    np.testing.assert_allclose(fused[1].pooled, fused[0].pooled, atol=1e-5)
    assert fused[0].pooled.shape == (3, 2 * WIDTH if kind == "co_attention" else WIDTH)
    if kind in POOLED:
        assert fused[0].tokens is None
        return
    assert fused[0].tokens.shape == (3, 6, WIDTH) and fused[1].mask.shape == (3, 10)
    seen = np.asarray(fused[0].mask)
    np.testing.assert_allclose(
        np.asarray(fused[1].tokens)[:, :6][seen], np.asarray(fused[0].tokens)[seen], atol=1e-5
    )
    if kind == "cross_attention":
        assert fused[0].image_tokens is None
    else:
        np.testing.assert_allclose(fused[1].image_tokens, fused[0].image_tokens, atol=1e-5)
        assert fused[0].image_tokens.shape == (3, 5, WIDTH)


@pytest.mark.variants
@pytest.mark.parametrize("kind", KINDS)
def test_the_image_reaches_every_token_of_its_text_and_no_other_example(kind):
    module = fusion_of(kind)
    params = parameters(module, *encodings())
    other = IMAGE.copy()
    other[1, 4 if kind not in POOLED or kind == "visual_attention" else slice(None)] += 1.0
    one, two = (module.apply({"params": params}, *encodings(image)) for image in (IMAGE, other))
    pairs = [(one.pooled[:, None], two.pooled[:, None])] + (
        [] if one.tokens is None else [(one.tokens, two.tokens)]
    )
    for before, after in pairs:
        moved = np.abs(np.asarray(before) - np.asarray(after)).max(-1)
        assert (moved[1] > 1e-4).all() and (moved[[0, 2]] == 0).all(), moved


@pytest.mark.parametrize("kind", ["merged", "co_attention"])
def test_the_text_reaches_the_image_tokens(kind):
    module = fusion_of(kind)
    params = parameters(module, *encodings())
    other = TEXT.copy()
    other[0, 5] += 1.0
    one, two = (
        module.apply({"params": params}, *encodings(text=text)).image_tokens
        for text in (TEXT, other)
    )
    assert (np.abs(one[0] - two[0]).max(-1) > 1e-4).all() and (
        np.asarray(one[1:]) == np.asarray(two[1:])
    ).all()


@pytest.mark.full
def test_a_layer_of_cross_attention_equals_float64_numpy():
    """x + self-attention(norm x), + cross-attention(norm x, image), + MLP(norm x), norm (Vaswani et
    al. 2017, figure 1, with the norms in front).
    """
    width, heads = 8, 2
    module = CrossAttention(
        CrossAttentionConfig(width=width, heads=heads, mlp_dim=12, activation="gelu_tanh", depth=1)
    )
    image, text = encodings()
    params = parameters(module, image, text)
    fused = module.apply({"params": params}, image, text)
    tree = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    layer = tree["transformer"]["layer_0"]

    def norm(x, name, tree=layer):
        x = x - x.mean(-1, keepdims=True)
        return (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * tree[name]["scale"]
            + tree[name]["bias"]
        )

    def attention(x, memory, name, visible):
        p = layer[name]
        q, k, v = (
            np.einsum("nd,dhk->hnk", y, p[part]["kernel"]) + p[part]["bias"][:, None]
            for y, part in ((x, "query"), (memory, "key"), (memory, "value"))
        )
        weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(width / heads)) * visible
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        return np.einsum("hnk,hkd->nd", mixed, p["out"]["kernel"]) + p["out"]["bias"]

    for row, length in enumerate(LENGTHS):
        x, pixels = TEXT[row].astype(np.float64), IMAGE[row].astype(np.float64)
        y = norm(x, "attention_norm")
        x = x + attention(y, y, "attention", np.arange(6) < length)
        x = x + attention(norm(x, "cross_norm"), pixels, "cross", np.ones(5))
        hidden = norm(x, "mlp_norm") @ layer["mlp"]["in"]["kernel"] + layer["mlp"]["in"]["bias"]
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = norm(
            x + hidden @ layer["mlp"]["out"]["kernel"] + layer["mlp"]["out"]["bias"], "norm", tree
        )
        np.testing.assert_allclose(fused.tokens[row], x, atol=2e-5)
        np.testing.assert_allclose(fused.pooled[row], x[0], atol=2e-5)


def test_the_streams_of_co_attention_read_each_other_as_they_were_before_the_layer():
    module = fusion_of("co_attention")
    params = parameters(module, *encodings())
    swapped = {
        key.replace("image", "?").replace("text", "image").replace("?", "text"): value
        for key, value in params.items()
    }
    image, text = encodings(RNG.normal(size=(3, 5, WIDTH)).astype(np.float32))
    text = Encoding(
        jnp.asarray(RNG.normal(size=(3, 6, WIDTH)), jnp.float32), jnp.ones((3, 6), bool), None
    )
    fused, mirrored = (
        module.apply({"params": params}, image, text),
        module.apply({"params": swapped}, text, image),
    )
    np.testing.assert_allclose(mirrored.image_tokens, fused.tokens, atol=1e-5)
    np.testing.assert_allclose(mirrored.tokens, fused.image_tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "class_token"), [(dict(pooling="cls"), True), (dict(pooling="mean"), False)]
)
def test_co_attention_pools_the_image_s_class_token_or_where_there_is_none_the_mean(
    image, class_token
):
    config = base()
    config.update(steps=1, objectives=dict(matching=dict(kind="matching", negatives="uniform")))
    config.model.image.update(image)
    config.model.fusion = dict(kind="co_attention", width=WIDTH, mlp_dim=20, depth=2, heads=2)
    module = built(to_config(config.to_dict()).model)
    pair = encodings()
    fused = module.apply({"params": parameters(module, *pair)}, *pair)
    whole = fused.image_tokens[:, 0] if class_token else fused.image_tokens.mean(1)
    np.testing.assert_allclose(
        fused.pooled, jnp.concatenate([fused.tokens[:, 0], whole], axis=1), atol=1e-6
    )


def test_two_streams_have_linear_maps_at_their_entrance_where_widths_are_equal():
    rng = np.random.default_rng(3)
    pair = [
        Encoding(jnp.asarray(rng.normal(size=(3, count, WIDTH)), jnp.float32), None, None)
        for count in (5, 6)
    ]
    plain, mapped = fusion_of("co_attention"), fusion_of("co_attention", projected=True)
    params = parameters(mapped, *pair)
    maps = {f"{name}_in": params[f"{name}_in"] for name in ("image", "text")}
    rest = {name: leaf for name, leaf in params.items() if name not in maps}
    assert set(parameters(plain, *pair)) == set(rest)
    entered = [
        encoding.replace(
            tokens=np.asarray(encoding.tokens, np.float64) @ np.asarray(maps[name]["kernel"])
            + np.asarray(maps[name]["bias"])
        )
        for name, encoding in zip(("image_in", "text_in"), pair, strict=True)
    ]
    entered = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), entered)
    found = mapped.apply({"params": params}, *pair)
    expected = plain.apply({"params": rest}, *entered)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


OWN = dict(class_token=True, projected=True, normalised=False)  # what FLAVA's stream has


def with_unnormalised(encoding, seed):
    tokens = (
        np.random.default_rng(seed)
        .normal(size=encoding.tokens.shape[:2] + (WIDTH,))
        .astype(np.float32)
    )
    return encoding.replace(unnormalised=jnp.asarray(tokens))


@pytest.mark.full
def test_a_stream_with_a_class_token_pools_it_behind_the_final_norms_and_linear_maps():
    module = fusion_of("merged", **OWN)
    image, text = (with_unnormalised(encoding, seed) for seed, encoding in enumerate(encodings()))
    params = parameters(module, image, text)
    assert {"class_token", "image_in", "text_in"} <= set(params) and not {
        "image_type",
        "text_type",
    } & set(params)
    fused = module.apply({"params": params}, image, text)
    assert fused.tokens.shape == (3, 6, WIDTH) and fused.image_tokens.shape == (3, 5, WIDTH)
    other = module.apply(
        {"params": params},
        image.replace(tokens=image.tokens + 1.0),
        text.replace(tokens=text.tokens + 1.0),
    )
    jax.tree.map(np.testing.assert_array_equal, other, fused)

    def entered(encoding, name):
        return encoding.unnormalised @ params[name]["kernel"] + params[name]["bias"]

    x = jnp.concatenate(
        [
            jnp.broadcast_to(params["class_token"], (3, 1, WIDTH)),
            entered(image, "image_in"),
            entered(text, "text_in"),
        ],
        axis=1,
    )
    mask = np.concatenate([np.ones((3, 6), bool), text.mask], axis=1)
    stream = Transformer(module.options).apply(
        {"params": params["transformer"]}, x, AttentionInputs(mask=mask)
    )
    stream = module.options.normalisation(None).apply({"params": params["norm"]}, stream)
    pooled = np.tanh(stream[:, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"])
    np.testing.assert_allclose(fused.pooled, pooled, atol=1e-5)
    np.testing.assert_allclose(fused.image_tokens, stream[:, 1:6], atol=1e-5)
    np.testing.assert_allclose(fused.tokens, stream[:, 6:], atol=1e-5)


@pytest.mark.full
def test_padding_changes_nothing_beside_a_class_token():
    module = fusion_of("merged", class_token=True, projected=True)
    params = parameters(module, *encodings())
    fused = [module.apply({"params": params}, *encodings(padding=padding)) for padding in (0, 4)]
    np.testing.assert_allclose(fused[1].pooled, fused[0].pooled, atol=1e-5)
    np.testing.assert_allclose(fused[1].image_tokens, fused[0].image_tokens, atol=1e-5)


def test_a_stack_without_layers_gives_its_input_scanned_or_not():
    x = jnp.asarray(RNG.normal(size=(2, 3, 8)), jnp.float32)
    for scan in (False, True):
        module = Transformer(LayerOptions(8, 2, 8, depth=0, initialization="clip"), 0.1, scan)
        assert "params" not in module.init(jax.random.key(0), x)
        np.testing.assert_array_equal(module.apply({}, x), x)
        pool_position = jnp.array([1, 2])
        np.testing.assert_array_equal(
            module.apply({}, x, AttentionInputs(pool_position=PoolPosition(pool_position))),
            x[jnp.arange(2), pool_position][:, None],
        )


def model_config(**fusion):
    config = base()
    config.update(
        steps=1,
        objectives=dict(
            pairs=dict(kind="matching", negatives="uniform") if fusion else dict(kind="clip")
        ),
    )
    tower = dict(preset="Ti", width=8, depth=0, heads=2, mlp_dim=8)
    config.model.image.update(tower, patch_size=4, image_size=8)
    config.model.text.update(tower, vocab_size=20, length=5, causal=False, pooling="cls")
    config.model.fusion = dict(fusion) or None
    return to_config(config.to_dict()).model


@pytest.mark.full
def test_towers_without_layers_and_a_merged_stream_make_a_model():
    model = VisionLanguageModel(
        model_config(kind="merged", preset="Ti", width=8, depth=1, heads=2, mlp_dim=8), Precision()
    )
    pixels, words = jnp.ones((2, 8, 8, 3)), jnp.ones((2, 5), jnp.int32)

    def fused(model, train=False):
        return model.fuse(
            model.encode_image(pixels), model.encode_text(words), train
        ), model.word_table()

    (encoding, table), variables = model.init_with_output(jax.random.key(0), method=fused)
    assert (
        encoding.tokens.shape == (2, 6, 8)
        and encoding.image_tokens.shape == (2, 5, 8)
        and table.shape == (20, 8)
    )
    assert (
        "transformer" not in variables["params"]["image"]
        and "transformer" not in variables["params"]["text"]
    )


def test_fusing_without_a_fusion_and_scanning_two_streams_are_config_errors():
    model, encoding = VisionLanguageModel(model_config(), Precision()), Encoding(None, None, None)
    with pytest.raises(ConfigError, match="model.fusion: .* needs one"):
        model.init(jax.random.key(0), encoding, encoding, method="fuse")
    with pytest.raises(ConfigError, match="model.fusion.scan"):
        fusion_of("co_attention", scan=True)


@pytest.mark.full
@pytest.mark.parametrize(
    "how", [{}, dict(scan=True), dict(rematerialisation="full")], ids=["loop", "scan", "remat"]
)
def test_the_weights_of_attention_are_there_for_who_asks_and_cost_nobody_else(how):
    module = fusion_of("cross_attention", **how)
    image, text = encodings()
    params = parameters(module, image, text)
    assert module.init(jax.random.key(0), image, text).keys() == {"params"}
    fused, asked = module.apply({"params": params}, image, text, mutable="attention")
    np.testing.assert_allclose(
        fused.tokens, module.apply({"params": params}, image, text).tokens, atol=1e-6
    )
    layers = asked["attention"]["transformer"]
    stacked = [layers["layers"]] if "scan" in how else [layers["layer_0"], layers["layer_1"]]
    for name, seen in (
        ("attention", np.broadcast_to(np.asarray(text.mask)[:, None, None], (3, 2, 6, 6))),
        ("cross", np.ones((3, 2, 6, 5), bool)),
    ):
        weights = np.concatenate(
            [np.asarray(layer[name]["weights"][0]).reshape(-1, *seen.shape) for layer in stacked]
        )
        assert weights.shape == (2, *seen.shape) and weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
        assert (weights[:, ~seen] == 0).all() and (weights[:, seen] > 0).all()

    def program(**asking):
        return counted_flops(
            jax.make_jaxpr(lambda params: module.apply({"params": params}, image, text, **asking))(
                params
            ).jaxpr
        )

    assert program() < program(mutable="attention")
    assert program() == program(mutable="cache")


@pytest.mark.full
def test_the_attention_of_a_whole_model_is_found_by_the_names_of_its_parts():
    config = model_config(kind="cross_attention", preset="Ti", width=8, depth=1, heads=2, mlp_dim=8)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, depth=1))
    model = VisionLanguageModel(config, Precision())
    pixels, words = jnp.ones((2, 8, 8, 3)), jnp.ones((2, 5), jnp.int32)

    def fused(model):
        return model.fuse(model.encode_image(pixels), model.encode_text(words)).pooled

    variables = model.init(jax.random.key(0), method=fused)
    assert variables.keys() == {"params"}
    _, asked = jax.jit(lambda variables: model.apply(variables, method=fused, mutable="attention"))(
        variables
    )
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(asked["attention"])
    }
    assert shapes == {
        "text/transformer/layer_0/attention/weights/0": (2, 2, 6, 6),
        "fusion/transformer/layer_0/attention/weights/0": (2, 2, 6, 6),
        "fusion/transformer/layer_0/cross/weights/0": (2, 2, 6, 5),
    }
