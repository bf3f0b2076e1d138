"""Masked image modelling: which patches are hidden against BEiT's algorithm, the loss against
float64 NumPy, and what leaks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import ObjectiveConfig
from vlp_jax.objectives.block_masking import hidden_patches
from vlp_jax.objectives.masked_image import HiddenPatches, code_loss
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

PATCHES = dict(kind="masked_image", codes=20, code_width=4, smallest_block=2)


def beit(rng, side, count, smallest):
    """Algorithm 1 of Bao et al. 2022, but for its last line: as many patches as the last rectangle
    covers are hidden."""
    hidden = np.zeros((side, side), bool)
    while hidden.sum() < count:
        area = rng.uniform(smallest, max(count - hidden.sum(), smallest))
        aspect = np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        height, width = (
            min(side, max(1, round(np.sqrt(x)))) for x in (area * aspect, area / aspect)
        )
        top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        hidden[top : top + height, left : left + width] = True
    return hidden


def neighbours(hidden):
    """How many pairs of hidden patches touch, for each hidden patch."""
    across, down = hidden[:, :, 1:] & hidden[:, :, :-1], hidden[:, 1:] & hidden[:, :-1]
    return (across.sum() + down.sum()) / hidden.sum()


@pytest.mark.full
@pytest.mark.parametrize(("side", "count", "smallest"), [(14, 78, 16), (4, 6, 2)])
def test_so_many_patches_are_hidden_in_each_picture_in_blocks_as_beits_are(side, count, smallest):
    rng = np.random.default_rng(0)
    places = np.asarray(hidden_patches(jax.random.key(0), 3000, side, count, smallest))
    ours = (places[:, :, None] == np.arange(side**2)).any(1).reshape(-1, side, side)
    theirs = np.stack([beit(rng, side, count, smallest) for _ in range(1000)])
    assert (ours.sum(axis=(1, 2)) == count).all() and places.shape == (3000, count)
    assert abs(neighbours(ours) - neighbours(theirs)) < 0.03
    frequencies = [hidden.mean(axis=0).ravel() for hidden in (ours, theirs)]
    assert np.corrcoef(*frequencies)[0, 1] > 0.98
    noise = 5 * np.sqrt(2 * 0.25 / 3000)
    # neither top nor bottom comes first
    np.testing.assert_allclose(frequencies[0], frequencies[0][::-1], atol=noise)


@pytest.mark.full
def test_a_single_block_is_a_rectangle_of_any_allowed_shape():
    places = np.asarray(hidden_patches(jax.random.key(1), 500, 14, 20, 20))
    hidden = (places[:, :, None] == np.arange(196)).any(1).reshape(-1, 14, 14)
    shapes = [
        (h.any(1).sum(), h.any(0).sum()) for h in hidden if h.any(1).sum() * h.any(0).sum() == 20
    ]
    assert {(4, 5), (5, 4), (2, 10), (10, 2)} >= set(shapes) and {(4, 5), (5, 4)} <= set(shapes)


def test_the_loss_is_the_mean_over_hidden_patches_in_float64_numpy():
    rng = np.random.default_rng(0)
    logits, codes, places = (
        rng.normal(size=(3, 2, 7)),
        rng.integers(0, 7, (3, 5)),
        np.array([[0, 4], [1, 2], [3, 0]]),
    )
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = codes[np.arange(3)[:, None], places]
    hidden = HiddenPatches(jnp.asarray(places), None, jnp.asarray(codes))
    loss = code_loss(jnp.asarray(logits, jnp.float32), hidden)
    np.testing.assert_allclose(
        loss.value, -np.log(np.take_along_axis(p, truth[..., None], -1)).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        loss.metrics["accuracy"], (logits.argmax(-1) == truth).mean(), rtol=1e-6
    )
    share = np.bincount(truth.ravel()) / truth.size
    np.testing.assert_allclose(
        loss.metrics["code_entropy"],
        -(share[share > 0] * np.log(share[share > 0])).sum(),
        rtol=1e-5,
    )


STEM = dict(stem="convolution", stem_channels=(8, 8), stem_strides=(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("image", [dict(registers=1), STEM], ids=["patches", "convolutions"])
def test_no_pixel_of_a_hidden_patch_reaches_any_token(image):
    config = experiment(model__image=dict(TOWER, kind="vit", patch_size=4, image_size=16, **image))
    model, rng = VisionLanguageModel(config.model, Precision()), np.random.default_rng(0)
    pixels, mask = rng.normal(size=(2, 16, 16, 3)).astype(np.float32), rng.random((2, 16)) < 0.4
    variables = nn.meta.unbox(
        model.init(jax.random.key(0), pixels, masked=mask, method="encode_image")
    )

    def tokens(pixels, mask):
        return np.asarray(model.apply(variables, pixels, masked=mask, method="encode_image").tokens)

    other = np.where(mask.reshape(2, 4, 4, 1).repeat(4, 1).repeat(4, 2), 9.0, pixels).astype(
        np.float32
    )
    np.testing.assert_array_equal(tokens(other, mask), tokens(pixels, mask))
    assert (
        np.abs(tokens(other, np.zeros_like(mask)) - tokens(pixels, np.zeros_like(mask))).max()
        > 1e-2
    )


@pytest.mark.parametrize(
    ("objective", "image", "message"),
    [
        (
            dict(smallest_block=3),
            {},
            "smallest_block 3 is more than the 2 patches of 4 that "
            "image_rate=0.4 hides; set it to 2 or less",
        ),
        ({}, dict(token_drop=0.5), "model.image.token_drop 0"),
        (
            {},
            dict(kind="resnet", width=4, blocks=(1,), image_size=8),
            "model.image.kind must be 'vit'",
        ),
    ],
)
def test_what_cannot_be_hidden_is_a_config_error(objective, image, message):
    image = (
        image if "kind" in image else dict(TOWER, kind="vit", patch_size=4, image_size=8, **image)
    )
    with pytest.raises(ConfigError, match=f"objectives.patches: .*{message}"):
        experiment(model__image=image, objectives=dict(patches=PATCHES | objective))
    config = dataclasses.replace(
        experiment(model__image=image),
        objectives={"patches": ObjectiveConfig.of(**PATCHES | objective)},
    )
    # a config that was not checked as a whole
    with pytest.raises(ConfigError, match=f"objectives: .*{message}"):
        jax.eval_shape(lambda: initial_variables(build_module(config), example_batch(config), 0))


@pytest.mark.full
def test_text_gets_no_parameters_and_the_loss_starts_near_that_of_a_guess():
    config = experiment(objectives=dict(patches=PATCHES))
    module = build_module(config)
    variables = nn.meta.unbox(
        jax.jit(lambda: initial_variables(module, example_batch(config), 0))()
    )
    assert (
        set(variables["params"]["model"]) == {"image"}
        and "mask_token" in variables["params"]["model"]["image"]
    )
    batch = batch_of() | {"image": batch_of()["image"] / 127.5 - 1.0}
    loss = jax.jit(
        lambda variables: (
            module.apply(variables, batch, True, rngs={"dropout": jax.random.key(0)}).value
        )
    )(variables)
    np.testing.assert_allclose(loss, np.log(20), atol=0.2)
