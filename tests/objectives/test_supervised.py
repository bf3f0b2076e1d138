"""Supervised objectives: losses and gradients against float64 NumPy, references against a search,
rows without a target."""

import dataclasses

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import BATCH, batch_of, experiment, leaves

from vlp_jax.errors import ConfigError
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.target_head import TargetHead
from vlp_jax.objectives import supervised_losses
from vlp_jax.objectives.contrastive import SoftmaxContrastiveConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule
from vlp_jax.objectives.supervised import FADING, ClassificationConfig, RegressionConfig
from vlp_jax.training.accumulation import (
    AccumulationConfig,
    check_collections,
    loss_gradients,
    prepare,
)
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import TrainState, initial_variables

RNG = np.random.default_rng(0)
ROWS, CLASSES, MARGIN, SMOOTHING = 12, 5, 0.7, 0.2
LOGITS, LABELS = RNG.normal(size=(ROWS, CLASSES)) * 1.5, RNG.integers(0, CLASSES - 1, ROWS)
SCORES = np.where(RNG.random((ROWS, CLASSES)) < 0.3, RNG.random((ROWS, CLASSES)), 0.0)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
ONEHOT = np.eye(CLASSES)[LABELS]


def softmax():
    """Cross-entropy with smoothed targets q, whose slope is p - q."""
    q = (1 - SMOOTHING) * ONEHOT + SMOOTHING / CLASSES
    return -(q * np.log(P)).sum(1), P - q


def binary():
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    return -(SCORES * np.log(sigmoid) + (1 - SCORES) * np.log(1 - sigmoid)).sum(1), sigmoid - SCORES


def hinge():
    """Crammer & Singer: the slope is 1 at the highest of the others and -1 at the label, where the
    margin is not kept."""
    others = np.where(ONEHOT > 0, -np.inf, LOGITS)
    losses = np.maximum(0, MARGIN + others.max(1) - LOGITS[np.arange(ROWS), LABELS])
    slopes = (np.eye(CLASSES)[others.argmax(1)] - ONEHOT) * (losses > 0)[:, None]
    return losses, slopes


LOSSES = {
    "softmax": (
        softmax,
        lambda z: supervised_losses.softmax_losses(z, jnp.asarray(LABELS), SMOOTHING),
    ),
    "binary": (
        binary,
        lambda z: supervised_losses.binary_losses(z, jnp.asarray(SCORES, jnp.float32)),
    ),
    "hinge": (hinge, lambda z: supervised_losses.hinge_losses(z, jnp.asarray(LABELS), MARGIN)),
}


@pytest.mark.variants
@pytest.mark.parametrize("name", LOSSES)
def test_each_rows_loss_and_its_slopes_equal_float64_numpy(name):
    expected, function = LOSSES[name]
    losses, slopes = expected()
    logits = jnp.asarray(LOGITS, jnp.float32)
    assert (losses > 0).any() and (name != "hinge" or (losses == 0).any())
    np.testing.assert_allclose(function(logits), losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda z: function(z).sum())(logits), slopes, rtol=1e-4, atol=1e-6
    )


def references(labels):
    counts = jnp.asarray(np.bincount(labels, minlength=CLASSES), jnp.float32)
    return {
        "softmax": supervised_losses.softmax_reference(counts, SMOOTHING),
        "binary": supervised_losses.binary_reference(
            jnp.asarray(SCORES.sum(0), jnp.float32), jnp.float32(ROWS)
        ),
        "hinge": supervised_losses.hinge_reference(counts, MARGIN),
    }


