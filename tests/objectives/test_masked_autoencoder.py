"""Masked autoencoding: the loss against float64 NumPy, the masks by their distribution, and what
the tower sees."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange
from tiny_experiment import batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.positions import sincos2d
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.masked_autoencoder import patch_targets, visible_patches
from vlp_jax.training.accumulation import loss_gradients
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import create_state, initial_variables

HEAD = dict(
    kind="masked_autoencoder", mask_ratio=0.5, decoder_width=8, decoder_depth=1, decoder_heads=2
)


def config_of(**image):
    return experiment(
        model__image=dict(
            kind="vit",
            preset="Ti",
            width=8,
            depth=1,
            heads=2,
            mlp_dim=8,
            image_size=8,
            patch_size=2,
            position="sincos2d",
        )
        | image,
        objectives=dict(mae=HEAD),
    )


def layer_norm(x, p):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p[
        "scale"
    ] + p["bias"]


def decoder_layer(x, p):
    """One pre-norm transformer layer (Vaswani et al. 2017) with an exact GELU."""
    erf = np.vectorize(math.erf)
    y = layer_norm(x, p["attention_norm"])
    q, k, v = (
        np.einsum("nd,dhk->nhk", y, p["attention"][name]["kernel"]) + p["attention"][name]["bias"]
        for name in ("query", "key", "value")
    )
    logits = np.einsum("nhk,mhk->hnm", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    out = p["attention"]["out"]
    x = x + np.einsum("hnm,mhk,hkd->nd", weights, v, out["kernel"]) + out["bias"]
    y = layer_norm(x, p["mlp_norm"]) @ p["mlp"]["in"]["kernel"] + p["mlp"]["in"]["bias"]
    return (
        x
        + (y * (1 + erf(y / np.sqrt(2))) / 2) @ p["mlp"]["out"]["kernel"]
        + p["mlp"]["out"]["bias"]
    )


@pytest.mark.full
def test_the_loss_is_that_of_the_paper():
    """From the encoder's tokens on: unshuffling, decoder, normalised pixels and the mean over
    masked patches."""
    config = config_of()
    module, image = build_module(config), np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    variables = nn.meta.unbox(initial_variables(module, example_batch(config, 3), 0))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), variables
    )
    batch = example_batch(config, 3) | {"image": jnp.asarray(image, jnp.float32)}
    drawn = {}

    def spy(key, *arguments):
        drawn["patches"] = visible_patches(key, *arguments)
        return drawn["patches"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlp_jax.objectives.masked_autoencoder.visible_patches", spy)
        loss = module.apply(variables, batch, True, rngs={"dropout": jax.random.key(2)})
    kept, _ = (np.asarray(x) for x in drawn["patches"])
    tower = VisionLanguageModel(config.model, Precision())
    tokens = np.asarray(
        tower.apply(
            {"params": variables["params"]["model"]},
            batch["image"],
            True,
            True,
            kept,
            method="encode_image",
        ).tokens,
        np.float64,
    )
    head = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"]["objectives_mae"])
    errors, variances = [], []
    for b in range(3):
        hidden = tokens[b] @ head["in"]["kernel"] + head["in"]["bias"]
        x = np.tile(head["mask_token"][0], (16, 1))
        for place, row in zip(kept[b], hidden[1:], strict=True):
            x[place] = row
        x = decoder_layer(
            np.concatenate([hidden[:1], x + sincos2d(4, 8)]), head["decoder"]["layer_0"]
        )
        predicted = (layer_norm(x, head["norm"]) @ head["out"]["kernel"] + head["out"]["bias"])[1:]
        for place in set(range(16)) - set(kept[b].tolist()):
            row, column = divmod(place, 4)
            pixels = image[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1)
            target = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            errors.append(np.mean((predicted[place] - target) ** 2))
            variances.append(np.mean(target**2))
    assert len(errors) == 3 * 8
    np.testing.assert_allclose(loss.metrics["mae/loss"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(loss.metrics["mae/target_variance"], np.mean(variances), rtol=1e-5)


def test_so_many_patches_are_masked_and_each_as_often_as_any_other():
    kept, restore = (np.asarray(x) for x in visible_patches(jax.random.key(0), 4000, 16, 0.75))
    assert kept.shape == (4000, 4) and (np.sort(restore, axis=1) == np.arange(16)).all()
    np.testing.assert_array_equal(
        np.take_along_axis(restore, kept, axis=1), np.tile(np.arange(4), (4000, 1))
    )
    masked = (restore >= 4).mean(axis=0)
    np.testing.assert_allclose(masked, 0.75, atol=5 * (0.75 * 0.25 / 4000) ** 0.5)


def test_targets_do_not_change_with_brightness_and_contrast():
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(patch_targets(3 * image + 5, 4), patch_targets(image, 4), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stem", [{}, dict(stem="convolution", stem_channels=(8, 8), stem_strides=(2, 1))], ids=str
)
def test_the_tower_sees_only_what_is_kept_and_no_other_pixel_changes_its_tokens(stem):
    config = config_of(pooling="cls", **stem)
    model = VisionLanguageModel(config.model, Precision())
    image, kept = (
        np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32),
        np.array([[3, 0], [5, 9]]),
    )
    variables = nn.meta.unbox(model.init(jax.random.key(0), image, None))

    def tokens(image, kept=None):
        return np.asarray(
            model.apply(variables, image, False, True, kept, method="encode_image").tokens
        )

    changed = image.copy()
    changed[:, 6:] += 1.0  # the last row of patches, 12 to 15
    found = tokens(image, kept)
    assert found.shape == (2, 3, 8)
    np.testing.assert_array_equal(tokens(changed, kept), found)
    slopes = jax.grad(
        lambda image: model.apply(
            variables, image, False, True, kept, method="encode_image"
        ).tokens.sum()
    )(image)
    seen = (
        np.abs(rearrange(np.asarray(slopes), "b (h p) (w q) c -> b (h w) (p q c)", p=2, q=2)).max(
            -1
        )
        > 0
    )
    np.testing.assert_array_equal(seen, (np.arange(16) == kept[..., None]).any(1))
    assert np.abs(tokens(changed) - tokens(image)).max() > 1e-3
    everything = np.tile(np.arange(16), (2, 1))
    np.testing.assert_allclose(tokens(image, everything), tokens(image), atol=1e-6)


def test_text_gets_no_parameters_and_a_resnet_is_refused():
    config = config_of()
    shapes = jax.eval_shape(
        lambda: initial_variables(build_module(config), example_batch(config), 0)
    )["params"]
    assert set(shapes) == {"model", "objectives_mae"} and set(shapes["model"]) == {"image"}
    resnet = dict(kind="resnet", width=4, blocks=(1,), image_size=8)
    with pytest.raises(ConfigError, match="objectives.mae: .*model.image.kind must be 'vit'"):
        experiment(model__image=resnet, objectives=dict(mae=HEAD))
    unchecked = dataclasses.replace(experiment(model__image=resnet), objectives=config.objectives)
    with pytest.raises(ConfigError, match="model.image.kind must be 'vit'"):
        jax.eval_shape(
            lambda: initial_variables(build_module(unchecked), example_batch(unchecked), 0)
        )


@pytest.mark.slow
def test_a_few_updates_lower_the_loss():
    config, batch = config_of(), batch_of()
    module = build_module(config)
    optimizer = optax.adam(0.01)
    state = create_state(module, example_batch(config), optimizer, 0, False)

    @jax.jit
    def update(state, key):
        gradients, metrics, _ = loss_gradients(config, module, state, batch, key)
        updates, moments = optimizer.update(gradients, state.optimizer)
        return state.replace(
            params=optax.apply_updates(state.params, updates), optimizer=moments
        ), metrics

    losses = []
    for step in range(40):
        state, metrics = update(state, jax.random.key(step))
        losses.append(float(metrics["mae/loss"]))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.full
def test_raw_pixels_are_targets_and_learned_positions_replace_the_fixed_ones():
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = rearrange(image, "b (h p) (w q) c -> b (h w) (p q c)", p=2, q=2)
    np.testing.assert_array_equal(patch_targets(image, 2, normalised=False), expected)
    head = HEAD | dict(decoder_position="learned", decoder_mlp_dim=12, normalised_pixels=False)
    losses = {}
    for name, given in (("fixed", HEAD | dict(normalised_pixels=False)), ("learned", head)):
        config = dataclasses.replace(
            config_of(), objectives=experiment(objectives=dict(mae=given)).objectives
        )
        module, batch = build_module(config), {"image": jnp.asarray(image)}
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        params = nn.meta.unbox(module.init(keys, batch))["params"]
        head_params = params["objectives_mae"]
        if name == "learned":
            assert head_params["position"].shape == (1, 17, 8)  # of the class token, too
            assert head_params["decoder"]["layer_0"]["mlp"]["in"]["kernel"].shape == (8, 12)
            table = np.pad(sincos2d(4, 8), ((1, 0), (0, 0)))[None]
            head_params["position"] = jnp.asarray(table)
            head_params["decoder"]["layer_0"]["mlp"] = {
                "in": {"kernel": jnp.zeros((8, 12)), "bias": jnp.zeros(12)},
                "out": {"kernel": jnp.zeros((12, 8)), "bias": jnp.zeros(8)},
            }
        else:
            head_params["decoder"]["layer_0"]["mlp"] = jax.tree.map(
                jnp.zeros_like, head_params["decoder"]["layer_0"]["mlp"]
            )
        params = jax.tree.map(lambda leaf: leaf, params) | {"objectives_mae": head_params}
        if name == "fixed":
            shared = params
        else:
            params = shared | {
                "objectives_mae": shared["objectives_mae"]
                | {
                    "position": head_params["position"],
                    "decoder": {
                        "layer_0": shared["objectives_mae"]["decoder"]["layer_0"]
                        | {"mlp": head_params["decoder"]["layer_0"]["mlp"]}
                    },
                }
            }
        rngs = {"dropout": jax.random.key(2)}
        losses[name] = module.apply({"params": params}, batch, rngs=rngs).value
    np.testing.assert_allclose(losses["learned"], losses["fixed"], rtol=1e-6)
