"""The text tower: what padding may not change, what an empty caption gives, and where each pooling
looks."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformer, TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.models.vision_language import VisionLanguageModel, unit

KEY = jax.random.key(0)
LENGTHS = np.array([6, 4, 2])
TEXT = np.random.default_rng(1).integers(0, 20, (3, 6)).astype(np.int32)
MASK = np.arange(6) < LENGTHS[:, None]
WAYS = [
    (causal, pooling)
    for causal, pooling in itertools.product((True, False), ("end", "mean", "map", "cls"))
    if not (causal and pooling == "cls")
]


def tower(causal=False, pooling="end", scan=True, **fields):
    size = dict(width=16, heads=2, mlp_dim=24, depth=2, vocab_size=20, length=9)
    return TextTransformer(
        TextTransformerConfig(**size, causal=causal, pooling=pooling, scan=scan, **fields)
    )


def parameters(module):
    """Random values for every parameter, those that start at 0 or 1 included."""
    rng = np.random.default_rng(2)
    shapes = nn.meta.unbox(jax.eval_shape(module.init, KEY, TEXT))["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            (path[-1].key == "scale") + 0.5 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(module, params, text, mask=None):
    return module.apply({"params": params}, text, mask)


def pooled(module, params, text, mask):
    return encode(module, params, text, mask).pooled


def relative_error(a, b):
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


@pytest.mark.full
@pytest.mark.parametrize(("causal", "pooling"), WAYS)
def test_padding_never_changes_a_text_embedding(causal, pooling):
    module = tower(causal, pooling)
    params = parameters(module)
    expected = pooled(module, params, TEXT, MASK)
    np.testing.assert_array_equal(pooled(module, params, np.where(MASK, TEXT, 19), MASK), expected)
    wider = np.pad(TEXT, ((0, 0), (0, 3)), constant_values=7), np.pad(MASK, ((0, 0), (0, 3)))
    assert relative_error(pooled(module, params, *wider), expected) < 5e-6
    alone = TEXT[1:2, : LENGTHS[1]]  # in a batch of its own and without any padding
    assert relative_error(pooled(module, params, alone, None), expected[1:2]) < 5e-6


@pytest.mark.variants
@pytest.mark.parametrize(("causal", "pooling"), WAYS)
def test_every_real_token_changes_the_embedding_and_no_padding_does(causal, pooling):
    module = tower(causal, pooling)
    # [place, row, length]: one token is another
    changed = (TEXT[None] + np.eye(6, dtype=np.int32)[:, None]) % 20
    embeddings = pooled(
        module,
        parameters(module),
        np.concatenate([TEXT[None], changed]).reshape(-1, 6),
        np.tile(MASK, (7, 1)),
    )
    unchanged, *others = np.asarray(embeddings).reshape(7, 3, 16)
    differs = [(np.abs(other - unchanged).max(axis=1) > 1e-4).tolist() for other in others]
    assert differs == MASK.T.tolist()


@functools.partial(jax.jit, static_argnums=0)
def embeddings_and_gradients(module, params, mask):
    def loss(params):
        embeddings = unit(module.apply({"params": params}, TEXT, mask).pooled)
        return (
            embeddings * jnp.cos(jnp.arange(embeddings.size)).reshape(embeddings.shape)
        ).sum(), embeddings

    gradients, embeddings = jax.grad(loss, has_aux=True)(params)
    return embeddings, gradients


@pytest.mark.full
@pytest.mark.parametrize(("causal", "pooling"), [*WAYS, (True, "last"), (False, "last")])
def test_gradients_reach_every_parameter_and_are_finite_for_an_empty_caption(causal, pooling):
    module = tower(causal, pooling)
    params = parameters(module)
    for mask in (MASK, np.arange(6) < np.array([[6], [0], [0]])):
        embeddings, gradients = embeddings_and_gradients(module, params, mask)
        assert np.isfinite(embeddings).all()
        sizes = {
            jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.abs(leaf).max())
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        }
        assert all(np.isfinite(size) and size < 1e3 for size in sizes.values()), sizes
        dead = [name for name, size in sizes.items() if size <= 1e-5 * max(sizes.values())]
        # softmax does not see what all keys share
        assert all(name.endswith("key/bias") for name in dead), dead


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_tower_does_not_see_what_comes_later_and_a_bidirectional_one_does(causal):
    module = tower(causal, "last")
    params = parameters(module)
    changed = TEXT.copy()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    before, after = (encode(module, params, text).tokens for text in (TEXT, changed))
    earlier = float(jnp.abs(before[:, :4] - after[:, :4]).max())
    assert earlier == 0.0 if causal else earlier > 1e-3
    assert (jnp.abs(before[:, 4:] - after[:, 4:]).max(axis=(0, 2)) > 1e-3).all()


def test_each_pooling_takes_what_it_names():
    for pooling, expected in (
        ("end", lambda x: x[np.arange(3), LENGTHS - 1]),
        ("last", lambda x: x[:, -1]),
        ("mean", lambda x: (x * MASK[..., None]).sum(axis=1) / LENGTHS[:, None]),
        ("cls", lambda x: x[:, 0]),
    ):
        module = tower(pooling=pooling)
        encoding = encode(module, parameters(module), TEXT, MASK)
        assert (
            encoding.tokens.shape
            == (3, 7 if pooling == "cls" else 6, 16)
            == (*encoding.mask.shape, 16)
        )
        np.testing.assert_allclose(
            encoding.pooled, expected(np.asarray(encoding.tokens)), atol=1e-6
        )


@pytest.mark.full
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("pooling", ["end", "last", "first", "cls", "mean", "map"])
def test_without_tokens_the_pooled_vector_is_the_same(pooling, scan):
    module = tower(pooling=pooling, causal=pooling in ("end", "last"), scan=scan)
    params = parameters(module)
    encoding = module.apply({"params": params}, TEXT, MASK, tokens=False)
    assert encoding.tokens is None
    np.testing.assert_allclose(
        encoding.pooled, encode(module, params, TEXT, MASK).pooled, atol=1e-5
    )


def test_without_padding_mask_the_padding_is_read_as_siglip_does():
    module = tower(pooling="last", padding_mask=False)
    params = parameters(module)
    np.testing.assert_array_equal(
        pooled(module, params, TEXT, MASK), pooled(module, params, TEXT, None)
    )
    assert (
        np.abs(
            pooled(module, params, np.where(MASK, TEXT, 19), MASK)
            - pooled(module, params, TEXT, MASK)
        ).max()
        > 1e-3
    )


def test_a_missing_mask_means_that_all_is_real():
    module = tower(pooling="end")
    params = parameters(module)
    np.testing.assert_array_equal(
        pooled(module, params, TEXT, None), pooled(module, params, TEXT, np.ones_like(MASK))
    )


def test_a_class_token_in_front_of_causal_text_is_a_config_error():
    with pytest.raises(ConfigError, match="model.text.pooling: 'cls'"):
        TextTransformerConfig(causal=True, pooling="cls").build(Precision())


@pytest.mark.full
def test_embeddings_are_unit_vectors_and_zero_stays_zero():
    text = TextTransformerConfig(
        preset="Ti",
        width=16,
        depth=1,
        heads=2,
        mlp_dim=24,
        vocab_size=20,
        length=6,
        projection="linear",
    )
    image = ViTConfig(
        preset="Ti", width=16, depth=1, heads=2, mlp_dim=24, image_size=8, patch_size=4
    )
    module = VisionLanguageModel(ModelConfig(image=image, text=text, embedding_dim=10), Precision())
    images = jnp.ones((2, 8, 8, 3))
    for embeddings in jax.jit(module.init_with_output)(KEY, images, TEXT, MASK)[0]:
        assert embeddings.shape[1] == 10
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(unit(jnp.zeros((1, 4))), np.zeros((1, 4)))
    assert jnp.isfinite(jax.grad(lambda x: unit(x).sum())(jnp.zeros((1, 4)))).all()


def test_positions_begin_behind_the_offset():
    plain, later = tower(scan=False), tower(scan=False, position_offset=3)
    params = parameters(plain)
    front = np.ones((1, 3, 16), np.float32)
    moved = params | {"position": np.concatenate([front, params["position"]], axis=1)}
    assert jax.tree.map(np.shape, moved) == jax.tree.map(np.shape, parameters(later))
    np.testing.assert_array_equal(
        encode(later, moved, TEXT).tokens, encode(plain, params, TEXT).tokens
    )


@pytest.mark.parametrize("activation", ["tanh", "none"])
def test_a_pooler_is_a_linear_layer_of_its_own_width(activation):
    module = tower(scan=False, pooler=True, pooler_width=5, pooler_activation=activation)
    params = parameters(module)
    found = encode(module, params, TEXT)
    last = np.asarray(found.tokens, np.float64)[:, -1]
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["pooler"])
    expected = last @ dense["kernel"] + dense["bias"]
    expected = np.tanh(expected) if activation == "tanh" else expected
    np.testing.assert_allclose(found.pooled, expected, rtol=1e-5, atol=1e-6)
    assert module.config.pooled_width == 5
