"""Faults put into runs on purpose: what is kept, what is said, and that the run goes on from
there."""

import errno
import fcntl
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from stderr_lines import own_lines

from vlp_jax import main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config
from vlp_jax.data.sources.synthetic import SyntheticSource
from vlp_jax.distributed.processes import HostsConfig
from vlp_jax.errors import CheckpointError, HostError, StorageError, TrainingError, WorkdirBusy
from vlp_jax.training import step as step_module
from vlp_jax.training.build import build_run
from vlp_jax.training.checkpoints import manager, read_errors
from vlp_jax.training.checkpoints.lock import locked
from vlp_jax.training.checkpoints.manager import Checkpoints
from vlp_jax.training.checkpoints.save_schedule import CheckpointConfig
from vlp_jax.training.hooks.watchdog import Watchdog

ROOT = pathlib.Path(__file__).parents[2]
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"
CONFIG = f"{ROOT}/configs/clip_emoji.py:smoke"


@pytest.fixture
def train(tmp_path, tiny):
    """`train("steps=3", ...)` trains in a workdir of this test, which must end well."""

    def run(*changes, workdir="run", flags=()):
        assert (
            main.main(
                [
                    f"--config={CONFIG}",
                    f"--workdir={tmp_path}/{workdir}",
                    *tiny(SYNTHETIC, *changes),
                    *flags,
                ]
            )
            == 0
        )
        return tmp_path / workdir

    return run


@pytest.fixture(scope="module")
def assembled(tiny):
    """The run that these flags describe, assembled but not compiled."""
    return functools.cache(
        lambda *changes: build_run(
            load_config(CONFIG, split_overrides(tiny(SYNTHETIC, *changes))[1])
        )
    )


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return [row["train/loss"] for row in rows(workdir)]


def saved(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


def restored(run, workdir):
    checkpoints = Checkpoints(str(workdir), CheckpointConfig(), HostsConfig())
    return checkpoints.restore_newest(run.shapes, run.shardings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A run of 4 steps with three checkpoints, which is not to be changed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    flags = tiny(SYNTHETIC, "steps=4", "checkpoint.every_steps=2", "checkpoint.keep=5")
    assert main.main([f"--config={CONFIG}", f"--workdir={workdir}", *flags]) == 0
    return workdir


# Checkpoints

MESHES = [
    ("mesh.data=1", "mesh.fsdp=8"),
    ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"),
    ("mesh.data=1",),
]


@pytest.mark.full
@pytest.mark.parametrize("mesh", MESHES, ids=" ".join)
def test_a_checkpoint_is_restored_bit_for_bit_on_any_mesh(finished, assembled, mesh):
    before, after = (restored(assembled(*changes), finished) for changes in ((), mesh))
    assert before.step == after.step == 4
    used = {
        device
        for leaf in jax.tree.leaves(after.state.params)
        for device in leaf.sharding.device_set
    }
    assert len(used) == (1 if mesh == ("mesh.data=1",) else 8)
    jax.tree.map(
        np.testing.assert_array_equal, *(jax.device_get(found.state) for found in (before, after))
    )


@pytest.mark.slow
def test_a_run_goes_on_through_four_meshes_with_the_losses_of_one(train):
    expected = losses(train("steps=8", workdir="unbroken"))
    for number, mesh in enumerate([(), *MESHES]):
        workdir = train(f"steps={2 * number + 2}", *mesh, flags=["--accept-changes"])
    np.testing.assert_allclose(losses(workdir), expected, rtol=1e-5)


def damage(folder, change):
    """Changes every file of arrays: some hold what OCDBT has written elsewhere since, and are read
    by nobody."""
    paths = [path for path in folder.rglob("d/*") if path.stat().st_size > 1000]
    assert paths
    for path in paths:
        change(path)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.variants
@pytest.mark.parametrize(
    "lose",
    [
        lambda folder: damage(folder / "params", pathlib.Path.unlink),
        lambda folder: shutil.rmtree(folder / "rest"),
        lambda folder: shutil.rmtree(folder / "metadata"),
        lambda folder: (folder / "metadata/metadata").write_text('{"position": 4'),
        lambda folder: damage(folder / "rest", cut_short),
    ],
    ids=["data", "item", "metadata", "torn metadata", "cut short"],
)
def test_a_partial_checkpoint_is_set_aside_for_the_one_before(
    finished, assembled, tmp_path, capsys, lose
):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    lose(workdir / "checkpoints/4")
    assert restored(assembled(), workdir).step == 2
    assert "checkpoint 4 is damaged (" in capsys.readouterr().out
    assert saved(workdir) == [2] and (workdir / "damaged_checkpoints/4").is_dir()


def test_where_all_are_damaged_nothing_is_moved_and_the_next_start_says_the_same(
    finished, assembled, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    for step in (2, 4):
        damage(workdir / f"checkpoints/{step}/params", pathlib.Path.unlink)
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match="all 2 checkpoints are damaged, and were left where they are"
        ):
            restored(assembled(), workdir)
        assert saved(workdir) == [2, 4] and not (workdir / "damaged_checkpoints").exists()


NO_DAMAGE = [
    (OSError("503 Service Unavailable"), StorageError, 75),
    (OSError(errno.ESTALE, "Stale file handle"), StorageError, 75),
    (ValueError("UNAVAILABLE: Error reading"), StorageError, 75),
    (PermissionError("Forbidden"), CheckpointError, 2),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), CheckpointError, 2),
]


