"""Runs that are stopped again and again, at moments nobody chose, and must end as if nothing had
happened. Slow."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 60


def command(workdir):
    return [
        sys.executable,
        "-m",
        "vlp_jax.main",
        f"--config={ROOT}/configs/clip_emoji.py:smoke",
        f"--workdir={workdir}",
        f"--config.steps={STEPS}",
        "--config.log_every=1",
        "--config.checkpoint.every_steps=1",
        "--config.data.batch_size=32",
        "--config.evaluators={}",
    ]


def environment():
    return {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def result(workdir, output):
    """Every logged loss in order, and the fingerprint of the final parameters."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    fingerprint = next(
        line for line in output.splitlines() if line.startswith("parameter fingerprint")
    )
    return [(row["step"], row["train/loss"]) for row in rows], fingerprint


def steps_done(workdir):
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    done = subprocess.run(
        command(workdir), capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return result(workdir, done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_three_stops_at_random_moments_change_nothing(unbroken, tmp_path, number, status):
    """With a save after every step, a stop falls into a step, into a save, or between them."""
    workdir, draws = tmp_path / "run", random.Random(0)
    for stop in sorted(draws.sample(range(5, STEPS - 10), 3)):
        process = subprocess.Popen(
            command(workdir), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
        )
        while process.poll() is None and steps_done(workdir) < stop:
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.1))
        process.send_signal(number)
        output = process.communicate()[0]
        assert process.returncode == status, output
        assert status != 143 or "run the same command again to resume" in output
    done = subprocess.run(
        command(workdir), capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "resumed from step" in done.stdout
    assert result(workdir, done.stdout) == unbroken
