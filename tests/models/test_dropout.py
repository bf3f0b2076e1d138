"""Dropout of embeddings, of attention's weights and of MLPs, and the values that PyTorch's layers
begin with."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import experiment

from vlp_jax.models.layers.attention import attend
from vlp_jax.models.layers.transformer import LayerOptions, Mlp, Transformer
from vlp_jax.objectives.pretraining_module import Precision

OPTIONS = LayerOptions(width=16, heads=2, mlp_dim=24, depth=1)
X = jax.random.normal(jax.random.key(1), (4, 6, 16))


def test_attention_drops_its_weights_and_divides_the_others():
    """With values of one-hot tokens the output is the weights themselves."""
    rate, (batch, tokens) = 0.3, (64, 8)
    q, k = (jax.random.normal(jax.random.key(number), (batch, tokens, 8)) for number in (0, 1))
    v = jnp.broadcast_to(jnp.eye(tokens), (batch, tokens, tokens))
    plain = attend(q, k, v, heads=1)
    dropped = attend(q, k, v, heads=1, drop=(jax.random.key(2), rate))
    kept = np.asarray(dropped) != 0
    np.testing.assert_allclose(
        np.asarray(dropped)[kept], np.asarray(plain / (1 - rate))[kept], rtol=1e-5
    )
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    masked = attend(
        q,
        k,
        v,
        heads=1,
        mask=np.arange(tokens) < np.full((batch, 1), 5),
        causal=True,
        drop=(jax.random.key(3), rate),
    )
    assert (np.asarray(masked)[:, :, 5:] == 0).all() and (
        np.triu(np.asarray(masked).sum(axis=0), 1) == 0
    ).all()


@pytest.mark.variants
@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "mlp_dropout"])
@pytest.mark.parametrize("scan", [False, True])
def test_each_rate_acts_in_training_alone_and_with_other_numbers_for_every_key(name, scan):
    stack = Transformer(dataclasses.replace(OPTIONS, depth=2, **{name: 0.5}), scan=scan)
    training = stack.clone(train=True)
    variables = nn.meta.unbox(stack.init(jax.random.key(0), X))
    plain = Transformer(dataclasses.replace(OPTIONS, depth=2), scan=scan).apply(variables, X)
    np.testing.assert_array_equal(stack.apply(variables, X), plain)
    one, other, again = (
        training.apply(variables, X, rngs={"dropout": jax.random.key(key)}) for key in (1, 2, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - plain).max() > 1e-3


def test_an_mlp_drops_what_its_second_layer_reads():
    """Which is linear in it: the mean over many draws is what no dropout gives."""
    mlp = Mlp(dataclasses.replace(OPTIONS, mlp_dropout=0.4), True)
    variables = nn.meta.unbox(
        mlp.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    )
    drawn = jax.vmap(lambda key: mlp.apply(variables, X, rngs={"dropout": key}))(
        jax.random.split(jax.random.key(2), 4000)
    )
    expected = Mlp(OPTIONS).apply(variables, X)
    error = np.asarray(drawn).std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) < 5 * error + 1e-6).all()


def test_dropout_of_an_image_tower_falls_on_its_embeddings_too():
    config = experiment(
        model__image__depth=0, model__image__dropout=0.5, model__image__pooling="mean"
    )
    tower = config.model.image.build(Precision())
    image = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables = nn.meta.unbox(tower.init(jax.random.key(1), image))
    plain = np.asarray(tower.apply(variables, image).tokens)
    dropped = np.asarray(
        tower.apply(variables, image, True, rngs={"dropout": jax.random.key(2)}).tokens
    )
    assert plain.shape == dropped.shape and np.abs(plain - dropped).max() > 0.1


@pytest.mark.full
@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("attention/query", (1.5 / 64) ** 0.5),
        ("attention/out", 64**-0.5),
        ("mlp/in", 64**-0.5),
        ("mlp/out", 256**-0.5),
    ],
)
def test_pytorch_s_first_values_are_uniform_up_to_its_bounds(path, limit):
    """`nn.Linear`: kaiming_uniform with a=sqrt(5), up to fan_in^-1/2; `nn.MultiheadAttention`:
    xavier_uniform of [3 D, D]."""
    stack = Transformer(
        LayerOptions(width=64, heads=2, mlp_dim=256, depth=1, initialization="torch")
    )
    kernel = nn.meta.unbox(stack.init(jax.random.key(0), X[..., :1] * jnp.ones(64)))["params"][
        "layer_0"
    ]
    for name in path.split("/"):
        kernel = kernel[name]
    values = np.asarray(kernel["kernel"])
    assert limit * 0.98 < np.abs(values).max() <= limit
    np.testing.assert_allclose(values.std(), limit / 3**0.5, rtol=0.03)


@pytest.mark.full
def test_words_and_positions_begin_with_the_deviations_that_are_set():
    config = experiment(
        model__text__vocab_size=3000,
        model__text__width=32,
        model__text__length=300,
        model__text__word_std=0.3,
        model__text__position_std=0.07,
        model__text__token_types=2,
    )
    tower = config.model.text.build(Precision())
    params = nn.meta.unbox(tower.init(jax.random.key(0), jnp.zeros((1, 300), jnp.int32)))["params"]
    np.testing.assert_allclose(params["tokens"]["embedding"].std(), 0.3, rtol=0.02)
    np.testing.assert_allclose(params["position"].std(), 0.07, rtol=0.05)
    assert 0.03 < params["token_type"].std() < 0.12
