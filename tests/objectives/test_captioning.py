"""Captioning: the loss from its equation in float64, its references, and what the objective asks
the model for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_flops import counted_flops
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.models.decoder.transformer import Decoding, TextDecoderConfig
from vlp_jax.objectives.captioning import Captioning, CaptioningConfig, next_token_loss
from vlp_jax.objectives.tokens import entropy_of
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.cost.flops import train_step_flops

RNG = np.random.default_rng(4)
LOGITS = 3 * RNG.normal(size=(4, 6, 9))
TEXT = RNG.integers(0, 9, (4, 6))
MASK = np.arange(6) < [[6], [3], [1], [5]]


def loss_in_float64(logits, text, mask, smoothing):
    """The mean over tokens to be predicted of -sum_v q(v) log p(v), q = (1 - s) [v is the token] +
    s / V."""
    losses = []
    for row in range(len(text)):
        for place in range(1, text.shape[1]):
            if mask[row, place]:
                p = np.exp(logits[row, place - 1] - logits[row, place - 1].max())
                q = np.full(len(p), smoothing / len(p))
                q[text[row, place]] += 1 - smoothing
                losses.append(-(q * np.log(p / p.sum())).sum())
    return np.mean(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_its_equation(smoothing):
    found = next_token_loss(jnp.asarray(LOGITS, jnp.float32), TEXT, MASK, smoothing)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, loss_in_float64(LOGITS, TEXT, MASK, smoothing), rtol=2e-6)


def test_padding_changes_no_loss_and_no_token_gives_none():
    other = np.where(MASK, TEXT, 3)
    logits = np.where(MASK[:, :, None], LOGITS, 50.0)
    np.testing.assert_array_equal(
        *(next_token_loss(jnp.asarray(a), b, MASK) for a, b in ((logits, other), (LOGITS, TEXT)))
    )
    assert float(next_token_loss(jnp.asarray(LOGITS), TEXT, np.zeros_like(MASK))) == 0.0


def called(objective, variables, text, mask, prefix, **options):
    encodings = {"decoding": Decoding(jnp.asarray(LOGITS, jnp.float32), jnp.asarray(prefix))}
    return objective.apply(
        variables,
        encodings,
        {"text": jnp.asarray(text), "text_mask": jnp.asarray(mask)},
        None,
        **options,
    )


def test_the_references_are_the_entropy_and_the_accuracy_of_all_tokens_that_were_to_be_predicted():
    prefix = np.array([2, 0, 0, 4])
    wanted = MASK & (np.arange(6) >= np.maximum(prefix, 1)[:, None])
    counts, variables = np.zeros(9), {"unigram": {"counts": jnp.zeros(9)}}
    for text in (TEXT, (TEXT + 1) % 9):
        loss, variables = called(Captioning(), variables, text, MASK, prefix, mutable="unigram")
        counts = 0.999 * counts + np.bincount(text[wanted], minlength=9)
        p = counts[counts > 0] / counts.sum()
        np.testing.assert_allclose(
            loss.metrics["unigram_entropy"], -(p * np.log(p)).sum(), rtol=1e-5
        )
    right = (LOGITS[:, :-1].argmax(-1) == text[:, 1:])[wanted[:, 1:]]
    np.testing.assert_allclose(loss.metrics["token_accuracy"], right.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss.value, loss_in_float64(LOGITS, text, wanted, 0.0), rtol=2e-6)
    alone = called(CaptioningConfig(unigram="batch").build(), {}, text, MASK, prefix)
    np.testing.assert_allclose(
        alone.metrics["unigram_entropy"],
        entropy_of(jnp.bincount(text[wanted], length=9).astype(float)),
    )


RECURRENT = dict(embedding_width=6, width=7, depth=2)


def decoding_experiment(decoder):
    objectives = dict(captioning=dict(kind="captioning", label_smoothing=0.1))
    return experiment(
        objectives=objectives,
        model__decoder=decoder if "embedding_width" in decoder else dict(TOWER, **decoder),
    )


@pytest.mark.variants
@pytest.mark.parametrize(
    ("decoder", "parts"),
    [
        (dict(image="none"), {"decoder"}),
        (dict(image="cross_attention"), {"decoder", "image"}),
        (dict(image="prefix"), {"decoder", "image"}),
        (dict(kind="on_text_tower", tied=False), {"decoder", "image", "text"}),
        (dict(memory_norm=True, inner_mlp=True), {"decoder", "image"}),
        *(
            (dict(RECURRENT, **decoder), {"decoder", "image"})
            for decoder in (
                dict(kind="lstm"),
                dict(kind="gru", depth=1),
                dict(kind="lstm", image="attention", attention_width=5, depth=1),
                dict(kind="gru", image="attention", attention_width=5),
            )
        ),
    ],
)
def test_a_recipe_has_the_parameters_of_what_its_decoder_looks_at_and_its_flops(decoder, parts):
    config = decoding_experiment(decoder)
    module, batch = build_module(config), example_batch(config, rows=8)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), batch))
    assert set(variables["params"]["model"]) == parts
    program = jax.make_jaxpr(functools.partial(module.apply, mutable=False))(variables, batch)
    assert 3 * counted_flops(program.jaxpr) == train_step_flops(config)


@pytest.mark.full
def test_the_prefix_of_a_text_is_drawn_evenly_in_training_and_none_is_shown_in_evaluation():
    config = decoding_experiment(dict(image="none", text_prefix=0.8))
    module, batch = build_module(config), prepare(batch_of(8), config.data.images)
    batch = {
        name: jnp.tile(value, (500,) + (1,) * (value.ndim - 1))
        for name, value in batch.items()
        if name.startswith("text")
    }
    variables = module.init(
        jax.random.key(0), {**example_batch(config), **{k: v[:2] for k, v in batch.items()}}
    )

    def encode(train):
        return module.apply(
            variables,
            batch,
            {"decoding"},
            train,
            rngs={"dropout": jax.random.key(1)},
            method="encode",
        )["decoding"]

    prefix, counts = (
        np.asarray(jax.jit(encode, static_argnums=0)(True).prefix),
        np.asarray(batch["text_mask"]).sum(axis=1),
    )
    for count in np.unique(counts):
        drawn, most = prefix[counts == count], min(int(0.8 * count), count - 1)
        found = np.bincount(drawn, minlength=most + 1) / len(drawn)
        assert len(found) == most + 1 and np.abs(found - 1 / (most + 1)).max() < 4.5 / np.sqrt(
            4 * len(drawn)
        )
    assert (encode(False).prefix == 0).all()


def test_captioning_without_a_decoder_is_a_config_error():
    with pytest.raises(ConfigError, match="model.decoder: an objective predicts words"):
        experiment(objectives=dict(captioning=dict(kind="captioning")))
    # not checked as a whole
    config = dataclasses.replace(experiment(), objectives={"captioning": CaptioningConfig()})
    with pytest.raises(ConfigError, match="model.decoder: an objective predicts words"):
        jax.eval_shape(lambda: build_module(config).init(jax.random.key(0), example_batch(config)))


@pytest.mark.slow
def test_coca_is_its_contrastive_and_its_captioning_loss_on_the_shared_text_tower():
    """Yu et al. 2022, equation 4: the weighted sum; each from the encodings, in float64."""
    objectives = dict(
        contrastive=dict(kind="clip", positives=()), captioning=dict(kind="captioning", weight=2.0)
    )
    config = experiment(
        objectives=objectives,
        model__decoder=dict(TOWER, kind="on_text_tower", tied=False, image_queries=3),
        model__text__pooling="cls_end",
        model__image__pooling="map",
    )
    assert isinstance(config.model.decoder, TextDecoderConfig)
    module, batch = build_module(config), prepare(batch_of(), config.data.images)
    variables = jax.jit(lambda: module.init(jax.random.key(0), batch))()
    loss = module.apply(variables, batch, mutable=False)
    needs = {"image_embedding", "text_embedding", "decoding"}
    given = jax.tree.map(
        lambda x: np.asarray(x, np.float64),
        module.apply(variables, batch, needs, False, method="encode"),
    )
    logits = given["image_embedding"] @ given["text_embedding"].T / 0.07
    own = np.diag(logits)
    contrastive = sum(np.mean(np.log(np.exp(logits).sum(axis)) - own) for axis in (0, 1)) / 2
    captioning = loss_in_float64(given["decoding"].logits, batch["text"], batch["text_mask"], 0.0)
    np.testing.assert_allclose(loss.value, contrastive + 2.0 * captioning, rtol=1e-5)