@pytest.mark.full
@pytest.mark.parametrize(
    "labels", [LABELS, np.array([1] * 8 + [0, 2, 3, 1])], ids=["even", "one is most"]
)
@pytest.mark.parametrize("name", LOSSES)
def test_a_reference_is_what_the_best_constant_answer_loses(name, labels):
    """No constant that a descent finds is better, and the descent comes near."""
    losses = {
        "softmax": lambda z: supervised_losses.softmax_losses(z, jnp.asarray(labels), SMOOTHING),
        "hinge": lambda z: supervised_losses.hinge_losses(z, jnp.asarray(labels), MARGIN),
        "binary": LOSSES["binary"][1],
    }[name]

    def mean(z):
        return losses(jnp.broadcast_to(z, (ROWS, CLASSES))).mean()

    slope = jax.jit(jax.value_and_grad(mean))
    z, best = jnp.asarray(RNG.normal(size=CLASSES), jnp.float32), np.inf
    for step in range(3000):
        value, gradient = slope(z)
        best, z = (
            min(best, float(value)),
            z - (0.5 if name != "hinge" else 0.3 / (1 + 0.02 * step)) * gradient,
        )
    assert references(labels)[name] - 1e-5 <= best <= references(labels)[name] + 0.01


@pytest.mark.full
@pytest.mark.parametrize(("mean", "std"), [(3.0, 2.0), (2000.0, 1.0), (1e5, 10.0)])
def test_the_reference_of_numbers_is_their_variance_also_far_from_zero(mean, std):
    values = RNG.normal(mean, std, (40, 16)).astype(np.float32)
    objective, kept = RegressionConfig(target="x", outputs=1).build(), jnp.zeros(3)
    given = RNG.random(values.shape) < 0.7
    for row, known in zip(values, given, strict=True):
        kept = jax.jit(objective.added)(
            kept, objective.sums(jnp.asarray(np.where(known, row, 0.0)), jnp.asarray(known))
        )
    weights = np.where(given, 0.999 ** np.arange(39, -1, -1)[:, None], 0.0)
    expected = np.average(
        np.square(values - np.average(values, weights=weights, axis=None).astype(np.float64)),
        weights=weights,
    )
    np.testing.assert_allclose(objective.reference(kept), expected, rtol=1e-3)


def of_constant(objective, answers, wanted):
    """The loss of an objective whose head answers so, and its variables."""

    class Told(type(objective)):
        def answers(self, encodings, model):
            return jnp.asarray(answers, jnp.float32)

    told = Told(
        **{
            field.name: getattr(objective, field.name)
            for field in dataclasses.fields(objective)
            if field.name not in ("parent", "name")
        }
    )
    batch = {"target_x": wanted}
    variables = told.init(jax.random.key(0), {}, batch, None)
    return told.apply(variables, {}, batch, None, mutable=list(variables)), variables


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_rows_without_a_class_add_nothing_and_are_counted(loss):
    given = np.arange(ROWS) % 3 > 0
    objective = ClassificationConfig(
        target="x",
        outputs=CLASSES,
        loss=loss,
        prior="batch",
        **(dict(label_smoothing=SMOOTHING) if loss == "softmax" else dict(margin=MARGIN)),
    ).build()
    (found, _), _ = of_constant(
        objective, LOGITS, jnp.asarray(np.where(given, LABELS, -1), jnp.int32)
    )
    losses, _ = LOSSES[loss][0]()
    np.testing.assert_allclose(found.value, losses[given].sum() / ROWS, rtol=1e-5)
    right = LOGITS.argmax(1) == LABELS
    np.testing.assert_allclose(found.metrics["accuracy"], right[given].mean(), rtol=1e-6)
    np.testing.assert_allclose(found.metrics["target_rate"], given.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        found.metrics["reference"], given.mean() * references(LABELS[given])[loss], rtol=1e-5
    )


def test_rows_without_scores_add_nothing_and_are_counted():
    scores = np.where(np.arange(ROWS)[:, None] % 4 == 0, 0.0, SCORES + 0.01)
    given = scores.any(1)
    objective = ClassificationConfig(
        target="x", outputs=CLASSES, loss="binary", prior="batch"
    ).build()
    (found, _), _ = of_constant(objective, LOGITS, jnp.asarray(scores, jnp.float32))
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    losses = -(scores * np.log(sigmoid) + (1 - scores) * np.log(1 - sigmoid)).sum(1)
    np.testing.assert_allclose(found.value, losses[given].sum() / ROWS, rtol=1e-5)
    np.testing.assert_allclose(
        found.metrics["soft_accuracy"],
        scores[np.arange(ROWS), LOGITS.argmax(1)][given].mean(),
        rtol=1e-5,
    )
    mean = scores[given].mean(0)
    entropy = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum()
    np.testing.assert_allclose(found.metrics["reference"], given.mean() * entropy, rtol=1e-5)


