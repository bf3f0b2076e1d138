"""One update: what it computes, what it keeps, and what accumulation may and may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlp_jax.config import base, to_config
from vlp_jax.errors import ConfigError
from vlp_jax.training.assembly import make_module
from vlp_jax.training.optimizer import make_optimizer
from vlp_jax.training.state import abstract_parameters, fingerprint, make_state
from vlp_jax.training.step import accumulate, make_train_step, prepare

TOWER = dict(preset="Ti", width=8, depth=1, heads=2, mlp_dim=8)
BATCH = 8


def experiment(**changes):
    """A config whose towers are as small as they get; `changes` are dotted keys with __ for the dot."""
    config = base()
    config.update(steps=10, objectives=dict(contrastive=dict(kind="softmax")))
    config.data.batch_size = BATCH
    config.model.image.update(TOWER, patch_size=4, image_size=8)
    config.model.text.update(TOWER, vocab_size=20, length=5)
    config.optimizer.update(rate=0.01, weight_decay=0.1)
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value
    return to_config(config.to_dict())


def batch_of(rows=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([np.arange(rows), np.arange(rows)], axis=1).astype(np.int32)
    return {"image": rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8),
            "text": rng.integers(0, 20, (rows, 5)).astype(np.int32),
            "text_mask": np.arange(5) < rng.integers(1, 6, (rows, 1)), "caption_id": ids, "image_id": ids + 100}


def start(config):
    """The compiled update and the state before it."""
    module, rate = make_module(config), optax.constant_schedule(config.optimizer.rate)
    example = prepare(batch_of(), config.data.images)
    optimizer = make_optimizer(config.optimizer, rate, abstract_parameters(module, example))
    step = make_train_step(config, module, optimizer, rate)
    state = jax.jit(lambda: make_state(module, example, optimizer, config.seed, config.ema is not None))()
    return jax.jit(step), state


@pytest.fixture(scope="module")
def averaging():
    return start(experiment(ema=0.9))


def leaves(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_updates_bring_the_loss_down_and_report_it(averaging):
    step, state = averaging
    rows = []
    for _ in range(15):
        state, metrics = step(state, batch_of())
        rows.append({key: float(value) for key, value in metrics.items()})
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[0].keys() == {"loss", "gradient_norm", "learning_rate", "contrastive/loss", "contrastive/scale",
                              "contrastive/batch_accuracy"}
    assert rows[0]["learning_rate"] == pytest.approx(0.01) and rows[0]["gradient_norm"] > 0
    assert int(state.step) == 15


def test_an_update_is_a_function_of_state_and_batch_and_leaves_the_key_alone():
    step, state = start(experiment(model__image__stochastic_depth=0.5, model__image__depth=2))
    (a, first), (b, again) = step(state, batch_of()), step(state, batch_of())
    jax.tree.map(np.testing.assert_array_equal, (a, first), (b, again))
    np.testing.assert_array_equal(a.rng, state.rng)
    _, later = step(state.replace(step=state.step + 1), batch_of())
    assert float(later["loss"]) != float(first["loss"])  # other branches are dropped


def test_the_average_is_the_recursion_over_parameters(averaging):
    step, state = averaging
    average = leaves(state.params)
    for _ in range(3):
        state, _ = step(state, batch_of())
        average = {path: 0.9 * average[path] + 0.1 * value for path, value in leaves(state.params).items()}
    for path, value in leaves(state.average).items():
        np.testing.assert_allclose(value, average[path], rtol=1e-5, atol=1e-7, err_msg=path)


def test_a_frozen_tower_keeps_every_bit_while_the_other_learns():
    step, state = start(experiment(optimizer__frozen=("^model/image/",)))
    assert state.average is None
    before = leaves(state.params)
    for _ in range(3):
        state, metrics = step(state, batch_of())
    for path, value in leaves(state.params).items():
        assert np.array_equal(value, before[path]) == path.startswith("model/image/"), path
    assert not any("image/" in path for path in leaves(state.optimizer))
    assert np.isfinite(float(metrics["gradient_norm"]))


def test_the_scale_is_clamped_after_each_update():
    objective = dict(kind="softmax", initial_scale=99.99, maximum_scale=100.0)
    step, state = start(experiment(objectives=dict(contrastive=objective), optimizer__rate=1.0, optimizer__kind="sgd",
                                   optimizer__weight_decay=0.0))
    scales = []
    for seed in range(6):
        state, _ = step(state, batch_of(seed=seed))
        scales.append(float(jnp.exp(state.params["objectives_contrastive"]["log_scale"])))
    assert all(1.0 - 1e-5 <= scale <= 100.001 for scale in scales)
    assert any(scale == pytest.approx(limit, rel=1e-5) for scale in scales for limit in (1.0, 100.0)), scales


def test_sigmoid_starts_at_scale_10_and_bias_minus_10():
    _, state = start(experiment(objectives=dict(contrastive=dict(kind="sigmoid"))))
    params = state.params["objectives_contrastive"]
    np.testing.assert_allclose([jnp.exp(params["log_scale"]), params["bias"]], [10.0, -10.0], rtol=1e-6)


@pytest.mark.parametrize(("kind", "count"), [("softmax", 2), ("sigmoid", 4)])
def test_plain_accumulation_is_the_mean_over_microbatches(kind, count):
    config = experiment(objectives=dict(contrastive=dict(kind=kind)),
                        accumulation=dict(microbatches=count, negatives="microbatch"))
    module, (_, state) = make_module(config), start(config)
    batch = prepare(batch_of(), config.data.images)
    gradient = jax.jit(lambda batch, count: accumulate(module, state, batch, jax.random.key(0), count), static_argnums=1)
    parts = [gradient({name: value[i::count] for name, value in batch.items()}, 1) for i in range(count)]
    expected = jax.tree.map(lambda *values: sum(values) / count, *parts)
    gradients, metrics = gradient(batch, count)
    for path, value in leaves(gradients).items():
        np.testing.assert_allclose(value, leaves(expected[0])[path], rtol=1e-4, atol=1e-6, err_msg=path)
    assert float(metrics["loss"]) == pytest.approx(float(expected[1]["loss"]), rel=1e-5)
    assert abs(float(gradient(batch, 1)[1]["loss"]) - float(metrics["loss"])) > 1e-4  # fewer negatives: another loss


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_accumulation_is_refused_for_an_objective_that_compares_examples_and_the_message_names_it(kind):
    config = experiment(objectives=dict(my_loss=dict(kind=kind)), accumulation=dict(microbatches=2))
    with pytest.raises(ConfigError, match=r"objectives\.my_loss .*accumulation\.negatives='microbatch'"):
        start(config)


def test_microbatches_must_divide_the_batch():
    config = experiment(accumulation=dict(microbatches=3, negatives="microbatch"))
    with pytest.raises(ConfigError, match="3 does not divide data.batch_size 8"):
        start(config)


TREE = {"a": np.arange(1, 7, dtype=np.float32).reshape(2, 3), "b": np.arange(1, 7, dtype=np.float32).reshape(2, 3) * -1,
        "c": np.array([True, False]), "d": np.int32(7), "e": np.arange(4, dtype=np.uint8)}


def with_flipped_bit(name, place, bit):
    """TREE with one bit of the bytes of one array turned over."""
    value = np.asarray(TREE[name])
    content = bytearray(value.tobytes())
    content[place] ^= 1 << bit
    return {**TREE, name: np.frombuffer(bytes(content), value.dtype).reshape(value.shape)}


def test_the_fingerprint_changes_with_every_bit():
    trees = (TREE, *({**TREE, "c": TREE["c"] ^ flip} for flip in ([True, False], [False, True])))
    seen = [int(fingerprint(tree)) for tree in trees]
    seen += [int(fingerprint(with_flipped_bit(name, place, bit))) for name in "abde"
             for place in range(np.asarray(TREE[name]).nbytes) for bit in range(8)]
    assert len(seen) == len(set(seen)) > 400


def test_the_fingerprint_changes_with_two_signs_and_with_every_order():
    a, b = TREE["a"], TREE["b"]
    others = [{**TREE, "a": -a}, {**TREE, "a": a * np.array([[1, -1, 1], [1, -1, 1]], np.float32)}, {**TREE, "a": b, "b": a},
              {**TREE, "a": a[::-1]}, {**TREE, "a": a[:, ::-1]}, {**TREE, "a": a.reshape(3, 2)}, {**TREE, "a": a[:, [1, 0, 2]]},
              {**TREE, "a": a.ravel()}, {**TREE, "c": TREE["c"][::-1]}]
    assert len({int(fingerprint(tree)) for tree in (TREE, *others)}) == 1 + len(others)


def test_the_fingerprint_does_not_depend_on_how_arrays_lie_on_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(TREE["a"], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert int(fingerprint({**TREE, "a": spread})) == int(fingerprint(TREE))
