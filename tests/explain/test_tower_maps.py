"""Maps of a tiny Vision Transformer and ResNet, against the whole tower in float64 NumPy with
gradients by differences, and against gradients taken by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vlp_jax
from vlp_jax.config import load_config
from vlp_jax.explain.attention_map import AttentionMapConfig
from vlp_jax.explain.explained import explained, unrolled_variables
from vlp_jax.explain.grad_cam import GradCamConfig, grad_cam
from vlp_jax.explain.occlusion import OcclusionConfig
from vlp_jax.explain.patch_similarity import PatchSimilarityConfig
from vlp_jax.explain.relevance import RelevanceConfig
from vlp_jax.explain.rollout import RolloutConfig
from vlp_jax.explain.score import ScoreConfig

SIDE, PATCH, HEADS, WIDTH, EPSILON = 16, 8, 2, 8, 1e-6
TOWER = dict(
    preset="Ti",
    width=WIDTH,
    depth=2,
    heads=HEADS,
    mlp_dim=12,
    image_size=SIDE,
    patch_size=PATCH,
    stem="patch",
    stem_channels=(),
    stem_strides=(),
    pooling="cls",
)


def tiny(**changed):
    settings = {**TOWER, **changed}
    overrides = [(f"model.image.{key}", str(value)) for key, value in settings.items()]
    config = load_config("configs/clip_emoji.py:smoke", overrides)
    return vlp_jax.create_model(config)


def pair_of(made, seed=0):
    model, variables, _ = made
    rng = np.random.default_rng(seed)
    # larger parameters than the initial ones, so that attention is uneven
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf) * 1.0, variables["params"])
    image = params["model"]["image"]
    scale = 6.0 if "transformer" in image else 1.0
    params["model"]["image"] = jax.tree.map(
        lambda leaf: leaf * scale if leaf.ndim >= 3 else leaf, image
    )
    image = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return explained(model, {**variables, "params": params}, [image], ["a cat"], ScoreConfig.of())


@pytest.fixture(scope="module")
def pair():
    return pair_of(tiny())


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    return x * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


class Tower:
    """The tower of TOWER and the cosine with a text, in float64."""

    def __init__(self, pair):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), pair.variables["params"])
        self.p, self.projection = params["model"]["image"], params["model"]["image_projection"]
        image = np.asarray(pair.batch["image"], np.float64)[0]
        side = SIDE // PATCH
        patches = image.reshape(side, PATCH, side, PATCH, 3).transpose(0, 2, 1, 3, 4)
        self.patches = patches.reshape(side * side, -1)
        text = pair.module.apply(
            pair.variables, None, pair.batch["text"], pair.batch["text_mask"], method="embed"
        )[1]
        self.text = np.asarray(text, np.float64)[0]

    def __call__(self, offsets=(0.0, 0.0)):
        """The score, and the attention of both layers [H, N, N]."""
        p, seen = self.p, []
        x = linear(self.patches, p["patch_embedding"]) + p["position"][0]
        x = np.concatenate([p["class_token"][0] + p["class_position"][0], x])
        for layer, offset in enumerate(offsets):
            own = p["transformer"][f"layer_{layer}"]
            y, a = layer_norm(x, own["attention_norm"]), own["attention"]
            q, k, v = (
                np.einsum("nd,dhk->hnk", y, a[name]["kernel"]) + a[name]["bias"][:, None]
                for name in ("query", "key", "value")
            )
            logits = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights = weights / weights.sum(-1, keepdims=True)
            seen.append(weights)
            out = np.einsum("hnk,hkd->nd", (weights + offset) @ v, a["out"]["kernel"])
            x = x + out + a["out"]["bias"]
            y = layer_norm(x, own["mlp_norm"])
            x = x + linear(gelu_tanh(linear(y, own["mlp"]["in"])), own["mlp"]["out"])
        pooled = layer_norm(x, p["norm"])[0] @ self.projection["kernel"]
        return pooled @ self.text / np.linalg.norm(pooled), seen

    def gradients(self, step=1e-5):
        """Central differences of the score with respect to the attention of each layer."""
        shapes = [weights.shape for weights in self()[1]]
        found = [np.zeros(shape) for shape in shapes]
        for layer, shape in enumerate(shapes):
            for place in np.ndindex(shape):
                moved = []
                for sign in (1, -1):
                    offsets = [np.zeros(each) for each in shapes]
                    offsets[layer][place] = sign * step
                    moved.append(self(offsets)[0])
                found[layer][place] = (moved[0] - moved[1]) / (2 * step)
        return found


@pytest.mark.full
def test_recorded_attention_and_gradients_are_those_of_the_whole_tower_in_numpy(pair):
    tower = Tower(pair)
    score, weights = tower()
    assert pair.scores[0] == pytest.approx(score, abs=1e-5)
    for layer, gradient in enumerate(tower.gradients()):
        path = f"model/image/transformer/layer_{layer}/attention"
        np.testing.assert_allclose(pair.attention[path][0][0], weights[layer], atol=1e-5)
        np.testing.assert_allclose(
            pair.attention_gradients[path][0][0], gradient, atol=1e-4 * np.abs(gradient).max()
        )
        assert np.ptp(weights[layer]) > 0.2  # uneven


def test_rollout_and_attention_are_those_in_numpy(pair):
    first, second = (weights.mean(axis=0) for weights in Tower(pair)()[1])
    identity = np.eye(5)
    expected = ((second + identity) / 2 @ ((first + identity) / 2))[0, 1:].reshape(2, 2)
    np.testing.assert_allclose(RolloutConfig().maps(pair)[0], expected, atol=1e-5)
    expected = second[0, 1:] / second[0, 1:].sum()
    np.testing.assert_allclose(AttentionMapConfig().maps(pair)[0].reshape(-1), expected, atol=1e-5)


def test_relevance_is_that_in_numpy(pair):
    tower = Tower(pair)
    relevance = np.eye(5)
    for weights, gradient in zip(tower()[1], tower.gradients(), strict=True):
        cam = np.maximum(weights * gradient, 0).mean(axis=0)
        relevance = relevance + cam @ relevance
    expected = relevance[0, 1:].reshape(2, 2)
    assert expected.max() > 1e-4
    np.testing.assert_allclose(
        RelevanceConfig().maps(pair)[0], expected, atol=1e-4 * expected.max()
    )


@pytest.mark.full
def test_an_offset_of_zero_changes_nothing_and_no_variable_is_added(pair):
    plain = pair.module.apply(pair.variables, pair.batch["image"], method="embed")[0]
    zeros = {"attention": {"weights": (jnp.zeros((1, HEADS, 5, 5)),)}}
    offset = {"model": {"image": {"transformer": {"layer_0": zeros, "layer_1": zeros}}}}
    found, state = pair.module.apply(
        {**pair.variables, "attention_offset": offset},
        pair.batch["image"],
        method=lambda bound, image: bound.model.encode_image(image).pooled,
        mutable=["attention"],
    )
    assert {*state} == {"attention"} and {*pair.variables} == {"params"}
    embedded = found @ pair.variables["params"]["model"]["image_projection"]["kernel"]
    embedded = embedded / jnp.linalg.norm(embedded)
    np.testing.assert_allclose(embedded, plain, atol=1e-5)


@pytest.mark.full
def test_scanned_and_recomputed_layers_have_the_maps_of_unrolled_ones(pair):
    model, _, _ = tiny(scan=True, rematerialisation="full")
    params = dict(pair.variables["params"])
    tower = dict(params["model"]["image"])
    layers = [tower["transformer"][f"layer_{layer}"] for layer in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    tower["transformer"] = {"layers": stacked}
    params["model"] = {**params["model"], "image": tower}
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    found = explained(model, {"params": params}, [image], ["a cat"], pair.score)
    for method in (RolloutConfig(), RelevanceConfig(), GradCamConfig()):
        np.testing.assert_allclose(method.maps(found), method.maps(pair), atol=1e-6)


def test_stacked_parameters_become_layers():
    found = unrolled_variables({"params": {"transformer": {"layers": {"w": np.arange(4)}}}})
    assert found == {"params": {"transformer": {f"layer_{i}": {"w": i} for i in range(4)}}}


@pytest.mark.full
def test_grad_cam_of_the_last_layer_is_that_by_hand():
    pair = pair_of(tiny(pooling="mean"))
    bound = pair.module.bind(pair.variables)
    encoding = bound.encode(dict(pair.batch), {"image"}, train=False)["image"]
    text = pair.module.apply(
        pair.variables, None, pair.batch["text"], pair.batch["text_mask"], method="embed"
    )[1]
    params = pair.variables["params"]["model"]

    def score(tokens):
        norm = params["image"]["norm"]
        x = (tokens - tokens.mean(-1, keepdims=True)) / jnp.sqrt(
            tokens.var(-1, keepdims=True) + EPSILON
        )
        pooled = (x * norm["scale"] + norm["bias"]).mean(axis=1)
        embedded = pooled @ params["image_projection"]["kernel"]
        return (embedded / jnp.linalg.norm(embedded) * text).sum()

    features = encoding.unnormalised
    assert pair.scores[0] == pytest.approx(float(score(features)), abs=1e-5)
    gradient = np.asarray(jax.grad(score)(features), np.float64)
    weights = gradient[0].mean(axis=0)
    expected = np.maximum(np.asarray(features, np.float64)[0] @ weights, 0).reshape(2, 2)
    found = GradCamConfig(layer=2).maps(pair)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(expected.max(), 1e-3))


def test_grad_cam_is_the_positive_part_of_the_weighted_sum():
    features = np.array([[[1.0, 2.0], [3.0, -1.0]]])
    gradients = np.array([[[1.0, 0.0], [0.0, -4.0]]])
    # alpha is (0.5, -2): 0.5 - 4 and 1.5 + 2
    assert grad_cam(features, gradients).tolist() == [[0.0, 3.5]]


@pytest.mark.full
def test_grad_cam_of_a_resnet_is_that_by_hand():
    model, variables, _ = vlp_jax.create_model(
        load_config("configs/clip_emoji_resnet.py:smoke", [("model.image.image_size", "32")])
    )
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    pair = explained(model, variables, [image], ["a cat"], ScoreConfig.of())
    tokens = pair.module.bind(pair.variables).encode(dict(pair.batch), {"image"}, train=False)
    tokens = tokens["image"].tokens
    kernel = pair.variables["params"]["model"]["image_projection"]["kernel"]
    text = pair.module.apply(
        pair.variables, None, pair.batch["text"], pair.batch["text_mask"], method="embed"
    )[1]

    def score(tokens):
        embedded = tokens.mean(axis=1) @ kernel
        return (embedded / jnp.linalg.norm(embedded) * text).sum()

    assert pair.scores[0] == pytest.approx(float(score(tokens)), abs=1e-5)
    weights = np.asarray(jax.grad(score)(tokens), np.float64)[0].mean(axis=0)
    expected = np.maximum(np.asarray(tokens, np.float64)[0] @ weights, 0)
    found = GradCamConfig().maps(pair)[0]
    assert found.shape == (pair.config.model.image.side,) * 2
    np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-5 * expected.max() + 1e-9)


def test_similarities_average_to_the_score_where_patches_are_averaged():
    pair = pair_of(tiny(pooling="mean"))
    found = PatchSimilarityConfig().maps(pair)
    bound = pair.module.bind(pair.variables)
    encoding = bound.encode(dict(pair.batch), {"image"}, train=False)["image"]
    kernel = pair.variables["params"]["model"]["image_projection"]["kernel"]
    lengths = np.linalg.norm(np.asarray(encoding.tokens)[0] @ np.asarray(kernel), axis=-1)
    whole = np.linalg.norm((np.asarray(encoding.tokens)[0] @ np.asarray(kernel)).mean(axis=0))
    mean = (found[0].reshape(-1) * lengths).mean() / whole
    assert mean == pytest.approx(pair.scores[0], abs=1e-5)


def test_occlusion_is_the_fall_of_the_score(pair):
    method = OcclusionConfig(size=0.5, steps=2)
    found = method.maps(pair)[0]
    image = np.asarray(pair.batch["image"])
    for row in range(2):
        for column in range(2):
            hidden = image.copy()
            hidden[:, 8 * row :][:, :8, 8 * column :][:, :, :8] = image.mean(axis=(1, 2))
            fall = pair.scores[0] - pair.scores_of({**pair.batch, "image": hidden})[0]
            assert found[row, column] == pytest.approx(fall, abs=1e-6)


def test_methods_say_what_they_lack():
    resnet = load_config("configs/clip_emoji_resnet.py")
    retrieval, matching = ScoreConfig.of(), ScoreConfig.of("matching")
    assert "kind 'vit'" in RolloutConfig().lacks(resnet, retrieval)
    assert GradCamConfig().lacks(resnet, retrieval) is None
    albef = load_config("configs/albef.py")
    assert RelevanceConfig().lacks(albef, matching) is None
    assert "a layer 12" in AttentionMapConfig(layer=12).lacks(albef, matching)
    assert "projects" not in (PatchSimilarityConfig().lacks(albef, matching) or "")
    assert dataclasses.fields(RolloutConfig) == ()