def test_rows_without_a_number_add_nothing_to_value_and_gradient():
    answers, wanted = RNG.normal(size=(6, 1)), np.array([0.5, np.nan, -1.0, 2.0, np.nan, 0.0])
    given = np.isfinite(wanted)
    objective = RegressionConfig(target="x", outputs=1, prior="batch").build()
    (found, _), _ = of_constant(objective, answers, jnp.asarray(wanted, jnp.float32))
    errors = answers[given, 0] - wanted[given]
    np.testing.assert_allclose(found.value, np.square(errors).sum() / 6, rtol=1e-5)
    np.testing.assert_allclose(found.metrics["absolute_error"], np.abs(errors).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        found.metrics["reference"], given.mean() * wanted[given].var(), rtol=1e-5
    )
    gradient = jax.grad(
        lambda x: of_constant(objective, x, jnp.asarray(wanted, jnp.float32))[0][0].value
    )(jnp.asarray(answers))
    np.testing.assert_allclose(
        gradient[:, 0],
        np.where(given, 2 * (answers[:, 0] - np.nan_to_num(wanted)) / 6, 0.0),
        rtol=1e-4,
    )


def test_the_running_prior_adds_up_the_targets_of_all_batches():
    objective, wanted = (
        ClassificationConfig(target="x", outputs=CLASSES).build(),
        jnp.asarray(LABELS, jnp.int32),
    )
    (found, changed), variables = of_constant(objective, LOGITS, wanted)
    counts = np.bincount(LABELS, minlength=CLASSES)
    np.testing.assert_array_equal(variables["targets"]["sums"], np.zeros(CLASSES))
    np.testing.assert_allclose(changed["targets"]["sums"], counts)
    frequencies = counts[counts > 0] / ROWS
    np.testing.assert_allclose(
        found.metrics["reference"], -(frequencies * np.log(frequencies)).sum(), rtol=1e-5
    )
    assert FADING == 0.999


@pytest.mark.variants
@pytest.mark.parametrize("hidden_dim", [None, 6])
def test_the_head_equals_numpy_and_gives_float32_in_bfloat16(hidden_dim):
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    head = TargetHead(hidden_dim, 3, 0.5, -2.0, Precision(), 0.1)
    variables = nn.meta.unbox(head.init(jax.random.key(0), x))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    assert (params["out"]["bias"] == -2.0).all()
    hidden = x.astype(np.float64)
    if hidden_dim:
        hidden = hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(
            hidden.var(1, keepdims=True) + 0.1
        )
        hidden = np.asarray(jax.nn.gelu(hidden, approximate=False), np.float64)
    np.testing.assert_allclose(
        head.apply(variables, x), hidden @ params["out"]["kernel"] - 2.0, rtol=1e-4, atol=1e-5
    )
    low = TargetHead(hidden_dim, 3, 0.5, -2.0, Precision(jnp.bfloat16))
    assert low.apply(variables, x).dtype == jnp.float32
    dropped = head.apply(variables, x, True, rngs={"dropout": jax.random.key(1)})
    assert np.abs(dropped - head.apply(variables, x)).max() > 1e-4


TARGETS = {
    "class": dict(kind="class", field="a", classes=4),
    "scores": dict(kind="scores", field="b", classes=3),
    "number": dict(kind="number", field="c"),
}


def config_of(features="fused", prior="batch", **changes):
    """An experiment with one objective for each kind of target."""
    shared = dict(features=features, prior=prior)
    objectives = dict(
        kind_of=dict(kind="classification", target="class", **shared),
        margin=dict(kind="classification", target="class", loss="hinge", hidden_dim=6, **shared),
        yes_no=dict(kind="classification", target="scores", loss="binary", **shared),
        how_much=dict(kind="regression", target="number", **shared),
    )
    fusion = dict(kind="concatenation", width=8, mlp_dim=8) if features == "fused" else None
    return experiment(data__targets=TARGETS, objectives=objectives, model__fusion=fusion, **changes)


