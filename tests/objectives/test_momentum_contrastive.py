"""Momentum contrastive learning: equations 1, 2 and 6 of Li et al. 2021 in float64 NumPy, and the
queue's order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import batch_of as pairs
from tiny_experiment import experiment

from vlp_jax.errors import ConfigError
from vlp_jax.objectives.momentum_contrastive import MomentumContrastiveConfig, Queue
from vlp_jax.training.accumulation import prepare, with_teacher
from vlp_jax.training.build import build_module
from vlp_jax.training.state import TrainState

RNG = np.random.default_rng(0)


def unit(*shape):
    x = RNG.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def batch_of(size, dim=6, first_id=0, shared=False):
    """Encodings and a batch with a teacher; with `shared`, examples 0 and 1 show one image, and 2
    and 3 have one caption."""
    ids = np.stack([np.arange(first_id, first_id + size), np.zeros(size)], axis=1).astype(np.int32)
    captions = ids + 7
    ids[1], captions[3] = (ids[0], captions[2]) if shared else (ids[1], captions[3])
    student, teacher = (
        {"image_embedding": unit(size, dim), "text_embedding": unit(size, dim)} for _ in range(2)
    )
    return student, {
        "image_id": jnp.asarray(ids),
        "caption_id": jnp.asarray(captions),
        "teacher": teacher,
    }


def oracle(student, teacher, candidates, scale, alpha, positives):
    """H(q, p) with q = alpha q_teacher + (1 - alpha) y, and H(q)."""

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    student, teacher, candidates = (
        np.asarray(x, np.float64) for x in (student, teacher, candidates)
    )
    targets = alpha * softmax(scale * teacher @ candidates.T) + (
        1 - alpha
    ) * positives / positives.sum(1, keepdims=True)
    p = softmax(scale * student @ candidates.T)
    entropy = -(targets * np.log(np.where(targets > 0, targets, 1.0))).sum(1).mean()
    return -(targets * np.log(p)).sum(1).mean(), entropy


@pytest.mark.full
@pytest.mark.parametrize("kinds", [("caption", "image"), ("image",), ()])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_loss_and_references_equal_float64_numpy_with_an_empty_and_a_filled_queue(alpha, kinds):
    module = MomentumContrastiveConfig(
        queue=8, alpha=alpha, initial_scale=5.0, positives=kinds
    ).build()
    student, batch = batch_of(4, shared=True)
    variables = module.init(jax.random.key(0), student, batch, None)
    kept = {
        "image": np.zeros((0, 6)),
        "text": np.zeros((0, 6)),
        "image_id": np.zeros((0, 2)),
        "caption_id": np.zeros((0, 2)),
    }
    for step in range(3):
        student, batch = batch_of(4, first_id=2 * step, shared=True)  # some images come again
        loss, after = module.apply(variables, student, batch, None, mutable=["queue"])
        variables = {**variables, **after}
        new = {
            "image": batch["teacher"]["image_embedding"],
            "text": batch["teacher"]["text_embedding"],
            "image_id": batch["image_id"],
            "caption_id": batch["caption_id"],
        }
        candidates = {name: np.concatenate([new[name], kept[name]]) for name in kept}
        same = {
            kind: (np.asarray(batch[kind])[:, None] == candidates[kind][None]).all(-1)
            for kind in ("image_id", "caption_id")
        }
        positives = np.any(
            [np.eye(4, len(candidates["image"])), *(same[f"{kind}_id"] for kind in kinds)], axis=0
        )
        parts = [
            oracle(student[f"{a}_embedding"], new[a], candidates[b], 5.0, alpha, positives)
            for a, b in (("image", "text"), ("text", "image"))
        ]
        np.testing.assert_allclose(loss.value, np.mean([part[0] for part in parts]), rtol=1e-5)
        np.testing.assert_allclose(
            loss.metrics["target_entropy"], np.mean([part[1] for part in parts]), rtol=1e-5
        )
        np.testing.assert_allclose(loss.metrics["uniform"], np.log(4 + min(4 * step, 8)), rtol=1e-6)
        assert loss.metrics["target_entropy"] <= loss.value
        kept = {name: np.concatenate([new[name], kept[name]])[:8] for name in kept}


def test_the_queue_is_a_ring_whose_oldest_rows_are_overwritten():
    queue, size = Queue.empty(7, 2), 7
    rows = [np.full((3, 2), 10.0 * step) + np.arange(3)[:, None] for step in range(6)]
    expected = []
    for step, batch in enumerate(rows):
        queue = queue.push(
            jnp.asarray(batch), jnp.asarray(-batch), *2 * (jnp.asarray(batch, jnp.int32),)
        )
        expected = (expected + batch.tolist())[-size:]
        assert queue.filled == min(3 * (step + 1), size) and queue.place == 3 * (step + 1) % size
        oldest_first = np.roll(queue.image, -int(queue.place), axis=0)[size - int(queue.filled) :]
        np.testing.assert_array_equal(oldest_first, expected)
        np.testing.assert_array_equal(queue.text, -queue.image)
        np.testing.assert_array_equal(queue.image_id, queue.image)
        np.testing.assert_array_equal(queue.caption_id, queue.image)


def test_alpha_warms_up_and_the_queue_only_moves_where_it_may():
    module = MomentumContrastiveConfig(queue=4, alpha=0.4, alpha_warmup=4).build()
    student, batch = batch_of(4)
    variables = module.init(jax.random.key(0), student, batch, None)
    assert variables["queue"]["pairs"].filled == 0
    seen = []
    for _ in range(6):
        loss, after = module.apply(variables, student, batch, None, mutable=["queue"])
        variables = {**variables, **after}
        seen.append(float(loss.metrics["alpha"]))
    np.testing.assert_allclose(seen, [0.0, 0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-6)
    module.apply(variables, student, batch, None)  # nothing is mutable, as in an evaluation


def test_nothing_flows_into_the_teacher_and_a_queue_below_a_batch_is_a_config_error():
    module = MomentumContrastiveConfig(queue=4).build()
    student, batch = batch_of(4)
    variables = module.init(jax.random.key(0), student, batch, None)

    def loss(teacher):
        return module.apply(variables, student, {**batch, "teacher": teacher}, None).value

    assert all(
        (gradient == 0).all() for gradient in jax.tree.leaves(jax.grad(loss)(batch["teacher"]))
    )
    with pytest.raises(ConfigError, match="queue=4 or more"):
        MomentumContrastiveConfig(queue=3).build().apply(variables, student, batch, None)


@pytest.mark.full
@pytest.mark.parametrize("drops", [False, True])
def test_the_averaged_model_drops_activations_where_it_is_asked_to_and_others_than_the_trained_one(
    drops,
):
    """ALBEF's momentum model stays in training mode (models/model_pretrain.py:96-107)."""
    config = experiment(
        ema=0.9,
        model__text__dropout=0.5,
        model__image__depth=0,
        objectives=dict(pairs=dict(kind="momentum_contrastive", queue=8, teacher_dropout=drops)),
    )
    module, batch = build_module(config), prepare(pairs(), config.data.images)
    variables = nn.meta.unbox(module.init(jax.random.key(0), batch))
    params = variables.pop("params")
    state = TrainState(jnp.int32(0), params, None, params, dict(variables), None)

    def taught(key):
        return with_teacher(config, module, state, batch, jax.random.key(key))["teacher"][
            "text_embedding"
        ]

    whole, need = {"params": params, **variables}, "text_embedding"
    plain = module.apply(
        whole, batch, rngs={"teacher": jax.random.key(1)}, method="teacher_outputs"
    )[need]
    trained = module.apply(
        whole, batch, {need}, True, rngs={"dropout": jax.random.key(1)}, method="encode"
    )[need]
    np.testing.assert_array_equal(taught(1), taught(1))
    assert (
        (np.abs(taught(1) - plain).max() > 1e-2)
        == (np.abs(taught(1) - taught(2)).max() > 1e-2)
        == drops
    )
    assert np.abs(taught(1) - trained).max() > 1e-2  # not the same masks
