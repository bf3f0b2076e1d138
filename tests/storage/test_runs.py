"""Runs with a workdir in a bucket: killed, resumed on another number of processes, evaluated,
loaded, inspected, with the numbers of a run in a local folder."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import vlp_jax
from vlp_jax.errors import PASSING
from vlp_jax.storage import bucket
from vlp_jax.storage.files import read_text
from vlp_jax.training.checkpoints.format import checkpoint_folder, finished_steps

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 2  # of all processes together
SMOKE = [f"--config={ROOT}/configs/clip_emoji.py:smoke", "--config.log_every=1"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(program, *flags, processes=1):
    """Processes of an entry point, which share `DEVICES` devices."""
    count = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    environment = {**os.environ, "XLA_FLAGS": count, "JAX_PLATFORMS": "cpu"}
    joined = [[]]
    if processes > 1:
        port = free_port()
        joined = [
            [f"--coordinator=127.0.0.1:{port}", f"--num-processes={processes}", f"--process-id={i}"]
            for i in range(processes)
        ]
    return [
        subprocess.Popen(
            [sys.executable, "-m", f"vlp_jax.{program}", *flags, *more],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for more in joined
    ]


def finished(processes, status=0):
    """The stdout of the first process; all must end with `status`."""
    said = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), said
    return said[0][0]


def kill(processes):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        process.wait()


def losses(workdir):
    rows = [json.loads(line) for line in read_text(f"{workdir}/metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == list(
        range(1, len(rows) + 1)
    )  # none twice, none left out
    return [row["train/loss"] for row in rows]


def killed_at(faults, workdir, key, processes, after):
    """Kills processes at the request that uploads an object, before it is stored; with `after`, at
    the next upload or deletion."""
    done, stored = [], []

    def at(method, name):
        found = f"gs://a-bucket/{name}".startswith(f"{workdir}/{key}")
        if method == "GET" or name == f"{workdir.removeprefix('gs://a-bucket/')}/lock":
            return
        if found and after and not stored:
            stored.append(name)
        elif stored or (found and not after):
            faults.at = lambda method, name: None
            faults.status = 0  # it is not stored
            for process in processes:
                process.kill()
            done.append(name)

    faults.at = at
    deadline = time.monotonic() + 600
    while not done and time.monotonic() < deadline:
        if all(process.poll() is not None for process in processes):
            break
        time.sleep(0.1)
    said = [process.communicate() for process in processes]
    faults.status = None
    assert done, said
    assert all(process.returncode == -9 for process in processes)


def killed_when(workdir, key, processes):
    """Kills processes once an object is there."""
    deadline = time.monotonic() + 600
    while not any(name.startswith(key) for name in bucket.keys_below(workdir)):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), finished(processes)
        time.sleep(0.05)
    kill(processes)


# (object, number of processes, whether the kill follows it): while the arrays of the first
# checkpoint are written; before the commit of one; after that of one, before an older one is gone
MOMENTS = [
    ("checkpoints/7/params/", 1, False),
    ("checkpoints/14/commit_success.txt", 1, False),
    ("checkpoints/21/commit_success.txt", 2, True),
]


@pytest.mark.slow
def test_a_run_in_a_bucket_that_is_killed_and_resumed_is_that_in_a_folder(served, folder, tmp_path):
    local = f"{tmp_path}/run"
    finished(started("main", *SMOKE, f"--workdir={local}"))
    for key, processes, after in MOMENTS:
        run = started("main", *SMOKE, f"--workdir={folder}", processes=processes)
        if served[1]:
            killed_at(served[1], folder, key, run, after)
        else:
            killed_when(folder, key, run)
    said = finished(started("main", *SMOKE, f"--workdir={folder}", processes=2))
    assert "resumed from step" in said
    assert losses(folder) == losses(local)
    assert finished_steps(checkpoint_folder(folder)) == finished_steps(checkpoint_folder(local))
    steps = {key.split("/")[1] for key in bucket.keys_below(folder) if "checkpoints/" in key}
    assert steps == {str(step) for step in finished_steps(checkpoint_folder(folder))}
    check_readers(folder, local)


def check_readers(folder, local):
    """Evaluation, inspection, loading and the report read both alike."""
    flags = ["--source=embedded:emoji/val_concept", "--evaluators=retrieval"]
    here = finished(started("evaluate", *flags, f"--workdir={local}"))
    there = finished(
        started("evaluate", *flags, f"--workdir={folder}", f"--output={folder}/metrics.json")
    )
    assert json.loads(here) == json.loads(there) == json.loads(read_text(f"{folder}/metrics.json"))
    tables = [finished(started("inspect", f"--workdir={place}")) for place in (local, folder)]
    assert tables[0] == tables[1]
    (_, ours, _), (_, theirs, _) = vlp_jax.load(local), vlp_jax.load(folder)
    assert_equal_trees(ours, theirs)
    finished(started("report", folder, f"--output={folder}/page", "--examples=0"))
    assert "<html" in read_text(f"{folder}/page/index.html")


def assert_equal_trees(ours, theirs):
    import jax

    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow
def test_a_second_run_in_a_bucket_is_refused_and_the_first_goes_on(served, folder, tiny):
    flags = [SMOKE[0], f"--workdir={folder}", *tiny("steps=4000")]
    first = started("main", *flags)
    while not bucket.is_object(f"{folder}/metrics.jsonl"):
        assert first[0].poll() is None, first[0].communicate()
        time.sleep(0.1)
    second = started("main", *flags)
    said = second[0].communicate(timeout=300)
    assert second[0].returncode == PASSING, said
    assert f"{folder} is in use by process {first[0].pid}" in said[1]
    first[0].terminate()
    assert first[0].wait(timeout=300) == 143


@pytest.mark.slow
def test_storage_that_stops_to_answer_ends_a_run_with_one_line_and_status_75(
    served, folder, faults, tiny
):
    flags = [SMOKE[0], f"--workdir={folder}", *tiny("steps=100000", "checkpoint.every_steps=20")]
    run = started("main", *flags)
    while not bucket.is_object(f"{folder}/newest_checkpoint"):
        assert run[0].poll() is None, run[0].communicate()
        time.sleep(0.1)
    faults.status = 503
    said = run[0].communicate(timeout=600)
    assert run[0].returncode == PASSING, said
    lines = [line for line in said[1].splitlines() if line.startswith("storage error: ")]
    assert len(lines) == 1
    assert "Traceback" not in said[1]
    assert f"{folder}/" in lines[0]
    faults.status = None
    run = started("main", *flags)
    while "resumed from step" not in run[0].stdout.readline():
        assert run[0].poll() is None
    run[0].terminate()
    assert run[0].wait(timeout=300) == 143
