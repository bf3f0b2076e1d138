"""Learning-rate schedules against their closed forms, and the length of a run."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from vlp_jax.data.config import DataConfig
from vlp_jax.errors import ConfigError
from vlp_jax.experiment import Experiment
from vlp_jax.training.schedule import (
    CosineConfig,
    ScheduleConfig,
    WarmupStableDecayConfig,
    build_schedule,
    total_steps,
)

RATE, STEPS, WARMUP = 2e-3, 100, 10


def rates(kind, at, **fields):
    schedule = jax.jit(
        build_schedule(ScheduleConfig.of(kind, warmup=float(WARMUP), **fields), RATE, STEPS)
    )
    return np.array([schedule(np.int32(step)) for step in at]) / RATE


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "rsqrt", "warmup_stable_decay"])
def test_every_kind_warms_up_linearly_from_zero(kind):
    expected = np.array([0, 0.1, 0.5, 0.9])
    slow = dict(timescale=1e9) if kind == "rsqrt" else {}
    np.testing.assert_allclose(rates(kind, [0, 1, 5, 9], **slow), expected, rtol=1e-6)
    assert rates(kind, [10]) == pytest.approx(1.0)


def test_cosine_falls_to_its_final_value():
    at = [10, 25, 55, 90, 100]
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in at]
    np.testing.assert_allclose(rates("cosine", at, final=0.1), expected, rtol=1e-5)
    np.testing.assert_allclose(rates("cosine", [100]), 0.0, atol=1e-7)


def test_linear_falls_to_its_final_value():
    at = [10, 25, 55, 100]
    np.testing.assert_allclose(
        rates("linear", at, final=0.2), [1 - 0.8 * (step - 10) / 90 for step in at], rtol=1e-5
    )


def test_constant_stays():
    np.testing.assert_allclose(rates("constant", [10, 50, 100]), 1.0)


def test_rsqrt_falls_with_the_root_and_cools_down():
    at = [10, 40, 80]
    expected = [math.sqrt(30 / (30 + step - 10)) for step in at]
    np.testing.assert_allclose(rates("rsqrt", at, timescale=30.0, decay=20.0), expected, rtol=1e-5)
    at = [85, 95, 100]
    expected = [math.sqrt(30 / (30 + step - 10)) * (0.1 + 0.9 * (100 - step) / 20) for step in at]
    np.testing.assert_allclose(
        rates("rsqrt", at, timescale=30.0, decay=20.0, final=0.1), expected, rtol=1e-5
    )
    np.testing.assert_allclose(
        rates("rsqrt", [100], timescale=30.0, decay=0.0), math.sqrt(30 / 120), rtol=1e-5
    )


def test_warmup_stable_decay_stays_and_falls_linearly_at_the_end():
    np.testing.assert_allclose(
        rates("warmup_stable_decay", [10, 60, 80, 85, 100], decay=20.0, final=0.2),
        [1, 1, 1, 0.8, 0.2],
        rtol=1e-5,
    )


@pytest.mark.parametrize("period", [20.0, 0.2])
def test_exponential_multiplies_the_rate_once_a_period_down_to_its_final_value(period):
    """As BLIP's code: max(0.9^epoch, least) of the rate in an epoch, the first of which holds the
    warm-up (utils.py)."""
    steps = np.arange(100)
    expected = np.maximum(0.5 ** (steps // 20), 0.2) * np.minimum(steps / WARMUP, 1.0)
    np.testing.assert_allclose(
        rates("exponential", steps, factor=0.5, period=period, final=0.2), expected, rtol=1e-6
    )


def test_lengths_below_one_are_fractions_of_the_run():
    for fraction, steps in ((0.1, 10.0), (0.25, 25.0)):
        by_fraction, by_steps = (
            build_schedule(CosineConfig(warmup=warmup), RATE, STEPS) for warmup in (fraction, steps)
        )
        assert [float(by_fraction(step)) for step in range(0, 101, 7)] == [
            float(by_steps(step)) for step in range(0, 101, 7)
        ]


@pytest.mark.parametrize("kind", ScheduleConfig.kinds)
def test_no_schedule_is_negative_or_not_finite_even_past_the_end_or_without_warmup(kind):
    for warmup in (0.0, 100.0):
        none = dict(decay=0.0) if kind in ("rsqrt", "warmup_stable_decay") else {}
        schedule = build_schedule(ScheduleConfig.of(kind, warmup=warmup, **none), RATE, STEPS)
        values = np.array([schedule(step) for step in (0, 1, 99, 100, 101, 10_000)])
        assert (
            np.isfinite(values).all() and (values >= 0).all() and (values <= RATE * 1.000001).all()
        )


def test_warmup_and_decay_that_do_not_fit_the_run_are_a_config_error():
    with pytest.raises(
        ConfigError,
        match=r"warmup \(60 steps\) and decay \(50\) are longer than "
        r"the run \(100\)",
    ):
        build_schedule(WarmupStableDecayConfig(warmup=60.0, decay=0.5), RATE, STEPS)
    build_schedule(CosineConfig(warmup=60.0), RATE, STEPS)  # which has no decay


def test_the_length_of_a_run_comes_from_steps_examples_or_epochs_rounded_up():
    config = Experiment(data=DataConfig(batch_size=32))
    for duration, steps in (
        (dict(steps=7), 7),
        (dict(examples=65), 3),
        (dict(examples=64), 2),
        (dict(epochs=1.0), 4),
        (dict(epochs=2.5), 8),
        (dict(epochs=0.001), 1),
    ):
        assert total_steps(dataclasses.replace(config, **duration), examples_per_epoch=100) == steps


@pytest.mark.variants
@pytest.mark.parametrize("kind", ScheduleConfig.kinds)
def test_every_setting_of_a_kind_changes_its_rates(kind):
    # or nothing would happen in so few steps
    short = dict(period=20.0) if kind == "exponential" else {}
    usual, changed = (
        rates(kind, range(101), **short),
        dict(decay=0.3, timescale=50.0, factor=0.5, period=30.0, final=0.9),
    )
    for field in dataclasses.fields(ScheduleConfig.kinds[kind])[
        len(dataclasses.fields(ScheduleConfig)) :
    ]:
        assert not np.array_equal(
            rates(kind, range(101), **short | {field.name: changed[field.name]}), usual
        ), field.name