@pytest.mark.parametrize(("error", "kind", "status"), NO_DAMAGE, ids=lambda value: str(value)[:15])
def test_what_proves_no_damage_ends_the_run_and_moves_nothing(
    finished, assembled, monkeypatch, error, kind, status
):
    def fail(*_, **__):
        raise Exception("reading an array") from error

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
    monkeypatch.setattr(read_errors, "PAUSES", (0.0,))
    with pytest.raises(
        kind, match="checkpoints/4: params cannot be read, which proves no damage: .*; nothing"
    ) as raised:
        restored(assembled(), finished)
    assert (type(raised.value), raised.value.status) == (kind, status)
    assert saved(finished) == [2, 4]


def test_storage_that_fails_once_is_asked_again(finished, assembled, monkeypatch):
    restore = ocp.StandardCheckpointHandler.restore
    failures = [OSError("503 Service Unavailable")]

    def fail_once(*arguments, **options):
        if failures:
            raise failures.pop()
        return restore(*arguments, **options)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail_once)
    monkeypatch.setattr(read_errors, "PAUSES", (0.0,))
    assert restored(assembled(), finished).step == 4 and not failures


@pytest.mark.parametrize("tells", ["newest_checkpoint", "damaged_checkpoints"])
def test_a_run_whose_checkpoints_are_gone_does_not_start_anew(finished, assembled, tmp_path, tells):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    if tells == "damaged_checkpoints":
        (workdir / "newest_checkpoint").unlink()
        (workdir / tells).mkdir()
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(CheckpointError, match=f"holds no checkpoint, but .*/{tells} records one"):
        restored(assembled(), workdir)


def test_hosts_that_do_not_finish_a_save_are_named_with_it(tmp_path, monkeypatch):
    """As Orbax 0.12.8 wraps what JAX 0.10.2 says of a barrier."""

    def waited_in_vain():
        barrier = jax.errors.JaxRuntimeError(
            "DEADLINE_EXCEEDED: Barrier timed out. # of tasks "
            "that reached the barrier: 1/2. Some timed out task "
            "names:\n/job:jax_worker/replica:0/task:1"
        )
        raise TimeoutError("Timed out while waiting for async_write_complete barrier.") from barrier

    checkpoints = Checkpoints(str(tmp_path), CheckpointConfig(), HostsConfig(barrier_seconds=7))
    checkpoints.under_way = 30
    monkeypatch.setattr(manager, "several_hosts", lambda: True)
    monkeypatch.setattr(checkpoints.manager, "wait_until_finished", waited_in_vain)
    with pytest.raises(
        HostError,
        match=r"the save after step 30 within 7 s "
        r"\(hosts.barrier_seconds\); missing: 1;",
    ) as raised:
        checkpoints.finish()
    assert raised.value.status == 75


def test_a_workdir_in_use_is_refused_with_the_process_that_uses_it(train, tmp_path):
    with (
        locked(str(tmp_path / "run")),
        pytest.raises(WorkdirBusy, match=f"run is in use by process {os.getpid()} of "),
    ):
        train("steps=1")
    assert not (tmp_path / "run/config.json").exists()


def test_where_there_are_no_locks_a_line_says_so(tmp_path, monkeypatch, capsys):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(str(tmp_path)):
        assert "this file system has no locks (No locks available)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimizer.kind=lion", "is of another optimizer"),
        ("model.text.mlp_dim=128", "is of another model"),
    ],
)
def test_a_whole_checkpoint_of_another_state_is_refused_and_stays(
    finished, assembled, change, words
):
    with pytest.raises(CheckpointError, match=words):
        restored(assembled(change), finished)
    assert saved(finished) == [2, 4]


def test_a_guard_added_later_starts_with_nothing_skipped(finished, assembled):
    assert int(restored(assembled("guard.non_finite=skip"), finished).state.guard.skipped) == 0


