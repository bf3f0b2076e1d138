"""What a run says about its speed: against closed formulas, and on one small run whose rows, table
and trace are read."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlp_jax import main
from vlp_jax.config import base, to_config
from vlp_jax.errors import ConfigError
from vlp_jax.hardware.chips import CHIPS
from vlp_jax.training.hooks import goodput, throughput
from vlp_jax.training.hooks.clock import Clock, LastUpdate
from vlp_jax.training.hooks.compilations import COMPILED, WatchedStep, compile_events, difference
from vlp_jax.training.hooks.throughput import UTILISATION, Throughput

ROOT = pathlib.Path(__file__).parents[3]
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    """Two fresh runs of one config, each with its workdir and what it printed."""
    done = []
    for name in ("first", "second"):
        workdir = tmp_path_factory.mktemp("speed") / name
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert (
                main.main(
                    [
                        f"--config={ROOT}/configs/clip_emoji.py:smoke",
                        f"--workdir={workdir}",
                        *tiny("steps=5", "profile.start=2", "profile.steps=2", SYNTHETIC),
                    ]
                )
                == 0
            )
        done.append((workdir, printed.getvalue()))
    return done


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def goodput_of(row):
    return {key: value for key, value in row.items() if key.startswith("goodput/")}


def test_a_trace_that_would_never_start_is_refused(tmp_path, tiny):
    with pytest.raises(ConfigError, match="profile.start: 9 is never reached, the run has 5 steps"):
        main.main(
            [
                f"--config={ROOT}/configs/clip_emoji.py:smoke",
                f"--workdir={tmp_path}/run",
                *tiny("steps=5", "profile.start=9", SYNTHETIC),
            ]
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_every_row_tells_the_speed_and_where_the_time_went(runs):
    for row in rows(runs[0][0]):
        # a step's seconds are without what it waited for its data
        computing = 1 - row["train/data_wait_fraction"]
        assert row["train/step_seconds"] * row["train/examples_per_second"] == pytest.approx(
            8 * computing
        )
        assert row["train/examples_per_second_per_device"] == pytest.approx(
            row["train/examples_per_second"] / 8
        )
        shares = goodput_of(row)
        assert shares.keys() == {f"goodput/{name}" for name in ("training", *goodput.PHASES)}
        assert all(0 <= share <= 1 for share in shares.values()) and sum(
            shares.values()
        ) == pytest.approx(1)
        assert row["train/compilations"] == 1 and row["train/compile_seconds"] > 0
        # a CPU has no known peak and does not tell
        assert UTILISATION not in row and "train/device_memory_bytes" not in row


@pytest.mark.full
def test_the_table_at_the_end_and_the_live_line_say_na_where_the_peak_is_unknown(runs):
    workdir, printed = runs[0]
    table = dict(
        line.split("  ", 1) for line in printed.split("\n\n")[-1].splitlines() if "  " in line
    )
    table = {key: value.strip() for key, value in table.items()}
    assert table["model flops utilisation"] == "n/a"
    assert float(table["seconds a step"]) == pytest.approx(
        rows(workdir)[-1]["train/step_seconds"], rel=0.01
    )
    assert sum(float(value) for value in goodput_of(table).values()) == pytest.approx(1, abs=1e-3)
    assert float(table["goodput/checkpoint_stall"]) > 0  # the last save is in the table
    assert "utilisation n/a" in printed


@pytest.mark.full
def test_a_second_start_reads_the_program_from_the_cache(runs):
    assert rows(runs[1][0])[-1]["train/compilations_from_cache"] == 1
    assert "1, of which 1 read from the cache" in runs[1][1]


@pytest.mark.slow
def test_programs_are_cached_with_nothing_set(tmp_path, tiny):
    """In processes of their own, without the thresholds that these tests set: a step that takes a
    second to compile is kept."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for number in range(2):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "vlp_jax.main",
                f"--config={ROOT}/configs/clip_emoji.py:smoke",
                f"--workdir={tmp_path}/{number}",
                *tiny("steps=1", SYNTHETIC),
            ],
            env=environment,
            cwd=ROOT,
            check=True,
        )
        assert rows(tmp_path / str(number))[-1]["train/compilations_from_cache"] == number
    assert os.listdir(tmp_path / "cache" / "vlp_jax")


