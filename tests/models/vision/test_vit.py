"""The image tower: stems, positions, pooling, registers, token dropping, and sizes that others
published."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.attention import rotate
from vlp_jax.models.layers.positions import grid_buckets, rotary2d, rotary2d_unit, sincos2d
from vlp_jax.models.layers.transformer import AttentionPooling, Precision
from vlp_jax.models.options import LayerOptions
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViT, ViTConfig, kept_tokens
from vlp_jax.models.vision_language import VisionLanguageModel

SIZE = dict(width=16, heads=2, mlp_dim=24, depth=2, image_size=16, patch_size=4)
KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


def vit(**fields):
    return ViT(ViTConfig(**SIZE | fields))


def parameters(module):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng = np.random.default_rng(2)
    shapes = nn.meta.unbox(jax.eval_shape(module.init, KEY, IMAGES))["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            (path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        (dict(pooling="cls"), 17),
        (dict(pooling="mean"), 16),
        (dict(pooling="map"), 16),
        (dict(pooling="none"), 16),
        (dict(pooling="cls", registers=3, embedding_norm=True), 20),
        (dict(pooling="mean", registers=3), 19),
        (dict(pooling="map", registers=1, norm_before_pooling=False), 17),
        (dict(pooling="mean", norm_before_pooling=False, patch_bias=False), 16),
        (dict(pooling="mean", position="sincos2d"), 16),
        (dict(pooling="cls", position="factorised"), 17),
        (dict(pooling="cls", position="rotary2d", registers=2, token_drop=0.5), 19),
        (dict(pooling="map", norm_kind="rms", activation="swiglu"), 16),
        (dict(pooling="mean", stem="convolution", stem_channels=(8, 12), stem_strides=(2, 2)), 16),
        (dict(pooling="map", norm="post", qk_norm=True, layer_scale=0.1), 16),
        (dict(pooling="cls", class_tokens=2, pooler=True, registers=1), 19),
        (dict(pooling="mean", norm_pooled=True, norm_kind="rms"), 16),
        (dict(pooling="mean", class_tokens=1, position="none", position_bias="shared"), 17),
        (dict(pooling="cls", position_bias="layers", registers=2), 19),
        (dict(pooling="cls", position="rotary2d_unit", registers=2), 19),
        (
            dict(
                pooling="map",
                class_tokens=1,
                map_tokens="all",
                query_heads=4,
                query_mlp_dim=20,
                position="learned_rotary2d",
                rotary_temperature=1e4,
                rotary_offset=1.0,
                rotary_grid=3,
            ),
            17,
        ),
    ],
)
def test_every_option_runs_and_reaches_every_parameter(fields, tokens):
    module = vit(**fields)
    params = parameters(module)

    def loss(params):
        encoding = module.apply({"params": params}, IMAGES)
        output = encoding.tokens if fields["pooling"] == "none" else encoding.pooled
        return (
            output * jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape)
        ).sum(), encoding

    gradients, encoding = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert encoding.tokens.shape == (2, tokens, 16) and encoding.mask is None
    assert (
        encoding.pooled is None if fields["pooling"] == "none" else encoding.pooled.shape == (2, 16)
    )
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    dead = [
        name
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not 1e-5 * largest < float(jnp.abs(leaf).max()) < math.inf
        for name in [jax.tree_util.keystr(path, simple=True, separator="/")]
        # softmax does not see what all keys share
        if not name.endswith(("key/bias", "key_norm/bias"))
    ]
    assert dead == []


def test_mean_pooling_leaves_registers_out_and_class_pooling_takes_the_class_token():
    for pooling, expected in (
        ("mean", lambda x: x[:, :16].mean(axis=1)),
        ("cls", lambda x: x[:, 0]),
    ):
        module = vit(pooling=pooling, registers=2)
        encoding = jax.jit(module.apply)({"params": parameters(module)}, IMAGES)
        np.testing.assert_allclose(encoding.pooled, expected(encoding.tokens), atol=1e-6)


def test_patches_are_squares_of_the_image_in_reading_order():
    module = vit(pooling="none")
    params = parameters(module)

    def patches(images):
        _, captured = module.apply(
            {"params": params}, images, capture_intermediates=True, mutable=["intermediates"]
        )
        return captured["intermediates"]["patch_embedding"]["__call__"][0]

    changed = np.abs(patches(IMAGES.at[0, 5, 10].add(1.0)) - patches(IMAGES)).max(axis=-1)
    # image 0, row 1 and column 2 of the 4x4 grid
    assert np.argwhere(changed).tolist() == [[0, 1 * 4 + 2]]


def test_sincos2d_is_the_formula():
    side, width = 3, 8
    table = sincos2d(side, width)
    for row in range(side):
        for column in range(side):
            # width / 4 frequencies, from 1 towards 1 / temperature
            angles = [1.0, 10_000.0**-0.5]
            expected = [
                f(place * angle)
                for place in (column, row)
                for f in (math.sin, math.cos)
                for angle in angles
            ]
            np.testing.assert_allclose(table[row * side + column], expected, atol=1e-7)


@pytest.mark.parametrize("position", ["sincos2d", "rotary2d"])
def test_fixed_positions_are_no_parameter(position):
    assert "position" not in parameters(vit(pooling="mean", position=position))


def test_rotary_logits_depend_on_how_far_apart_two_patches_are_and_on_nothing_else():
    """Turned by complex multiplication in float64; and patches as far apart along both axes have
    the same product."""
    side, heads, head_dim = 4, 2, 8
    q, k = np.random.default_rng(0).normal(size=(2, heads * head_dim)).astype(np.float32)
    angles = rotary2d(side, head_dim)
    everywhere = np.broadcast_to(q, (1, side**2, heads * head_dim))
    turned = np.asarray(
        rotate(jnp.asarray(everywhere), jnp.asarray(angles)[None], heads=heads)
    ).reshape(side**2, heads, head_dim)
    points = q.reshape(heads, head_dim).astype(np.float64)
    frequencies = 100.0 ** -(np.arange(2) / 2)
    for row, column in ((0, 0), (1, 3), (3, 2)):
        turn = np.exp(1j * np.concatenate([column * frequencies, row * frequencies]))
        expected = (points[:, :4] + 1j * points[:, 4:]) * turn
        np.testing.assert_allclose(
            turned[row * side + column],
            np.concatenate([expected.real, expected.imag], axis=1),
            atol=1e-5,
        )
    other = np.asarray(
        rotate(jnp.broadcast_to(k, everywhere.shape), jnp.asarray(angles)[None], heads=heads)
    ).reshape(turned.shape)
    logits = np.einsum("nhk,mhk->hnm", turned, other).reshape(heads, side, side, side, side)
    np.testing.assert_allclose(logits[:, 1, 1, 2, 3], logits[:, 0, 0, 1, 2], atol=1e-5)
    assert np.abs(logits[:, 1, 1, 2, 3] - logits[:, 1, 1, 3, 2]).max() > 1e-2


@pytest.mark.full
@pytest.mark.parametrize(
    "fields",
    [
        dict(pooling="cls"),
        dict(pooling="cls", position="rotary2d", registers=2),
        dict(pooling="map"),
    ],
)
def test_without_tokens_the_pooled_vector_is_the_same(fields):
    module = vit(**fields)
    params = parameters(module)
    encoding = module.apply({"params": params}, IMAGES, tokens=False)
    assert encoding.tokens is None
    np.testing.assert_allclose(
        encoding.pooled, module.apply({"params": params}, IMAGES).pooled, atol=1e-5
    )


def test_token_dropping_keeps_the_right_number_of_different_tokens_of_each_image():
    for rate, count in ((0.5, 8), (0.75, 4), (0.3, 11), (0.99, 1)):
        kept = np.asarray(kept_tokens(KEY, 32, 16, rate))
        assert kept.shape == (32, count)
        assert all(len(np.unique(row)) == count for row in kept)
    halves = np.asarray(kept_tokens(KEY, 32, 16, 0.5))
    assert len({tuple(sorted(row)) for row in halves}) == 32  # not the same ones for every image
    # four deviations
    assert np.abs(np.bincount(halves.ravel(), minlength=16) / 32 - 0.5).max() < 0.36


@pytest.mark.full
def test_tokens_are_dropped_in_training_only_and_never_the_class_token_or_registers():
    module = vit(pooling="cls", registers=2, token_drop=0.5)
    params = parameters(module)
    trained = module.apply({"params": params}, IMAGES, True, rngs={"dropout": KEY})
    assert trained.tokens.shape == (2, 1 + 8 + 2, 16)
    evaluated = module.apply({"params": params}, IMAGES)
    assert evaluated.tokens.shape == (2, 1 + 16 + 2, 16)
    np.testing.assert_array_equal(
        evaluated.pooled, vit(pooling="cls", registers=2).apply({"params": params}, IMAGES).pooled
    )


@pytest.mark.full
def test_dropped_tokens_take_their_positions_with_them():
    module = vit(pooling="mean", token_drop=0.5)
    # what is left of a token is its normalised position
    params = jax.tree.map(jnp.zeros_like, parameters(module))
    params |= {
        "position": jnp.eye(16)[None],
        "norm": {"scale": jnp.ones(16), "bias": jnp.zeros(16)},
    }
    tokens = np.asarray(
        module.apply({"params": params}, IMAGES, True, rngs={"dropout": KEY}).tokens
    )
    assert all(len(set(row.argmax(axis=-1))) == 8 for row in tokens)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="16x16"):
        vit().init(KEY, jnp.ones((1, 20, 20, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image_size=18), "does not divide into patches of 4"),
        (dict(pooling="none"), "model.image.pooling"),
        (dict(stem="convolution", stem_channels=(8, 8), stem_strides=(2, 3)), "multiply to 6"),
        (dict(stem="convolution", stem_channels=(8,), stem_strides=(2, 2)), "one entry for each"),
        (dict(position="sincos2d", width=18), "divides by 4"),
        (dict(heads=5), "does not divide into 5 heads"),
        (dict(pooling="map", query_heads=3), "query_heads: 16 does not divide into 3 heads"),
        (dict(position="learned_rotary2d", heads=8), "divides by 4, got 2"),
        (dict(preset="XXL/4"), "unknown size 'XXL'"),
        (dict(patch_size=None, preset="Ti"), "names none"),
    ],
)
def test_sizes_that_do_not_fit_are_config_errors(change, message):
    tower = ViTConfig(
        **{**dict(preset="Ti", width=16, heads=2, image_size=16, patch_size=4), **change}
    )
    with pytest.raises(ConfigError, match=message):
        tower.build(Precision())


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.variants
# timm's vit_*_patch16_224 (H: vit_huge_patch14_224) without classifier
@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("Ti/16", 5_524_416),
        ("S/16", 21_665_664),
        ("B/16", 85_798_656),
        ("B/32", 87_455_232),
        ("L/16", 303_301_632),
        ("H/14", 630_764_800),
    ],
)
def test_presets_have_the_published_number_of_parameters(preset, published):
    module = ViTConfig(preset=preset, scan=True).build(Precision())
    shapes = jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert count(shapes) == published


# OpenCLIP's ViT-*, less the logit scale
@pytest.mark.parametrize(
    ("image", "text", "dim", "published"),
    [
        ("B/32", "clip-B", 512, 151_277_313 - 1),
        ("B/16", "clip-B", 512, 149_620_737 - 1),
        ("L/14", "clip-L", 768, 427_616_513 - 1),
        ("g/14", "clip-g", 1024, 1_366_678_273 - 1),
    ],
)
def test_clip_has_the_published_number_of_parameters(image, text, dim, published):
    image = ViTConfig(preset=image, scan=True, embedding_norm=True, patch_bias=False)
    assert (
        count_model(
            ModelConfig(
                image=image, text=TextTransformerConfig(preset=text, scan=True), embedding_dim=dim
            )
        )
        == published
    )


@pytest.mark.parametrize(
    ("preset", "size", "published"),
    [  # google/siglip-* less scale and bias
        ("B/16", 224, 203_155_970 - 2),
        ("L/16", 256, 652_150_786 - 2),
        ("So400m/14", 224, 877_415_602 - 2),
    ],
)
def test_siglip_has_the_published_number_of_parameters(preset, size, published):
    image = ViTConfig(preset=preset, scan=True, image_size=size, pooling="map", projection="none")
    text = TextTransformerConfig(
        preset=preset,
        scan=True,
        vocab_size=32_000,
        length=64,
        causal=False,
        pooling="last",
        projection="linear_with_bias",
    )
    assert count_model(ModelConfig(image=image, text=text)) == published


def count_model(config):
    size = config.image.image_size
    return count(
        jax.eval_shape(
            VisionLanguageModel(config, Precision()).init,
            KEY,
            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
            jax.ShapeDtypeStruct((1, config.text.length), jnp.int32),
        )
    )


def test_rotary2d_of_another_grid_is_the_formula():
    side, head_dim = 4, 8
    angles = rotary2d(side, head_dim, temperature=1e4, offset=1.0, reference=6)
    for row in range(side):
        for column in range(side):
            expected = [
                (place + 1) / side * 6 * 1e4 ** (-i / 2) for place in (column, row) for i in (0, 1)
            ]
            np.testing.assert_allclose(angles[row * side + column], expected, rtol=1e-6)


def test_positions_that_are_learned_and_rotary_are_the_sum_of_both():
    """With learned positions of 0 they are rotary ones; with equal ones there is a difference."""
    rotary, both = (
        vit(pooling="mean", position="rotary2d"),
        vit(pooling="mean", position="learned_rotary2d"),
    )
    params = parameters(both)
    without = {key: value for key, value in params.items() if key != "position"}
    expected = rotary.apply({"params": without}, IMAGES).pooled
    zero = {**params, "position": jnp.zeros_like(params["position"])}
    np.testing.assert_array_equal(both.apply({"params": zero}, IMAGES).pooled, expected)
    assert np.abs(both.apply({"params": params}, IMAGES).pooled - expected).max() > 1e-2


def test_an_offset_of_rotary_positions_moves_patches_from_tokens_without_a_place():
    for front, equal in ((0, True), (1, False)):
        fields = dict(pooling="mean", position="rotary2d", class_tokens=front)
        params = parameters(vit(**fields))
        here, moved = (
            vit(**fields, rotary_offset=offset).apply({"params": params}, IMAGES).pooled
            for offset in (0.0, 2.0)
        )
        assert np.allclose(here, moved, atol=1e-4) == equal


@pytest.mark.full
def test_the_query_of_pooling_attends_to_patches_or_to_all_tokens():
    """With heads and an MLP of its own; compared with the pooling of the tokens themselves."""
    for seen, taken in (("patches", slice(1, 17)), ("all", slice(None))):
        fields = dict(pooling="map", class_tokens=1, registers=1, query_heads=4, query_mlp_dim=20)
        module = vit(**fields, map_tokens=seen)
        params = parameters(module)
        assert params["pooling_head"]["mlp"]["in"]["kernel"].shape == (16, 20)
        assert params["pooling_head"]["attention"]["query"]["kernel"].shape == (16, 4, 4)
        encoding = module.apply({"params": params}, IMAGES)
        options = LayerOptions(width=16, heads=4, mlp_dim=20)
        expected = AttentionPooling(options).apply(
            {"params": params["pooling_head"]}, encoding.tokens[:, taken]
        )
        np.testing.assert_allclose(encoding.pooled, expected, atol=1e-5)


def test_rotary2d_unit_is_the_formula():
    side, head_dim = 3, 8
    angles = rotary2d_unit(side, head_dim)
    for row in range(side):
        for column in range(side):
            y, x = (2 * (place + 0.5) / side - 1 for place in (row, column))
            expected = [
                2 * math.pi * coordinate * 100.0 ** (-i / 2)
                for coordinate in (y, x)
                for i in range(head_dim // 4)
            ]
            np.testing.assert_allclose(angles[row * side + column], expected, rtol=1e-6, atol=1e-6)


def test_a_grid_s_buckets_are_those_of_offsets_and_three_for_other_tokens():
    side, before, after = 3, 2, 1
    found = grid_buckets(side, before, after)
    places = [None] * before + [(i // side, i % side) for i in range(side**2)] + [None] * after
    offsets = (2 * side - 1) ** 2
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            if query is None or key is None:
                expected = offsets + (2 if query is key else 0 if query is None else 1)
            else:
                down, across = (a - b + side - 1 for a, b in zip(query, key, strict=True))
                expected = down * (2 * side - 1) + across
            assert found[i, j] == expected


def plain_attention_output(x, params, heads, bias):
    """Self-attention of [N, D] by float64 NumPy, with a bias [H, N, N]."""
    q, k, v = (
        np.einsum("nd,dhk->hnk", x, params[name]["kernel"]) + params[name]["bias"][:, None]
        for name in ("query", "key", "value")
    )
    logits = np.einsum("hnk,hmk->hnm", q, k) / math.sqrt(q.shape[-1]) + bias
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    attended = np.einsum("hnm,hmk->nhk", weights / weights.sum(-1, keepdims=True), v)
    return np.einsum("nhk,hkd->nd", attended, params["out"]["kernel"]) + params["out"]["bias"]


@pytest.mark.parametrize("kind", ["shared", "layers"])
@pytest.mark.parametrize("kept", [None, [[3, 0, 9, 14], [1, 2, 15, 7]]], ids=["all", "kept"])
def test_position_biases_are_those_of_the_table_in_float64(kind, kept):
    module = vit(position_bias=kind, registers=1, position="none")
    params = parameters(module)
    kept = None if kept is None else jnp.asarray(kept)
    _, captured = module.apply(
        {"params": params}, IMAGES, kept=kept, capture_intermediates=True, mutable="intermediates"
    )
    layer = captured["intermediates"]["transformer"]["layer_0"]
    double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table = (
        double["position_bias"]
        if kind == "shared"
        else (double["transformer"]["layer_0"]["position_bias"])
    )
    buckets = grid_buckets(4, 1, 1)
    for row in range(2):
        places = np.arange(18) if kept is None else np.array([0, *(kept[row] + 1), 17])
        bias = table[buckets[places[:, None], places]].transpose(2, 0, 1)
        x = np.asarray(layer["attention_norm"]["__call__"][0][row], np.float64)
        expected = plain_attention_output(
            x, double["transformer"]["layer_0"]["attention"], SIZE["heads"], bias
        )
        np.testing.assert_allclose(
            layer["attention"]["__call__"][0][row], expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("fields", [dict(position_bias="layers"), dict(position_bias="shared")])
def test_a_bias_of_the_one_pooled_token_is_that_of_all_tokens(fields):
    module = vit(pooling="cls", pooler=True, class_tokens=2, **fields)
    params = parameters(module)
    kept = jnp.asarray([[3, 0, 9, 14], [1, 2, 15, 7]])
    for chosen in (None, kept):
        whole, alone = (
            module.apply({"params": params}, IMAGES, tokens=tokens, kept=chosen).pooled
            for tokens in (True, False)
        )
        np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)


def test_the_first_class_token_pools_and_the_pooler_is_a_linear_layer_and_tanh():
    module = vit(pooling="cls", class_tokens=2, pooler=True)
    params = parameters(module)
    encoding = module.apply({"params": params}, IMAGES)
    dense = params["pooler"]
    expected = np.tanh(
        np.asarray(encoding.tokens[:, 0], np.float64) @ np.asarray(dense["kernel"], np.float64)
        + np.asarray(dense["bias"], np.float64)
    )
    np.testing.assert_allclose(encoding.pooled, expected, rtol=1e-5, atol=1e-6)


def normed(x, params, epsilon=1e-6):
    """A LayerNorm in float64."""
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * np.asarray(params["scale"], np.float64) + np.asarray(params["bias"], np.float64)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_norm_pooled_norms_the_pooled_vector_with_the_parameters_of_the_final_norm(pooling):
    module = vit(pooling=pooling, norm_pooled=True)
    params = parameters(module)
    encoding = module.apply({"params": params}, IMAGES)
    plain = vit(pooling=pooling).apply({"params": params}, IMAGES)
    np.testing.assert_array_equal(encoding.tokens, plain.tokens)
    pooled = normed(plain.unnormalised, params["norm"])
    pooled = pooled[:, 0] if pooling == "cls" else pooled.mean(axis=1)
    np.testing.assert_allclose(plain.pooled, pooled, rtol=1e-5, atol=1e-5)
    expected = normed(pooled, params["norm"])
    np.testing.assert_allclose(encoding.pooled, expected, rtol=1e-5, atol=1e-5)
    alone = module.apply({"params": params}, IMAGES, tokens=False)
    np.testing.assert_allclose(alone.pooled, expected, rtol=1e-5, atol=1e-5)


def test_class_pooling_without_a_class_token_is_a_config_error():
    with pytest.raises(ConfigError, match="class_tokens: pooling='cls' needs one or more"):
        ViTConfig(**SIZE, pooling="cls", class_tokens=0).build(Precision())