@pytest.mark.full
def test_a_state_that_is_not_finite_is_never_saved(finished, assembled, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    state = restored(assembled(), workdir).state
    spoilt = state.replace(
        ema=jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.inf), state.ema)
    )
    checkpoints = Checkpoints(str(workdir), CheckpointConfig(), HostsConfig())
    with pytest.raises(
        TrainingError,
        match="after step 5 the parameters or moments are not finite; the last good .*/4;",
    ):
        checkpoints.save(5, spoilt, {})
    assert saved(workdir) == [2, 4]


FILLS_UP = """
import resource, sys
from vlp_jax import main
from vlp_jax.command_line import run_entry_point
from vlp_jax.training.checkpoints.manager import Checkpoints

save = Checkpoints.save

def fills_up(checkpoints, step, *rest):
    if step == 4:
        checkpoints.finish()
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    save(checkpoints, step, *rest)

Checkpoints.save = fills_up
run_entry_point(main.main)
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_save_ends_the_run_and_leaves_the_checkpoint_before(
    train, tiny, tmp_path
):
    """No file may grow past 8 kB from step 4 on: what the disk says then is what a full one says.
    metrics.jsonl stays below."""
    plan = ("checkpoint.every_steps=2", "log_every=1000")
    flags = [
        f"--config={CONFIG}",
        f"--workdir={tmp_path}/run",
        *tiny(SYNTHETIC, "steps=500", *plan),
    ]
    done = subprocess.run(
        [sys.executable, "-c", FILLS_UP, *flags], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert re.search(
        r"checkpoint error: .*: saving failed: .*File too large.*; the last good "
        r"checkpoint is .*/checkpoints/2$",
        done.stderr,
        re.MULTILINE,
    ), done.stderr
    assert len(own_lines(done.stderr)) == 1, done.stderr
    assert saved(tmp_path / "run") == [2]
    expected = losses(train("steps=6", plan[0], workdir="unbroken"))
    assert losses(train("steps=6", plan[0], flags=["--accept-changes"]))[-2:] == expected[-2:]


# Steps


@pytest.fixture
def spoil(monkeypatch):
    """`spoil({step: factor})` multiplies the gradients of these steps, of programs compiled from
    here on."""

    def install(factors):
        loss_gradients = step_module.loss_gradients

        def spoilt(config, module, state, *rest):
            gradients, metrics, collections = loss_gradients(config, module, state, *rest)
            table = jnp.asarray([factors.get(step, 1.0) for step in range(1, 20)])
            return (
                jax.tree.map(lambda leaf: leaf * table[state.step], gradients),
                metrics,
                collections,
            )

        monkeypatch.setattr(step_module, "loss_gradients", spoilt)

    return install


@pytest.mark.slow
def test_skipped_steps_are_counted_in_rows_and_checkpoints_until_there_are_too_many(
    train, spoil, tmp_path
):
    """The same program throughout: steps 3, 5 and from 8 on are spoilt."""
    spoil(dict.fromkeys((3, 5, 8, 9, 10, 11, 12), float("nan")))
    plan = (
        "mesh.data=1",
        "guard.non_finite=skip",
        "guard.maximum_skips=2",
        "checkpoint.every_steps=2",
        "log_every=1",
    )
    train("steps=4", *plan)
    workdir = train("steps=7", *plan, flags=["--accept-changes"])
    assert [row["train/skipped_updates"] for row in rows(workdir)] == [0, 0, 1, 1, 2, 2, 2]
    assert [row["train/gradient_norm"] is None for row in rows(workdir)] == [
        step in (3, 5) for step in range(1, 8)
    ]
    with pytest.raises(
        TrainingError,
        match=r"3 updates in a row were skipped up to step 10, "
        r".*the last good checkpoint is .*/8;",
    ):
        train("steps=12", *plan, flags=["--accept-changes"])
    assert restored_is_finite(tmp_path / "run")


def restored_is_finite(workdir):
    import vlp_jax

    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(vlp_jax.load(str(workdir))[1]))


@pytest.mark.slow
def test_a_source_that_hangs_is_shown_with_the_step_that_waits_for_it(train, monkeypatch, capfd):
    read, step_done, hangs = SyntheticSource.__getitem__, Watchdog.done, []

    def slow_disk(source, index):
        if hangs:
            time.sleep(hangs.pop())
        return read(source, index)

    def after_step_3(watchdog, step):
        if step == 3:
            hangs.append(6.0)
        step_done(watchdog, step)

    monkeypatch.setattr(SyntheticSource, "__getitem__", slow_disk)
    monkeypatch.setattr(Watchdog, "done", after_step_3)
    workdir = train("steps=12", "watchdog.seconds=3.0", "data.threads=1", "data.prefetch=1")
    assert len(rows(workdir)) == 12
    # a busy machine may add other steps
    shown = [file.read_text() for file in workdir.glob("hang_step_*_host_0.txt")]
    assert any("in slow_disk" in text and "in next_batch" in text for text in shown)
    assert "the stack of every thread follows" in capfd.readouterr().err
