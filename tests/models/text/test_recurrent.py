"""Recurrent text encoders and the bag of words against float64 NumPy, written from the equations,
one text at a time."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_oracle import states
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.config import base, to_config, to_tree, variant_of
from vlp_jax.errors import ConfigError
from vlp_jax.hardware.collective_counts import collective_counts
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.recurrent import (
    BagOfWordsConfig,
    BidirectionalLstmConfig,
    GruConfig,
    LstmConfig,
)
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh, replicated
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

LENGTHS = np.array([6, 4, 1, 0])
TEXT = np.random.default_rng(1).integers(0, 20, (4, 6)).astype(np.int32)
MASK = np.arange(6) < LENGTHS[:, None]
SIZE = dict(vocab_size=20, length=9, width=12)
RECURRENT = {"lstm": LstmConfig, "bidirectional_lstm": BidirectionalLstmConfig, "gru": GruConfig}
WAYS = [
    (kind, pooling, depth)
    for kind in RECURRENT
    for pooling, depth in (("end", 2), ("mean", 1), ("attention", 1))
]
ALL = [*WAYS, ("bag", None, None)]


def tower(kind, pooling="end", depth=2, **changes):
    if kind == "bag":
        return BagOfWordsConfig(**SIZE | changes).build(Precision())
    return RECURRENT[kind](
        **SIZE | dict(pooling=pooling, depth=depth, embedding_width=7) | changes
    ).build(Precision())


def parameters(module):
    """Random values for every parameter, the biases that start at 0 included."""
    rng, shapes = (
        np.random.default_rng(2),
        nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), TEXT))["params"],
    )
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


@functools.partial(jax.jit, static_argnums=0)
def encode(module, params, text, mask=None):
    return module.apply({"params": params}, text, mask)


def expected(kind, pooling, depth, params, words):
    """One text without padding: its tokens [L, D] and what is pooled [D]."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x, run = (
        params["tokens"]["embedding"][words],
        functools.partial(states, "gru" if kind == "gru" else "lstm"),
    )
    if kind == "bag":
        return x, x.mean(axis=0)
    for i in range(depth):
        forward = run(params[f"layer_{i}_forward"], x)
        backward = (
            run(params[f"layer_{i}_backward"], x[::-1])[::-1]
            if kind == "bidirectional_lstm"
            else None
        )
        x = np.asarray(forward) if backward is None else np.concatenate([forward, backward], axis=1)
    if pooling == "mean":
        return x, x.mean(axis=0)
    if pooling == "attention":
        head = params["pooling_head"]
        scores = np.exp(np.tanh(x @ head["hidden"]["kernel"]) @ head["score"]["kernel"][:, 0])
        return x, scores @ x / scores.sum()
    return x, forward[-1] if backward is None else np.concatenate([forward[-1], backward[0]])


@pytest.mark.variants
@pytest.mark.parametrize(("kind", "pooling", "depth"), ALL)
def test_states_and_what_is_pooled_are_those_of_the_equations(kind, pooling, depth):
    module = tower(kind, pooling, depth)
    params = parameters(module)
    found = encode(module, params, TEXT, MASK)
    np.testing.assert_array_equal(found.mask, MASK)
    for row, length in enumerate(LENGTHS[:3]):
        tokens, pooled = expected(kind, pooling, depth, params, TEXT[row, :length])
        np.testing.assert_allclose(found.tokens[row, :length], tokens, atol=2e-6)
        np.testing.assert_allclose(found.pooled[row], pooled, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(found.tokens)[~MASK], 0.0)
    np.testing.assert_array_equal(found.pooled[3], 0.0)  # the empty text
    without = module.apply({"params": params}, TEXT, MASK, tokens=False)
    assert without.tokens is None
    np.testing.assert_allclose(without.pooled, found.pooled, atol=1e-6)


