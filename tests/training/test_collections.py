"""BatchNorm's running statistics in training: over any devices, from update to update, in
checkpoints and in evaluation."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import batch_of, experiment, leaves

import vlp_jax
from vlp_jax import evaluate, main
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.mesh import MeshConfig, batch_sharding, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_update, example_batch
from vlp_jax.training.guard import GuardConfig, fresh_guard, guarded
from vlp_jax.training.state import TrainState, create_state

ROOT = pathlib.Path(__file__).parents[2]
RESNET = dict(
    kind="resnet",
    depth=18,
    width=4,
    blocks=(1, 1),
    stem_size=3,
    stem_stride=1,
    max_pool=False,
    image_size=8,
)


def update_of(config, devices=1):
    mesh = build_mesh(MeshConfig(data=devices), jax.devices()[:devices])
    update = build_update(config, build_layout(config.mesh, mesh), 10)
    state = jax.jit(
        lambda: create_state(
            update.module, example_batch(config), update.optimizer, 0, config.ema is not None
        ),
        out_shardings=update.shardings,
    )()
    return update, state, mesh


def after(config, steps, devices=1):
    """The state after so many updates of one batch."""
    update, state, mesh = update_of(config, devices)
    for _ in range(steps):
        state = update.train_step(state, jax.device_put(batch_of(), batch_sharding(mesh)))[0]
    return state


@pytest.mark.slow
def test_each_update_moves_the_running_statistics_alike_on_one_device_and_on_eight():
    config = experiment(model__image=RESNET)
    start, one, eight = after(config, 0), after(config, 2), after(config, 2, devices=8)
    expected, found = leaves(one.collections), leaves(eight.collections)
    assert found.keys() == expected.keys() and {path.split("/")[0] for path in found} == {
        "batch_stats"
    }
    for path, value in expected.items():
        assert np.abs(value - leaves(start.collections)[path]).max() > 0, path
        np.testing.assert_allclose(found[path], value, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.full
@pytest.mark.parametrize(
    "changes",
    [
        dict(kind="resnet"),
        pytest.param(dict(kind="resnet", rematerialisation="full"), marks=pytest.mark.slow),
    ],
)
def test_a_frozen_tower_keeps_its_statistics_and_gives_in_training_what_it_gives_in_evaluation(
    changes,
):
    config = experiment(
        model__image=RESNET | changes,
        optimizer__frozen=("^model/image/",),
        model__text=dict(kind="bag", width=8, vocab_size=20, length=5),
    )
    update, state, mesh = update_of(config)
    start = leaves(state.collections)
    batch = jax.device_put(batch_of(), batch_sharding(mesh))
    shown = update.module.apply(
        {"params": state.params, **state.collections}, prepare(batch, config.data.images)
    )
    state, metrics = update.train_step(state, batch)
    assert start
    for path, value in leaves(state.collections).items():
        np.testing.assert_array_equal(value, start[path], err_msg=path)
    np.testing.assert_allclose(metrics["loss"], shown.value, rtol=1e-5)


@pytest.mark.full
def test_averaged_parameters_have_averaged_statistics():
    """Kingma and Ba's plain exponential moving average, in float64, of the live values after each
    update."""
    update, state, mesh = update_of(
        experiment(
            model__image=RESNET,
            ema=0.8,
            optimizer__learning_rate=0.1,
            model__text=dict(kind="bag", width=8, vocab_size=20, length=5),
        )
    )

    def expected_of(values, ema):
        return {path: 0.8 * ema[path] + 0.2 * np.float64(value) for path, value in values.items()}

    ema, statistics = leaves(state.ema), leaves(state.ema_statistics)
    for seed in range(3):
        state = update.train_step(state, jax.device_put(batch_of(seed=seed), batch_sharding(mesh)))[
            0
        ]
        ema, statistics = (
            expected_of(leaves(state.params), ema),
            expected_of(leaves(state.collections), statistics),
        )
    assert statistics and state.ema_variables["batch_stats"] is state.ema_statistics["batch_stats"]
    for found, expected in ((leaves(state.ema), ema), (leaves(state.ema_statistics), statistics)):
        assert found.keys() == expected.keys()
        for path, value in expected.items():
            np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    assert any(
        np.abs(value - leaves(state.collections)[path]).max() > 1e-3
        for path, value in statistics.items()
    )


@pytest.mark.parametrize("loss", [1.0, float("nan")])
def test_a_skipped_update_leaves_every_part_of_the_state_as_it_is(loss):
    parts = ("params", "optimizer", "ema", "collections", "ema_statistics")
    before, after_it = (
        TrainState(
            step=jnp.int32(step),
            rng=jnp.zeros(2, jnp.uint32),
            guard=fresh_guard(),
            **{part: {"x": jnp.full(2, value)} for part in parts},
        )
        for step, value in ((3, 1.0), (4, 2.0))
    )
    metrics = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(1.0)}
    state, _ = guarded(GuardConfig(non_finite="skip"), before, after_it, metrics)
    assert set(parts) | {"step", "rng", "guard"} == {
        field.name for field in dataclasses.fields(TrainState)
    }
    assert int(state.step) == 4
    for part in parts:
        np.testing.assert_array_equal(
            getattr(state, part)["x"], 2.0 if np.isfinite(loss) else 1.0, err_msg=part
        )


@pytest.mark.slow
def test_microbatches_of_a_frozen_tower_give_the_gradients_of_the_batch():
    whole, parts = (
        after(
            experiment(
                model__image=RESNET,
                optimizer__frozen=("^model/image/",),
                optimizer__kind="sgd",
                accumulation__microbatches=count,
            ),
            1,
        )
        for count in (1, 2)
    )
    start = leaves(
        after(experiment(model__image=RESNET, optimizer__frozen=("^model/image/",)), 0).params
    )
    assert any(
        np.abs(value - start[path]).max() > 0 for path, value in leaves(parts.params).items()
    )
    for path, value in leaves((whole.params, whole.collections)).items():
        np.testing.assert_allclose(
            leaves((parts.params, parts.collections))[path], value, atol=1e-6, err_msg=path
        )


@pytest.mark.slow
def test_microbatches_are_refused_with_batch_norm_and_work_with_group_norm():
    with pytest.raises(
        ConfigError,
        match="accumulation.microbatches: batch_stats/.* is computed from the whole batch",
    ):
        update_of(experiment(model__image=RESNET, accumulation__microbatches=2))
    whole, parts = (
        after(
            experiment(
                model__image=RESNET | dict(norm="group"),
                accumulation__microbatches=count,
                optimizer__kind="sgd",
            ),
            1,
        )
        for count in (1, 2)
    )
    for path, value in leaves(whole.params).items():
        np.testing.assert_allclose(leaves(parts.params)[path], value, atol=1e-6, err_msg=path)


@pytest.fixture
def train(tmp_path):
    def run(*changes):
        small = (
            "model.image.norm=batch",
            "model.image.groups=32",
            "model.image.width=4",
            "evaluators={}",
            "data.batch_size=8",
            "log_every=1",
            "checkpoint.every_steps=2",
        )
        changes = {change.split("=", 1)[0]: change for change in (*small, *changes)}.values()
        arguments = [
            f"--config={ROOT}/configs/clip_emoji_resnet.py:smoke",
            f"--workdir={tmp_path}/run",
        ]
        assert main.main([*arguments, *(f"--config.{change}" for change in changes)]) == 0
        return tmp_path / "run"

    return run


@pytest.mark.slow
def test_an_evaluation_in_the_loop_and_alone_goes_by_averaged_statistics(train):
    evaluators = "evaluators={'val': {'source': 'embedded:emoji/val_concept'}}"
    workdir = train("steps=4", "ema=0.9", "optimizer.schedule.kind=constant", evaluators)
    (_, averaged, _), (_, live, _) = vlp_jax.load(workdir), vlp_jax.load(workdir, ema=False)
    for name in ("params", "batch_stats"):
        assert any(
            np.abs(value - leaves(live[name])[path]).max() > 0
            for path, value in leaves(averaged[name]).items()
        ), name
    in_the_loop = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    rank = (
        "text_to_image_mean_rank"
        if "val/text_to_image_mean_rank" in in_the_loop
        else "text_to_image_median_rank"
    )
    alone = {}
    for ema in ("yes", "no"):
        assert (
            evaluate.main(
                [
                    f"--workdir={workdir}",
                    "--source=embedded:emoji/val_concept",
                    "--evaluators=retrieval",
                    f"--ema={ema}",
                    f"--output={workdir}/{ema}.json",
                ]
            )
            == 0
        )
        alone[ema] = json.loads((workdir / f"{ema}.json").read_text())
    assert alone["yes"][rank] == in_the_loop[f"val/{rank}"] and alone["no"] != alone["yes"]


@pytest.mark.slow
def test_a_checkpoint_keeps_the_running_statistics_for_resuming_and_for_evaluation(train, tmp_path):
    evaluators = "evaluators={'val': {'source': 'embedded:emoji/val_concept', 'every_steps': 2}}"
    workdir = train("steps=4", "optimizer.schedule.kind=constant", evaluators)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (workdir / "checkpoints" / "4").rename(tmp_path / "four")
    train("steps=4", "optimizer.schedule.kind=constant", evaluators)  # goes on from step 2
    again = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/loss"] for row in again] == [row["train/loss"] for row in rows]

    (model, two, _), (_, four, _) = vlp_jax.load(workdir, step=2), vlp_jax.load(workdir, step=4)
    assert set(four) == {"params", "batch_stats"}
    initial = {"mean": 0.0, "var": 1.0}
    for path, value in leaves(four["batch_stats"]).items():
        assert np.abs(value - initial[path.rsplit("/")[-1]]).max() > 0, path
        assert np.abs(value - leaves(two["batch_stats"])[path]).max() > 0, path
    pictures = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    one, both = (np.asarray(model.embed(four, image=rows)[0]) for rows in (pictures[:1], pictures))
    np.testing.assert_allclose(both[:1], one, atol=1e-5)  # no statistics of the batch
    fresh = {"params": four["params"], "batch_stats": two["batch_stats"]}
    assert np.abs(np.asarray(model.embed(fresh, image=pictures)[0]) - both).max() > 1e-5