@pytest.mark.full
def test_the_window_of_updates_is_recorded_for_tensorboard(runs):
    """Updates 2 and 3 and no others, where TensorBoard's profile plugin looks."""
    [trace] = (runs[0][0] / "profile/plugins/profile").glob("*/*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(trace))
    steps = [
        dict(event.stats).get("step_num")
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    assert sorted(step for step in steps if step is not None) == [2, 3]


# Formulas


def speed_of(monkeypatch, device, flops=3e9, devices=4):
    monkeypatch.setattr(throughput, "train_step_flops", lambda config: flops)
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    mesh = SimpleNamespace(size=devices, local_devices=[device])
    return Throughput(to_config(config.to_dict()), mesh)


@pytest.mark.parametrize("chip", ["v5e", "h100"])
def test_utilisation_is_model_flops_over_the_peak_of_all_devices(monkeypatch, chip):
    memory = {"bytes_in_use": 5, "peak_bytes_in_use": 7}
    device = SimpleNamespace(device_kind=CHIPS[chip].device_kinds[0], memory_stats=lambda: memory)
    row = speed_of(monkeypatch, device).row({"examples_per_second": 100.0, "step_seconds": 0.25})
    assert row[UTILISATION] == pytest.approx(3e9 / 0.25 / (4 * CHIPS[chip].flops))
    assert row["train/examples_per_second_per_device"] == 25.0
    assert (row["train/device_memory_bytes"], row["train/device_memory_peak_bytes"]) == (5, 7)


def test_without_a_known_peak_there_is_no_utilisation(monkeypatch):
    row = speed_of(
        monkeypatch, SimpleNamespace(device_kind="abacus", memory_stats=lambda: None)
    ).row({"examples_per_second": 100.0, "step_seconds": 0.25})
    assert UTILISATION not in row and not any("memory" in key for key in row)


def test_a_lap_counts_its_steps(monkeypatch):
    clock = Clock()
    clock.lap_start -= 10.0
    clock.count_step(1.0)
    clock.count_step(1.5)
    lap = clock.lap(batch_size=8)
    # without the 2.5 seconds of waiting
    assert lap["step_seconds"] == pytest.approx(3.75, rel=0.05)
    assert lap["examples_per_second"] == pytest.approx(1.6, rel=0.05)
    assert lap["data_wait_fraction"] == pytest.approx(0.25, rel=0.05)
    assert clock.seconds_left(lap, 100, 8) == pytest.approx(375, rel=0.05)
    # from the second lap on with its waits
    assert clock.seconds_left(clock.lap(8), 100, 8) == pytest.approx(500, rel=0.05)


def test_the_first_estimate_counts_neither_compilation_nor_the_start_of_the_input():
    """A first lap of 70 seconds: 59 of compiling, 10 of waiting for the first batch, 1 of the
    update; another one is in flight."""
    clock = Clock()
    clock.lap_start -= 70.0
    clock.count_step(10.0, compiled=59.0)
    clock.count_step(0.0)
    lap = clock.lap(batch_size=64, in_flight=1)
    assert clock.seconds_left(lap, 41, 64) == pytest.approx(41, rel=0.05)
    clock.begin_lap(in_flight=1)
    clock.lap_start -= 2.0
    clock.count_step(1.0)
    assert clock.lap(batch_size=64, in_flight=1)["step_seconds"] == pytest.approx(1.0, rel=0.05)


def test_a_wait_while_the_update_before_still_runs_costs_nothing():
    last = LastUpdate()
    assert last.idle(5.0, 7.0) == 2.0  # before the first update nothing runs
    release = threading.Event()
    last.begin(SimpleNamespace(block_until_ready=release.wait))
    assert last.idle(5.0, 7.0) == 0.0
    release.set()
    deadline = time.monotonic() + 60
    while last.finished is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert last.idle(last.finished - 3.0, last.finished + 2.0) == pytest.approx(2.0)
    assert last.idle(last.finished + 1.0, last.finished + 2.0) == pytest.approx(1.0)
    last.close()


def test_goodput_is_what_the_phases_leave(monkeypatch):
    monkeypatch.setattr(goodput, "wall_seconds", lambda: 20.0)
    sitting = goodput.Goodput()
    sitting.spent("data_wait", 10.0)
    sitting.spent("start_up", 5.0)
    sitting.spent("evaluation", 2.0)
    sitting.spent("checkpoint_stall", 3.0)
    monkeypatch.setattr(goodput, "wall_seconds", lambda: 100.0)
    assert sitting.fractions() == pytest.approx(
        {
            "goodput/training": 0.6,
            "goodput/start_up": 0.25,
            "goodput/data_wait": 0.1,
            "goodput/evaluation": 0.02,
            "goodput/checkpoint_stall": 0.03,
        }
    )


# Compilations


def update(state, batch):
    return state + batch["image"].sum(), {"loss": batch["image"].mean()}


def test_a_second_compilation_is_reported_with_the_shape_that_changed(capsys):
    step = WatchedStep(jax.jit(update))
    state = jnp.zeros(())
    for _ in range(3):
        state, _ = step(state, {"image": np.ones((8, 3), np.float32)})
    assert step.compilations == 1 and capsys.readouterr().out == ""
    state, _ = step(state, {"image": np.ones((6, 3), np.float32)})
    assert step.compilations == 2
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("warning: the update was compiled again")
    assert said.endswith("batch/image was float32[8, 3], is float32[6, 3]")
    step(state, {"image": np.ones((8, 3), np.float32)})  # known by now
    assert step.compilations == 2


def test_what_others_compile_is_not_counted():
    step = WatchedStep(jax.jit(update))
    step(jnp.zeros(()), {"image": np.ones((2, 3), np.float32)})
    jax.jit(lambda x: x * 3.14159)(np.ones(17, np.float32))
    assert step.compilations == 1


def test_a_step_compiled_ahead_is_compiled_once_and_counted(capsys):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=place)

    step = WatchedStep(jax.jit(update))
    step.compile_ahead(shape(), {"image": shape(8, 3)})
    arguments = jax.device_put((jnp.ones(()), {"image": jnp.ones((8, 3))}), place)
    with compile_events() as here:
        state, _ = step(*arguments)
    assert not here[COMPILED] and float(state) == 25
    assert step.compilations == 1 and step.compile_seconds > 0
    assert step.program_bytes >= (1 + 8 * 3) * 4  # its arguments at least
    for _ in range(2):
        step(*arguments)
    assert step.compilations == 1 and capsys.readouterr().out == ""
    step(arguments[0], jax.device_put({"image": jnp.ones((6, 3))}, place))
    assert step.compilations == 2
    assert "batch/image was float32[8, 3], is float32[6, 3]" in capsys.readouterr().out


def test_what_a_compilation_ahead_raises_is_raised_by_the_first_call():
    def broken(state, batch):
        raise ValueError("no such update")

    step = WatchedStep(jax.jit(broken))
    step.compile_ahead(jnp.zeros(()), {})
    with pytest.raises(ValueError, match="no such update"):
        step(jnp.zeros(()), {})


def test_many_changes_are_said_in_short():
    before, after = (
        {f"batch/{name}": "int32[4]" for name in "abcde"},
        {f"batch/{name}": "int32[5]" for name in "abcd"},
    )
    assert (
        difference(before, after)
        == "; ".join(f"batch/{name} was int32[4], is int32[5]" for name in "abc") + "; and 2 more"
    )
    assert difference(before, before) == "no shape has changed"