@pytest.mark.variants
@pytest.mark.parametrize(("kind", "pooling", "depth"), ALL)
def test_padding_changes_nothing_whatever_stands_in_it_and_however_much_there_is(
    kind, pooling, depth
):
    module = tower(kind, pooling, depth)
    params = parameters(module)
    before = encode(module, params, TEXT, MASK)
    other = encode(module, params, np.where(MASK, TEXT, 19), MASK)
    np.testing.assert_array_equal(other.pooled, before.pooled)
    np.testing.assert_array_equal(other.tokens, before.tokens)
    wider = encode(
        module,
        params,
        np.pad(TEXT, ((0, 0), (0, 3)), constant_values=7),
        np.pad(MASK, ((0, 0), (0, 3))),
    )
    np.testing.assert_allclose(wider.pooled, before.pooled, atol=1e-6)
    np.testing.assert_allclose(wider.tokens[:, :6], before.tokens, atol=1e-6)
    alone = encode(module, params, TEXT[1:2, :4])
    np.testing.assert_allclose(alone.pooled, before.pooled[1:2], atol=1e-6)


@pytest.mark.variants
@pytest.mark.parametrize(("kind", "pooling", "depth"), ALL)
def test_gradients_reach_every_parameter_and_are_finite_beside_an_empty_text(kind, pooling, depth):
    module = tower(kind, pooling, depth)
    params = parameters(module)

    def loss(params):
        pooled = module.apply({"params": params}, TEXT, MASK).pooled
        return (pooled * jnp.cos(jnp.arange(pooled.size)).reshape(pooled.shape)).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-6, path


@pytest.mark.full
@pytest.mark.parametrize("kind", ["bidirectional_lstm", "gru", "bag"])
def test_states_are_those_of_float32_but_for_rounding_in_bfloat16_and_parameters_stay_float32(kind):
    module, params = tower(kind), parameters(tower(kind))
    rounded = module.clone(precision=Precision(jnp.bfloat16))
    assert {
        leaf.dtype
        for leaf in jax.tree.leaves(jax.eval_shape(rounded.init, jax.random.key(0), TEXT))
    } == {jnp.dtype("float32")}
    found = encode(rounded, params, TEXT, MASK)
    assert found.tokens.dtype == found.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.pooled.astype(jnp.float32), encode(module, params, TEXT, MASK).pooled, atol=0.05
    )


@pytest.mark.parametrize("kind", ["lstm", "bag"])
def test_dropout_acts_in_training_alone(kind):
    module = tower(kind, dropout=0.5)
    params = parameters(module)
    dropped = [
        module.apply(
            {"params": params}, TEXT, MASK, True, rngs={"dropout": jax.random.key(seed)}
        ).pooled
        for seed in (0, 1)
    ]
    assert np.abs(dropped[0] - dropped[1]).max() > 1e-3
    np.testing.assert_array_equal(
        *(encode(each, params, TEXT, MASK).pooled for each in (module, tower(kind)))
    )


WORDS = dict(vocab_size=20, length=5, width=8)


def initialised(config):
    return jax.eval_shape(lambda: initial_variables(build_module(config), example_batch(config), 0))


def words_of(kind):
    return dict(WORDS, kind=kind) | ({} if kind == "bag" else dict(embedding_width=6))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*RECURRENT, "bag"])
