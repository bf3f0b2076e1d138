"""Momentum distillation of masked words against float64 NumPy (Li et al. 2021, "ALBEF", equation
7)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.errors import ConfigError
from vlp_jax.sharding.layout import layout_in_use
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import check_accumulation
from vlp_jax.training.build import build_update, example_batch
from vlp_jax.training.state import create_state

FUSION = dict(TOWER, kind="cross_attention")
WORDS = dict(kind="masked_language", rate=0.5, mask_id=19, keep_first=False, keep_last=False)


def config_of(**words):
    return experiment(objectives=dict(words=WORDS | words), model__fusion=FUSION, ema=0.9)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def parts():
    """A module with distillation, its state with averaged parameters of their own, and a batch."""
    config = config_of(alpha=0.4, alpha_warmup=4)
    update = build_update(
        config, build_layout(config.mesh, build_mesh(MeshConfig(data=1), jax.devices()[:1])), 10
    )
    state = create_state(update.module, example_batch(config), update.optimizer, 0, True)
    leaves, tree = jax.tree.flatten(state.ema)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    ema = jax.tree.unflatten(
        tree,
        [
            leaf + 0.3 * jax.random.normal(key, leaf.shape)
            for leaf, key in zip(leaves, keys, strict=True)
        ],
    )
    batch = batch_of()
    return update.module, state.params, ema, {**batch, "image": batch["image"] / 255.0}


@pytest.mark.full
@pytest.mark.parametrize("updates", [0, 1, 9])
def test_the_loss_is_a_weighted_sum_of_cross_entropy_and_divergence_from_the_averaged_model(
    parts, updates
):
    module, params, ema, batch = parts
    counts = {"distillation": {"objectives_words": {"updates": jnp.int32(updates)}}}
    lessons = module.apply(
        {"params": ema, **counts},
        batch,
        method="teacher_outputs",
        rngs={"teacher": jax.random.key(1)},
    )
    masked, taught = lessons["objectives_words"]
    loss, after = module.apply(
        {"params": params, **counts}, {**batch, "teacher": lessons}, mutable="distillation"
    )

    def told(module, batch):
        encodings = module.encode(batch, {"image"}, False)
        return module.objectives["words"].logits(encodings, masked, batch, module.model)

    p, q = (
        log_softmax(module.apply({"params": params, **counts}, batch, method=told)),
        log_softmax(taught),
    )
    np.testing.assert_allclose(
        q, log_softmax(module.apply({"params": ema, **counts}, batch, method=told)), atol=1e-5
    )
    chosen = np.asarray(masked.chosen)
    cross_entropy = -np.take_along_axis(p, batch["text"][..., None], -1)[..., 0][chosen].mean()
    divergence = (np.exp(q) * (q - p)).sum(-1)[chosen].mean()
    alpha = 0.4 * min(1, updates / 4)
    np.testing.assert_allclose(
        loss.value, (1 - alpha) * cross_entropy + alpha * divergence, rtol=1e-5
    )
    np.testing.assert_allclose(loss.metrics["words/cross_entropy"], cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["words/divergence"], divergence, rtol=1e-4)
    np.testing.assert_allclose(loss.metrics["words/alpha"], alpha, rtol=1e-6)
    assert after["distillation"]["objectives_words"]["updates"] == updates + 1


@pytest.mark.full
def test_no_gradient_reaches_the_teacher_and_both_see_the_same_masks(parts):
    module, params, ema, batch = parts
    counts = {"distillation": {"objectives_words": {"updates": jnp.int32(9)}}}

    def loss(ema):
        lessons = module.apply(
            {"params": ema, **counts},
            batch,
            method="teacher_outputs",
            rngs={"teacher": jax.random.key(1)},
        )
        return module.apply({"params": params, **counts}, {**batch, "teacher": lessons}).value

    assert all(np.abs(slope).max() == 0 for slope in jax.tree.leaves(jax.grad(loss)(ema)))


@pytest.mark.slow
def test_training_teaches_by_the_average_and_counts_its_updates():
    config = config_of(alpha=0.4, alpha_warmup=4)
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    layout = build_layout(config.mesh, mesh)
    update = build_update(config, layout, 10)
    with layout_in_use(layout):
        state = jax.device_put(
            create_state(update.module, example_batch(config), update.optimizer, 0, True),
            update.shardings,
        )
    alphas = []
    for _ in range(6):
        state, metrics = update.train_step(state, jax.device_put(batch_of()))
        alphas.append(float(metrics["words/alpha"]))
    np.testing.assert_allclose(alphas, [0.0, 0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-6)
    assert float(metrics["words/divergence"]) > 0


def test_distillation_needs_an_average_and_its_warm_up_an_alpha():
    with pytest.raises(ConfigError, match="objectives.words: learns from the EMA .*; set ema"):
        check_accumulation(
            experiment(objectives=dict(words=WORDS | dict(alpha=0.4)), model__fusion=FUSION)
        )
    with pytest.raises(
        ConfigError, match="objectives.words.alpha_warmup: has no effect with alpha=0"
    ):
        config_of(alpha_warmup=3)
