"""Relevance and word attention of models in which image and text meet, from their recorded
attention, written out step by step."""

import numpy as np
import pytest

import vlp_jax
from vlp_jax.config import load_config
from vlp_jax.explain.explained import explained
from vlp_jax.explain.relevance import RelevanceConfig
from vlp_jax.explain.route import IMAGE, TEXT, Route, Step, route_of
from vlp_jax.explain.score import ScoreConfig
from vlp_jax.explain.word_attention import WordAttentionConfig

TEXTS = ["a red cat", "two dogs on grass"]


def pairs_of(name, kind, **arrays):
    model, variables, preprocessor = vlp_jax.create_model(f"configs/{name}.py:smoke")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in TEXTS]
    if kind == "caption":
        mask = preprocessor(texts=TEXTS)["text_mask"]
        arrays["predicted"] = mask & (np.arange(mask.shape[1]) > 0)
    return explained(model, variables, images, TEXTS, ScoreConfig.of(kind), **arrays)


def cam(pairs, path, row, call=-1):
    weights = pairs.attention[path][call][row]
    return np.maximum(weights * pairs.attention_gradients[path][call][row], 0).mean(axis=0)


def bar(matrix):
    rest = matrix - np.eye(len(matrix))
    total = rest.sum(axis=1, keepdims=True)
    return np.where(total > 0, rest / np.where(total > 0, total, 1), 0) + np.eye(len(matrix))


@pytest.fixture(scope="module")
def albef():
    return pairs_of("albef", "matching")


@pytest.mark.full
def test_relevance_through_cross_attention_is_that_written_out(albef):
    """Equations 6 to 11 of Chefer et al. 2021, a layer at a time."""
    found = RelevanceConfig().maps(albef)
    length = albef.batch["text"].shape[1]
    for row in range(len(TEXTS)):
        images, texts, crossed = np.eye(17), np.eye(length), np.zeros((length, 17))
        for layer in range(2):
            images = (
                images
                + cam(albef, f"model/image/transformer/layer_{layer}/attention", row) @ images
            )
            texts = (
                texts + cam(albef, f"model/text/transformer/layer_{layer}/attention", row) @ texts
            )
        for layer in range(2):
            own = cam(albef, f"model/fusion/transformer/layer_{layer}/attention", row)
            crossed, texts = crossed + own @ crossed, texts + own @ texts
            other = cam(albef, f"model/fusion/transformer/layer_{layer}/cross", row)
            crossed = crossed + bar(texts).T @ other @ bar(images)
        expected = crossed[0, 1:].reshape(4, 4)
        assert expected.max() > 0
        np.testing.assert_allclose(found[row], expected, rtol=1e-9)


@pytest.mark.full
def test_word_attention_is_grad_cam_of_the_cross_attention(albef):
    method = WordAttentionConfig(layer=1)
    found = method.word_maps(albef)
    for row in range(len(TEXTS)):
        expected = cam(albef, "model/fusion/transformer/layer_1/cross", row)[:, 1:]
        np.testing.assert_allclose(found[row].reshape(len(expected), -1), expected, rtol=1e-9)
    words = albef.batch["text_mask"] & ~np.isin(albef.batch["text"], albef.special_ids)
    assert words.sum(axis=1).min() >= 2
    mean = found[1][words[1]].mean(axis=0)
    np.testing.assert_allclose(method.maps(albef)[1], mean, rtol=1e-9)


@pytest.mark.full
def test_gradients_of_the_attention_are_those_of_the_score(albef):
    """The first-order change of the score by a change of all attention weights."""
    import jax
    import jax.numpy as jnp

    from vlp_jax.explain.explained import scored

    def tree_of(values):
        found = {}
        for path, calls in values.items():
            node = found
            for name in path.split("/"):
                node = node.setdefault(name, {})
            node["weights"] = tuple(jnp.asarray(call, jnp.float32) for call in calls)
        return found

    rng = np.random.default_rng(0)
    change = {
        path: [rng.normal(size=call.shape) for call in calls]
        for path, calls in albef.attention.items()
    }

    def score(step):
        offset = jax.tree.map(lambda leaf: step * leaf, tree_of(change))
        values, _ = scored(
            albef.module,
            albef.score,
            {**albef.variables, "attention_offset": offset},
            dict(albef.batch),
            mutable=["attention"],
        )
        return values

    slope = np.asarray(jax.jvp(score, (0.0,), (1.0,))[1], np.float64)
    expected = sum(
        (change[path][0] * albef.attention_gradients[path][0]).sum(axis=(1, 2, 3))
        for path in change
    )
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("blip", "matching"),
        ("blip", "caption"),
        ("meter", "matching"),
        ("vilt", "matching"),
        ("coca_b16", "caption"),
        ("simvlm", "caption"),
    ],
)
def test_relevance_passes_through_every_fusion_and_decoder(name, kind):
    pairs = pairs_of(name, kind)
    assert RelevanceConfig().lacks(pairs.config, pairs.score) is None
    found = RelevanceConfig().maps(pairs)
    side = pairs.config.model.image.side
    assert found.shape == (2, side, side) and np.isfinite(found).all() and found.min() >= 0
    assert np.ptp(found, axis=(1, 2)).min() > 0


def test_a_co_attention_layer_reads_the_other_stream_as_it_was_before():
    config = load_config("configs/meter.py:smoke")
    layer = route_of(config, ScoreConfig.of("matching")).layers[0]
    assert layer == (
        Step("model/fusion/image_layer_0/attention", IMAGE),
        Step("model/fusion/image_layer_0/cross", IMAGE, TEXT),
        Step("model/fusion/text_layer_0/attention", TEXT),
        Step("model/fusion/text_layer_0/cross", TEXT, IMAGE),
    )


def test_routes_exist_only_through_attention():
    assert isinstance(route_of(load_config("configs/albef.py"), ScoreConfig.of("matching")), Route)
    caption = ScoreConfig.of("caption")
    assert route_of(load_config("configs/vgg16_lstm_caption.py"), caption) is None
    assert "vit" in RelevanceConfig().lacks(load_config("configs/vgg16_lstm_caption.py"), caption)