def test_it_is_trained_by_contrast_and_by_matching_through_a_fusion_over_any_devices(kind):
    objectives = dict(contrastive=dict(kind="clip"), matching=dict(kind="matching"))
    config = experiment(
        model__text=words_of(kind),
        model__fusion=dict(TOWER, kind="cross_attention"),
        objectives=objectives,
        mesh__replicate_below=0,
    )
    module, batch = build_module(config), batch_of()
    batch |= {"image": batch["image"].astype(np.float32) / 255.0}
    variables = nn.meta.unbox(initial_variables(module, batch, 0))

    def loss(params, batch):
        return module.apply(
            {"params": params}, batch, True, rngs={"dropout": jax.random.key(0)}
        ).value

    found = {}
    for sizes in ((1, 1, 1), (2, 2, 2)):
        mesh_config = MeshConfig(
            **dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)), replicate_below=0
        )
        mesh = build_mesh(mesh_config, jax.devices()[: np.prod(sizes)])
        with layout_in_use(build_layout(mesh_config, mesh)):
            placed = jax.device_put(batch, batch_sharding(mesh))
            found[sizes] = jax.jit(jax.grad(loss))(variables["params"], placed)
    for (path, one), many in zip(
        jax.tree_util.tree_leaves_with_path(found[1, 1, 1]),
        jax.tree.leaves(found[2, 2, 2]),
        strict=True,
    ):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(many, one, rtol=1e-3, atol=2e-5, err_msg=str(path))
    assert np.abs(found[1, 1, 1]["model"]["text"]["tokens"]["embedding"]).max() > 0


@pytest.mark.full
@pytest.mark.parametrize("kind", ["bidirectional_lstm", "gru"])
def test_devices_meet_no_more_often_for_longer_texts(kind):
    mesh = build_mesh(MeshConfig(data=8), jax.devices())
    module = tower(kind)
    params = parameters(module)

    def collectives(length):
        text = jax.device_put(np.zeros((8, length), np.int32), batch_sharding(mesh))
        loss = jax.grad(lambda params, text: module.apply({"params": params}, text).pooled.sum())
        with layout_in_use(build_layout(MeshConfig(data=8), mesh)):
            program = (
                jax.jit(loss)
                .lower(jax.device_put(params, replicated(mesh)), text)
                .compile()
                .as_text()
            )
        return {kind: counts["count"] for kind, counts in collective_counts(program).items()}

    assert collectives(3) == collectives(9) != {}


WRITES, MATCHES = (
    dict(writing=dict(kind="captioning")),
    dict(pairs=dict(kind="matching", negatives="uniform")),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(
                objectives=WRITES,
                model__decoder=dict(kind="on_text_tower", preset="Ti", tied=False),
            ),
            "model.decoder.kind='on_text_tower'",
        ),
        (
            dict(objectives=WRITES, model__decoder=dict(kind="in_text_tower", start_token=False)),
            "model.decoder.kind='in_text_tower'",
        ),
        (
            dict(objectives=MATCHES, model__fusion=dict(kind="in_text_tower", start_token=False)),
            "model.fusion.kind='in_text_tower'",
        ),
        (
            dict(
                objectives=dict(
                    mlm=dict(
                        kind="masked_language", with_image=False, keep_first=False, keep_last=False
                    )
                )
            ),
            "an objective on hidden words",
        ),
    ],
)
def test_what_needs_a_transformer_says_so(changes, message):
    with pytest.raises(
        ConfigError,
        match=f"model.text.kind: 'lstm' has no transformer's layers, which {message} needs",
    ):
        initialised(experiment(model__text=words_of("lstm"), **changes))


def test_sizes_that_do_not_fit_together_are_refused_by_name():
    with pytest.raises(ConfigError, match="model.text.width: 13 is odd"):
        tower("bidirectional_lstm", width=13)
    with pytest.raises(ConfigError, match="model.text.projection: 'none' needs width 10"):
        initialised(
            experiment(
                model__text=dict(words_of("gru"), projection="none"), model__embedding_dim=10
            )
        )


@pytest.mark.parametrize("kind", [*RECURRENT, "bag"])
def test_a_smoke_variant_is_narrow(kind):
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.model.text = to_tree(
        {**RECURRENT, "bag": BagOfWordsConfig}[kind](word_vectors="vectors.txt", word_overlap=0.1)
    )
    text = to_config(variant_of(config, "smoke").to_dict()).model.text
    assert (text.kind, text.width, text.length, text.vocab_size, text.word_vectors) == (
        kind,
        64,
        24,
        4096,
        None,
    )
    assert kind == "bag" or (text.embedding_width, text.depth) == (64, 1)
