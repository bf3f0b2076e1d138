"""One update: what it computes, and what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_experiment import batch_of, experiment, leaves

from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module
from vlp_jax.training.optimizer import build_optimizer
from vlp_jax.training.state import boxed_parameters, create_state, fingerprint
from vlp_jax.training.step import build_train_step


def start(config):
    """The compiled update and the state before it."""
    module, rate = build_module(config), optax.constant_schedule(config.optimizer.learning_rate)
    example = prepare(batch_of(), config.data.images)
    optimizer = build_optimizer(config.optimizer, rate, boxed_parameters(module, example))
    step = build_train_step(config, module, optimizer, rate)
    state = jax.jit(
        lambda: create_state(module, example, optimizer, config.seed, config.ema is not None)
    )()
    return jax.jit(step), state


@pytest.fixture(scope="module")
def averaging():
    return start(experiment(ema=0.9))


@pytest.mark.full
def test_updates_bring_the_loss_down_and_report_it(averaging):
    step, state = averaging
    rows = []
    for _ in range(15):
        state, metrics = step(state, batch_of())
        rows.append({key: float(value) for key, value in metrics.items()})
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[0].keys() == {
        "loss",
        "gradient_norm",
        "learning_rate",
        "contrastive/loss",
        "contrastive/scale",
        "contrastive/batch_accuracy",
        "contrastive/uniform",
    }
    assert rows[0]["learning_rate"] == pytest.approx(0.01) and rows[0]["gradient_norm"] > 0
    assert int(state.step) == 15


@pytest.mark.full
def test_an_update_is_a_function_of_state_and_batch_and_leaves_the_key_alone():
    step, state = start(experiment(model__image__stochastic_depth=0.5, model__image__depth=2))
    (a, first), (b, again) = step(state, batch_of()), step(state, batch_of())
    jax.tree.map(np.testing.assert_array_equal, (a, first), (b, again))
    np.testing.assert_array_equal(a.rng, state.rng)
    _, later = step(state.replace(step=state.step + 1), batch_of())
    assert float(later["loss"]) != float(first["loss"])  # other branches are dropped


def test_the_average_is_the_recursion_over_parameters(averaging):
    step, state = averaging
    ema = leaves(state.params)
    for _ in range(3):
        state, _ = step(state, batch_of())
        ema = {path: 0.9 * ema[path] + 0.1 * value for path, value in leaves(state.params).items()}
    for path, value in leaves(state.ema).items():
        np.testing.assert_allclose(value, ema[path], rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.full
def test_a_frozen_tower_keeps_every_bit_while_the_other_learns():
    step, state = start(experiment(optimizer__frozen=("^model/image/",)))
    assert state.ema is None
    before = leaves(state.params)
    for _ in range(3):
        state, metrics = step(state, batch_of())
    for path, value in leaves(state.params).items():
        assert np.array_equal(value, before[path]) == path.startswith("model/image/"), path
    assert not any("image/" in path for path in leaves(state.optimizer))
    assert np.isfinite(float(metrics["gradient_norm"]))


@pytest.mark.full
def test_the_scale_is_clamped_after_each_update():
    objective = dict(kind="clip", initial_scale=99.99, maximum_scale=100.0)
    step, state = start(
        experiment(
            objectives=dict(contrastive=objective),
            optimizer__learning_rate=1.0,
            optimizer__kind="sgd",
            optimizer__weight_decay=0.0,
        )
    )
    scales = []
    for seed in range(6):
        state, _ = step(state, batch_of(seed=seed))
        scales.append(float(jnp.exp(state.params["objectives_contrastive"]["log_scale"])))
    assert all(1.0 - 1e-5 <= scale <= 100.001 for scale in scales)
    assert any(
        scale == pytest.approx(limit, rel=1e-5) for scale in scales for limit in (1.0, 100.0)
    ), scales


@pytest.mark.full
def test_sigmoid_starts_at_scale_10_and_bias_minus_10():
    _, state = start(experiment(objectives=dict(contrastive=dict(kind="siglip"))))
    params = state.params["objectives_contrastive"]
    np.testing.assert_allclose(
        [jnp.exp(params["log_scale"]), params["bias"]], [10.0, -10.0], rtol=1e-6
    )


TREE = {
    "a": np.arange(1, 7, dtype=np.float32).reshape(2, 3),
    "b": np.arange(1, 7, dtype=np.float32).reshape(2, 3) * -1,
    "c": np.array([True, False]),
    "d": np.int32(7),
    "e": np.arange(4, dtype=np.uint8),
}


def with_flipped_bit(name, place, bit):
    """TREE with one bit of the bytes of one array turned over."""
    value = np.asarray(TREE[name])
    content = bytearray(value.tobytes())
    content[place] ^= 1 << bit
    return {**TREE, name: np.frombuffer(bytes(content), value.dtype).reshape(value.shape)}


def test_the_fingerprint_changes_with_every_bit():
    trees = (TREE, *({**TREE, "c": TREE["c"] ^ flip} for flip in ([True, False], [False, True])))
    seen = [int(fingerprint(tree)) for tree in trees]
    seen += [
        int(fingerprint(with_flipped_bit(name, place, bit)))
        for name in "abde"
        for place in range(np.asarray(TREE[name]).nbytes)
        for bit in range(8)
    ]
    assert len(seen) == len(set(seen)) > 400


def test_the_fingerprint_changes_with_two_signs_and_with_every_order():
    a, b = TREE["a"], TREE["b"]
    others = [
        {**TREE, "a": -a},
        {**TREE, "a": a * np.array([[1, -1, 1], [1, -1, 1]], np.float32)},
        {**TREE, "a": b, "b": a},
        {**TREE, "a": a[::-1]},
        {**TREE, "a": a[:, ::-1]},
        {**TREE, "a": a.reshape(3, 2)},
        {**TREE, "a": a[:, [1, 0, 2]]},
        {**TREE, "a": a.ravel()},
        {**TREE, "c": TREE["c"][::-1]},
    ]
    assert len({int(fingerprint(tree)) for tree in (TREE, *others)}) == 1 + len(others)


def test_the_fingerprint_does_not_depend_on_how_arrays_lie_on_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(
        TREE["a"], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    )
    assert int(fingerprint({**TREE, "a": spread})) == int(fingerprint(TREE))
