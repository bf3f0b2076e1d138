"""Runs of two hosts, as processes of this machine: the same numbers as one, whatever stops them."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from vlp_jax import evaluate, main

ROOT = pathlib.Path(__file__).parents[2]
HEARTBEAT = 10.0
INPUT = ("data.train.source=synthetic:64?height=20&width=24&caption_words=3",)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def two(tmp_path, tiny):
    """`two("steps=3", ...)` starts two processes of 4 devices each on one workdir, which `ends`
    waits for."""
    started = []

    def start(*changes, program="main", flags=None):
        port = free_port()
        environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
        if flags is None:
            flags = [
                f"--config={ROOT}/configs/clip_emoji.py:smoke",
                *tiny(*INPUT, f"hosts.heartbeat_seconds={HEARTBEAT}", *changes),
            ]
        command = [
            sys.executable,
            "-m",
            f"vlp_jax.{program}",
            f"--workdir={tmp_path}/two",
            f"--coordinator=127.0.0.1:{port}",
            "--num-processes=2",
            *flags,
        ]
        started.extend(
            subprocess.Popen(
                [*command, f"--process-id={host}"],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in range(2)
        )
        return started[-2:]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


@pytest.fixture
def one(tmp_path, tiny):
    """`one(name, "steps=3", ...)` trains in this process, of 8 devices, and returns its losses by
    step."""

    def run(name, *changes):
        flags = [
            f"--config={ROOT}/configs/clip_emoji.py:smoke",
            f"--workdir={tmp_path}/{name}",
            "--accept-changes",
        ]
        assert main.main([*flags, *tiny(*INPUT, *changes)]) == 0
        return losses(tmp_path / name)

    return run


def ends(processes):
    """(exit status, stdout, stderr) of each."""
    said = [process.communicate(timeout=500) for process in processes]
    return [(process.returncode, *words) for process, words in zip(processes, said, strict=True)]


def losses(workdir):
    path = workdir / "metrics.jsonl"
    rows = (
        [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        if path.exists()
        else []
    )
    return {row["step"]: row["train/loss"] for row in rows}


def wait_for(condition, *processes):
    while not condition():
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.05)


def assert_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(
        [found[step] for step in sorted(found)],
        [expected[step] for step in sorted(found)],
        rtol=tolerance,
    )


def saved(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


@pytest.mark.full
def test_two_hosts_train_as_one_and_a_signal_to_either_saves_at_one_step(
    two, one, tmp_path, capsys
):
    workdir = tmp_path / "two"
    processes = two("steps=100000", "checkpoint.every_steps=none")
    wait_for(lambda: len(losses(workdir)) >= 5, *processes)
    processes[1].send_signal(signal.SIGTERM)
    (status, out, _), (other_status, other_out, other_said) = ends(processes)
    assert (status, other_status) == (143, 143), other_said
    assert "run the same command again to resume" in out
    # only Gloo's words, which may come torn
    assert "loss" in out and "loss" not in other_out and "run the same" not in other_out
    stopped = max(losses(workdir))
    assert saved(workdir) == [stopped]
    goal = stopped + 3
    unbroken = one("one", f"steps={goal}")
    assert_same(losses(workdir), {step: loss for step, loss in unbroken.items() if step <= stopped})
    assert_same(one("two", f"steps={goal}"), unbroken)
    assert f"resumed from step {stopped}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_after_a_kill_of_one_host_the_other_exits_in_time_and_both_or_one_resume_exactly(
    two, one, tmp_path, victim
):
    workdir, plan = tmp_path / "two", ("steps=40", "checkpoint.every_steps=3")
    processes = two(*plan)
    wait_for(
        lambda: workdir.exists() and (workdir / "checkpoints").exists() and len(saved(workdir)) > 0,
        *processes,
    )
    processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    results = ends(processes)
    (status, _, said), (other_status, _, _) = results[1 - victim], results[victim]
    assert (status, other_status) == (75, -9), said
    assert f"host error: no message from host {victim} of 2" in said
    assert time.monotonic() - killed < HEARTBEAT + 20
    assert max(saved(workdir)) < 40
    unbroken = one("one", *plan)
    shutil.copytree(workdir, tmp_path / "alone")
    assert_same(one("alone", *plan), unbroken, 1e-5)
    refused = ends(two(*plan, "seed=1"))
    assert [status for status, _, _ in refused] == [2, 2]
    assert "seed: 0 -> 1" in refused[0][2] and "host 1: config error" in refused[1][2]
    results = ends(two(*plan))
    assert [status for status, _, _ in results] == [0, 0], results
    assert "resumed from step" in results[0][1]
    assert_same(losses(workdir), unbroken, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh",
    [
        ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"),
        ("mesh.data=1", "mesh.tensor=8", "model.image.heads=8", "model.text.heads=8"),
    ],
)
def test_hosts_that_share_parameters_or_rows_train_evaluate_and_resume_as_one_process(
    two, one, tmp_path, mesh
):
    """Parameters of which no host holds all; with tensor=8, hosts that hold the same rows."""
    evaluators = (
        "evaluators={'val': {'source': 'synthetic:24?height=20&width=24', 'every_steps': 2}}"
    )
    # At five times this learning rate, that of clip_emoji:smoke, four updates amplify rounding
    # beyond the bound.
    plan = (
        "steps=4",
        "checkpoint.every_steps=2",
        "optimizer.learning_rate=0.001",
        evaluators,
        *mesh,
    )
    for status, _, said in ends(two(*plan)):
        assert status == 0, said
    unbroken = one("one", *plan)
    np.testing.assert_allclose(
        *(np.array(list(found.values())) for found in (losses(tmp_path / "two"), unbroken)),
        rtol=1e-5,
    )
    shutil.rmtree(tmp_path / "two/checkpoints/4")
    results = ends(two(*plan))
    assert [status for status, _, _ in results] == [0, 0], results
    assert "resumed from step 2" in results[0][1]
    np.testing.assert_allclose(
        *(np.array(list(found.values())) for found in (losses(tmp_path / "two"), unbroken)),
        rtol=1e-5,
    )
    output = tmp_path / "metrics.json"
    flags = ["--source=synthetic:24?height=20&width=24", f"--output={output}"]
    for status, _, said in ends(two(program="evaluate", flags=flags)):
        assert status == 0, said
    together = json.loads(output.read_text())
    output.unlink()
    assert evaluate.main([f"--workdir={tmp_path}/two", *flags]) == 0
    assert json.loads(output.read_text()) == together


@pytest.mark.slow
def test_hosts_that_share_parameters_begin_as_one_process_does_from_a_run_of_another_layout(
    two, one, tmp_path
):
    one("origin", "steps=1", "seed=1", "model.text.depth=2")
    plan = (
        "steps=2",
        "model.text.depth=2",
        "model.text.scan=True",
        "model.text.length=16",
        "model.image.image_size=48",
        "mesh.fsdp=8",
        "mesh.replicate_below=64",
        f"pretrained={{'a':{{'workdir':'{tmp_path}/origin'}}}}",
    )
    results = ends(two(*plan))
    assert [status for status, _, _ in results] == [0, 0], results
    changes = (
        "model/image/position [1, 16, 32] resampled to [1, 36, 32]; model/text/position [1, "
        "12, 32] extended to [1, 16, 32]"
    )
    assert changes in results[0][1]
    assert_same(losses(tmp_path / "two"), one("one", *plan), 1e-5)


@pytest.mark.slow
def test_a_signal_during_an_evaluation_saves_and_leaves_within_a_batch(two, tmp_path):
    evaluators = (
        "evaluators={'val': {'source': 'synthetic:100000?height=20&width=24', 'batch_size': 8}}"
    )
    processes = two("steps=2", "checkpoint.every_steps=none", evaluators)
    wait_for(lambda: 1 in losses(tmp_path / "two"), *processes)
    time.sleep(10.0)
    processes[1].send_signal(signal.SIGTERM)
    told = time.monotonic()
    results = ends(processes)
    assert [status for status, _, _ in results] == [143, 143], results
    assert time.monotonic() - told < 60
    assert saved(tmp_path / "two") == [2] and set(losses(tmp_path / "two")) == {1, 2}


@pytest.mark.slow
def test_a_damaged_or_partial_checkpoint_is_passed_over_by_all_hosts(two, tmp_path):
    """One byte turned over in each file of what host 1 wrote; then the checkpoint before without
    host 1's files."""
    plan = (
        "steps=9",
        "checkpoint.every_steps=3",
        "checkpoint.keep=5",
        "mesh.data=1",
        "mesh.fsdp=8",
    )
    results = ends(two(*plan))
    assert [status for status, _, _ in results] == [0, 0], results
    whole = losses(tmp_path / "two")
    folder = tmp_path / "two/checkpoints"
    # in all of them: what was written again since is not read
    for path in (folder / "9/params/ocdbt.process_1").glob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    shutil.rmtree(folder / "6/rest/ocdbt.process_1")
    results = ends(two(*plan))
    assert [status for status, _, _ in results] == [0, 0], results
    assert "checkpoint 9 is damaged" in results[0][1] and "checkpoint 6 is damaged" in results[0][1]
    assert "resumed from step 3" in results[0][1]
    assert losses(tmp_path / "two") == whole


