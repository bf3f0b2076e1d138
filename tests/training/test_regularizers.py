"""Penalties on parameters: their sums and slopes against float64 NumPy, once an update, and
patterns that find nothing."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import batch_of, experiment, leaves

from vlp_jax.errors import ConfigError
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import AccumulationConfig
from vlp_jax.training.build import build_update, example_batch
from vlp_jax.training.regularizers import RegularizerConfig, check_regularizers, penalty
from vlp_jax.training.state import create_state

KINDS = {"lasso": dict(l1=0.3), "ridge": dict(l2=0.2), "elastic net": dict(l1=0.3, l2=0.2)}
PENALTIES = {
    "towers": RegularizerConfig(l1=3e-3, l2=2e-2, pattern=r"^model/.*kernel$"),
    "words": RegularizerConfig(l2=5e-2, pattern="text/.*embedding"),
}


def drawn():
    rng = np.random.default_rng(0)
    params = {
        "image": {"kernel": rng.normal(size=(6, 5)), "bias": rng.normal(size=5)},
        "text": {"kernel": rng.normal(size=(4, 3))},
    }
    params["image"]["kernel"][0, :2] = 0.0
    return params


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_slopes_are_those_of_the_formula(kind):
    params = drawn()
    l1, l2 = (KINDS[kind].get(name, 0.0) for name in ("l1", "l2"))
    regularizer = RegularizerConfig(**KINDS[kind], pattern="^image/kernel")
    value, slopes = jax.value_and_grad(lambda params: penalty(regularizer, (), params))(
        jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    )
    w = params["image"]["kernel"]
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, l1 * np.abs(w).sum() + l2 * (w**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(slopes["image"]["kernel"], l1 * np.sign(w) + 2 * l2 * w, rtol=1e-6)
    assert not slopes["image"]["bias"].any() and not slopes["text"]["kernel"].any()


def test_groups_are_chosen_by_their_patterns_and_frozen_parameters_are_in_none():
    params = drawn()
    sizes = {
        pattern: float(penalty(RegularizerConfig(l1=1.0, pattern=pattern), frozen, params))
        for pattern, frozen in (("kernel$", ()), ("", ()), ("kernel", ("^text/",)))
    }
    image, bias, text = (
        np.abs(x).sum()
        for x in (params["image"]["kernel"], params["image"]["bias"], params["text"]["kernel"])
    )
    assert sizes == pytest.approx(
        {"kernel$": image + text, "": image + bias + text, "kernel": image}, rel=1e-6
    )


def updated(config, devices):
    """Parameters before and after one update, and its metrics."""
    mesh = build_mesh(config.mesh, jax.devices()[:devices])
    update = build_update(config, build_layout(config.mesh, mesh), 10)
    state = jax.jit(
        lambda: create_state(
            update.module, example_batch(config), update.optimizer, config.seed, False
        ),
        out_shardings=update.shardings,
    )()
    before = leaves(state.params)
    state, metrics = update.train_step(state, jax.device_put(batch_of(), batch_sharding(mesh)))
    return before, leaves(state.params), metrics


def descent(**changes):
    return experiment(
        optimizer__kind="sgd",
        optimizer__momentum=0.0,
        optimizer__weight_decay=0.0,
        optimizer__learning_rate=1.0,
        optimizer__schedule=dict(kind="constant"),
        **changes,
    )


@pytest.fixture(scope="module")
def without():
    return updated(descent(), 1)


@pytest.mark.full
@pytest.mark.parametrize(
    ("accumulation", "mesh"),
    [
        ((1, "batch"), dict(data=1)),
        ((4, "batch"), dict(data=1)),
        ((2, "microbatch"), dict(data=1)),
        ((2, "batch"), dict(data=2, fsdp=2, tensor=2, replicate_below=1)),
    ],
    ids=["at once", "microbatches", "microbatches for themselves", "microbatches on a mesh"],
)
def test_an_update_has_them_once_in_its_loss_and_its_gradients(accumulation, mesh, without):
    config = dataclasses.replace(
        descent(mesh=mesh),
        regularizers=PENALTIES,
        accumulation=AccumulationConfig(
            **dict(zip(("microbatches", "negatives"), accumulation, strict=False))
        ),
    )
    before, after, metrics = updated(config, MeshConfig(**mesh).fsdp ** 3)
    plain_before, plain_after, plain = without
    slopes, sums = {path: np.zeros_like(w, np.float64) for path, w in plain_before.items()}, {}
    for name, spec in PENALTIES.items():
        chosen = {
            path: w.astype(np.float64)
            for path, w in plain_before.items()
            if re.search(spec.pattern, path)
        }
        sums[name] = sum(
            spec.l1 * np.abs(w).sum() + spec.l2 * (w**2).sum() for w in chosen.values()
        )
        for path, w in chosen.items():
            slopes[path] += spec.l1 * np.sign(w) + 2 * spec.l2 * w
        np.testing.assert_allclose(metrics[f"regularizer/{name}"], sums[name], rtol=1e-5)
    np.testing.assert_allclose(
        metrics["loss"] - metrics["contrastive/loss"], sum(sums.values()), rtol=1e-4
    )
    if accumulation[1] == "microbatch":  # other negatives, another loss
        return
    np.testing.assert_allclose(metrics["contrastive/loss"], plain["loss"], rtol=1e-5)
    norm = 0.0
    for path, slope in slopes.items():
        np.testing.assert_allclose(before[path], plain_before[path], rtol=1e-6)
        np.testing.assert_allclose(plain_after[path] - after[path], slope, atol=2e-5, err_msg=path)
        norm += ((plain_before[path] - plain_after[path] + slope) ** 2).sum()
    np.testing.assert_allclose(metrics["gradient_norm"], norm**0.5, rtol=1e-4)


@pytest.mark.full
def test_a_parameter_that_no_objective_trains_yet_is_left_alone():
    planned = dict(contrastive=dict(kind="clip", weight_start=5), triplet=dict(kind="triplet"))
    before, after, _ = updated(descent(objectives=planned, regularizers=dict(all=dict(l2=0.1))), 1)
    moved = {path.split("/")[0] for path, value in after.items() if np.any(value != before[path])}
    assert moved == {"model"} and any(path.startswith("objectives_contrastive") for path in before)


@pytest.mark.parametrize(
    ("pattern", "frozen", "message"),
    [
        ("imgae/", (), "'imgae/' matches no parameter; paths look like image/bias"),
        ("(", (), "is not a regular expression"),
        ("^image/", ("image",), "matches none but parameters that optimizer.frozen keeps"),
    ],
)
def test_a_pattern_that_finds_nothing_is_named(pattern, frozen, message):
    with pytest.raises(ConfigError, match=re.escape("regularizers.small.pattern: ")) as error:
        check_regularizers({"small": RegularizerConfig(l1=1.0, pattern=pattern)}, frozen, drawn())
    assert message in str(error.value)


def test_a_config_whose_pattern_finds_nothing_builds_no_update():
    config = dataclasses.replace(
        experiment(), regularizers={"small": RegularizerConfig(l1=1.0, pattern="nowhere")}
    )
    with pytest.raises(
        ConfigError, match="regularizers.small.pattern: 'nowhere' matches no parameter"
    ):
        build_update(config, build_layout(config.mesh, build_mesh(config.mesh)), 10)
