"""Updates that are skipped, with losses and gradients that are spoilt on purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlp_jax.errors import TrainingError
from vlp_jax.training.guard import GuardConfig, check_skips, fresh_guard, guarded, skips_updates
from vlp_jax.training.state import TrainState, all_finite

SPIKES = GuardConfig(spike_factor=20.0, spike_after=3, spike_decay=0.5)
SKIP = GuardConfig(non_finite="skip")


def train(guard, spoil=(), losses=(), steps=6):
    """The states and metrics of a small descent with Adam, whose gradients at step s are multiplied
    by spoil[s] and whose loss there is losses[s]; the rate falls with the step.
    """
    optimizer = optax.chain(
        optax.scale_by_adam(), optax.scale_by_learning_rate(optax.linear_schedule(0.01, 0.0, steps))
    )

    @jax.jit
    def update(state, factor, loss):
        gradients = jax.tree.map(lambda leaf: (jnp.cos(leaf) + 2.0) * factor, state.params)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 0.1)
        after = state.replace(step=state.step + 1, params=params, optimizer=moments, ema=ema)
        return guarded(
            guard, state, after, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        )

    params = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.zeros(3)}
    state = TrainState(
        jnp.int32(0),
        params,
        optimizer.init(params),
        params,
        {},
        jnp.zeros(2, jnp.uint32),
        fresh_guard(),
    )
    states, rows = [state], []
    for step in range(steps):
        state, metrics = update(
            state, jnp.float32(dict(spoil).get(step, 1.0)), jnp.float32(dict(losses).get(step, 3.0))
        )
        states.append(state)
        rows.append({key: float(value) for key, value in metrics.items()})
    return states, rows


def same(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    "bad", [{"spoil": {2: np.nan, 3: np.inf}}, {"losses": {2: np.nan, 3: -np.inf}}]
)
def test_an_update_that_is_not_finite_is_skipped_and_counted_and_the_run_goes_on(bad):
    states, rows = train(SKIP, **bad)
    assert [row["skipped_updates"] for row in rows] == [0, 0, 1, 2, 2, 2]
    assert [row["consecutive_skips"] for row in rows] == [0, 0, 1, 2, 0, 0]
    for kept in (
        lambda state: state.params,
        lambda state: state.ema,
        lambda state: state.optimizer[0],
    ):
        assert same(kept(states[2]), kept(states[4])) and not same(kept(states[4]), kept(states[5]))
    assert [int(state.step) for state in states] == list(range(7))
    assert int(states[-1].optimizer[0].count) == 4
    assert all_finite(states[-1])


def test_the_rate_follows_the_step_through_a_skip():
    states, _ = train(SKIP, {0: np.nan})
    change = np.abs(states[2].params["kernel"] - states[1].params["kernel"])
    # Adam's first update is the rate itself
    np.testing.assert_allclose(change, 0.01 * 5 / 6, rtol=1e-4)


def test_a_spike_is_skipped_by_its_size_beside_the_running_mean():
    states, rows = train(SPIKES, {1: 1e3, 6: 1e4}, steps=8)
    mean, made, skipped = 0.0, 0, []
    # the rule again, in float64
    for norm in np.array([row["gradient_norm"] for row in rows], np.float64):
        spike = made >= 3 and norm > 20.0 * mean / (1 - 0.5**made)
        skipped.append(bool(spike))
        if not spike:
            mean, made = 0.5 * mean + 0.5 * norm, made + 1
    assert np.diff([0, *(row["skipped_updates"] for row in rows)]).astype(bool).tolist() == skipped
    assert skipped == [False] * 6 + [True, False]  # step 1 came before spikes are told
    assert same(states[6].params, states[7].params)
    assert float(states[-1].guard.total) == pytest.approx(mean, rel=1e-5)


def test_a_spike_can_be_told_by_the_loss():
    guard = GuardConfig(spike_factor=2.0, spike_of="loss", spike_after=2)
    _, rows = train(guard, losses={0: 3.0, 3: 5.9, 4: 8.0})
    assert [row["skipped_updates"] for row in rows] == [0, 0, 0, 0, 1, 1]


def test_what_is_not_finite_is_left_to_the_host_where_only_spikes_are_skipped():
    states, rows = train(SPIKES, {4: np.nan})
    assert rows[-1]["skipped_updates"] == 0
    assert not all_finite(states[-1].params)
    assert np.isfinite(states[-1].guard.total)


def test_the_defaults_skip_nothing():
    assert not skips_updates(GuardConfig())
    assert skips_updates(SKIP) and skips_updates(SPIKES)


def test_too_many_skips_in_a_row_stop_the_run():
    guard = GuardConfig(maximum_skips=2)
    check_skips(guard, 2.0, 7, lambda: "it is there")
    with pytest.raises(
        TrainingError,
        match=r"3 updates in a row were skipped up to step 8, more "
        r"than guard.maximum_skips=2; ",
    ):
        check_skips(guard, 3.0, 8, lambda: "it is there")