@pytest.mark.slow
def test_a_host_whose_terminal_is_gone_does_not_keep_the_others_waiting(two, tmp_path):
    """Host 0 can say nothing more, and a save is under way: it waited for the end of that, and host
    1 for it, without end."""
    first, second = two("steps=2000", "checkpoint.every_steps=3", "mesh.data=1", "mesh.fsdp=8")
    wait_for(lambda: losses(tmp_path / "two"), first, second)
    first.stdout.close()
    first.stderr.close()
    _, said = second.communicate(timeout=300)
    assert first.wait(timeout=60) != 0 and second.returncode != 0
    assert "host 0" in said


@pytest.mark.slow
def test_bad_samples_of_all_hosts_are_counted_together_and_too_many_stop_all(two, one, tmp_path):
    """A folder with every 4th picture damaged, whose limit is reached only by the sum over
    hosts."""
    from vlp_jax.data.sources.registry import open_source

    source, folder = open_source("synthetic:40?height=20&width=24"), tmp_path / "pictures"
    folder.mkdir()
    rows = ["image,caption"]
    for number, sample in enumerate(source):
        (folder / f"{number}.jpg").write_bytes(
            sample.image[:100] if number % 4 == 0 else sample.image
        )
        rows.append(f"{number}.jpg,{sample.captions[0]}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    where = f"data.train.source=csv:{folder}/captions.csv"
    expected = ("steps=4", where, "data.max_bad_fraction=0.9")
    for status, _, said in ends(two(*expected)):
        assert status == 0, said
    one("one", *expected)
    last = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("one", "two")
    ]
    assert last[0]["train/bad_examples"] == last[1]["train/bad_examples"] > 0
    shutil.rmtree(tmp_path / "two")
    for status, _, said in ends(two("steps=4", where, "data.max_bad_fraction=0.01")):
        assert status == 2
        assert "of 32 examples were bad (damaged_image" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("gpt2_lm", ()),
        ("slip_b16", ("data.augmentation.erase=0.5", "objectives.contrastive.mixup=0.4")),
    ],
)
def test_two_hosts_train_on_packed_captions_views_and_mixed_pictures_as_one_and_after_a_resume(
    two, tmp_path, recipe, changes
):
    """In float32: in bfloat16 the order of a sum over devices alone moves these losses by 1%."""
    plan = (
        "steps=4",
        "checkpoint.every_steps=2",
        "log_every=1",
        "evaluators={}",
        "data.batch_size=32",
        "precision.compute=float32",
        *changes,
    )
    flags = [
        f"--config={ROOT}/configs/{recipe}.py:smoke",
        *(f"--config.{change}" for change in plan),
    ]
    for status, _, said in ends(two(flags=flags)):
        assert status == 0, said
    assert main.main([*flags, f"--workdir={tmp_path}/one", "--accept-changes"]) == 0
    unbroken = losses(tmp_path / "one")
    assert len(set(unbroken.values())) == 4
    assert_same(losses(tmp_path / "two"), unbroken, 1e-4)
    shutil.rmtree(tmp_path / "two/checkpoints/4")
    results = ends(two(flags=flags))
    assert [status for status, _, _ in results] == [0, 0] and "resumed from step 2" in results[0][
        1
    ], results
    assert_same(losses(tmp_path / "two"), unbroken, 1e-4)