def targets_of(rows=BATCH):
    rng = np.random.default_rng(3)
    number = rng.normal(size=rows).astype(np.float32)
    number[1] = np.nan
    return {
        "target_class": rng.integers(-1, 4, rows).astype(np.int32),
        "target_number": number,
        "target_scores": (rng.random((rows, 3)) * (np.arange(rows)[:, None] % 3 > 0)).astype(
            np.float32
        ),
    }


@pytest.mark.full
@pytest.mark.parametrize(
    "beside",
    [
        pytest.param({}, id="alone"),
        pytest.param(
            {"pairs": SoftmaxContrastiveConfig()},
            id="beside what couples the batch",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_microbatches_give_the_gradients_of_the_batch_though_their_rows_have_targets_unequally(
    beside,
):
    config, key = config_of(), jax.random.key(3)
    config = dataclasses.replace(config, objectives=config.objectives | beside)
    module, batch = build_module(config), batch_of() | targets_of()
    variables = nn.meta.unbox(initial_variables(module, example_batch(config), 0))
    assert set(variables) == {"params"}
    state = TrainState(jnp.int32(0), variables["params"], None, None, {}, jax.random.key_data(key))

    def gradients(count):
        changed = dataclasses.replace(config, accumulation=AccumulationConfig(microbatches=count))
        return jax.jit(lambda: loss_gradients(changed, module, state, batch, key)[:2])()

    (expected, metrics), (found, parts) = gradients(1), gradients(4)
    for path, value in leaves(expected).items():
        assert np.isfinite(value).all()
        assert np.abs(leaves(found)[path] - value).max() <= 1e-5 * np.abs(value).max() + 1e-7, path
    for name, value in metrics.items():
        if name.endswith("loss") or name.endswith("target_rate"):
            np.testing.assert_allclose(parts[name], value, rtol=1e-5, err_msg=name)


def test_a_running_prior_cannot_be_split_and_is_named():
    config = dataclasses.replace(
        config_of(prior="running"), accumulation=AccumulationConfig(microbatches=2)
    )
    module = build_module(config)
    shapes = jax.eval_shape(lambda: initial_variables(module, example_batch(config), 0))
    with pytest.raises(
        ConfigError,
        match="targets/objectives_how_much/sums is computed from "
        ".*objectives.how_much.prior='batch'",
    ):
        check_collections(config, {"targets": nn.meta.unbox(shapes)["targets"]})


@pytest.mark.full
@pytest.mark.parametrize("of", ["image", "text", "fused"])
def test_an_objective_reads_what_it_is_of_and_trains_nothing_else(of):
    config = config_of(of)
    module, batch = build_module(config), batch_of() | targets_of()
    batch = {name: jnp.asarray(value) for name, value in prepare(batch, config.data.images).items()}
    variables = nn.meta.unbox(initial_variables(module, example_batch(config), 0))
    assert (
        set(variables["params"]["model"])
        == {"image": {"image"}, "text": {"text"}, "fused": {"image", "text", "fusion"}}[of]
    )
    answers = {
        name: module.apply(variables, name, batch, method="predict") for name in config.objectives
    }
    assert {name: value.shape for name, value in answers.items()} == {
        "kind_of": (BATCH, 4),
        "margin": (BATCH, 4),
        "yes_no": (BATCH, 3),
        "how_much": (BATCH, 1),
    }
    other = (
        {**batch, "image": batch["image"][::-1]}
        if of == "text"
        else {**batch, "text": batch["text"][::-1]}
    )
    if of != "fused":
        found = module.apply(variables, "kind_of", other, method="predict")
        np.testing.assert_array_equal(found, answers["kind_of"])


def test_a_fused_objective_without_a_fusion_is_a_config_error():
    config = config_of()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, fusion=None))
    with pytest.raises(
        ConfigError, match="model.fusion: an objective with features='fused' needs one"
    ):
        module = PretrainingModule(config.model, flax.core.freeze(config.objectives), Precision())
        jax.eval_shape(lambda: initial_variables(module, example_batch(config), 0))
