"""The launch scripts, with stand-ins for gcloud, srun, scontrol and Python that note what they are asked."""

import os
import pathlib
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
FLAGS = ["--config=configs/clip_b16.py", "--workdir=/mnt/b/run",
         "--config.data.train.source=webdataset:/a b/{0..3}.tar?caption=x|y",
         "--config.evaluators={'val': {}}"]


def stand_in(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """Runs a script in an empty folder; `commands` are stand-ins by name."""
    def run(script, *arguments, **commands):
        for name, text in commands.items():
            stand_in(tmp_path / "bin" / name, text)
        environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HERE": str(tmp_path), "SLURM_JOB_ID": "7"}
        return subprocess.run(["bash", LAUNCH / script, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)
    return run


NOTE = 'printf "%s\\n" "$@" >> "$HERE/asked"; count=$(grep -c -- --config= "$HERE/asked"); '  # one --config= a call


def test_shellcheck_finds_nothing():
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    assert len(scripts) >= 3
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Slurm

@pytest.mark.parametrize(("status", "requeued"), [(0, False), (143, True), (75, True), (2, False)])
def test_slurm_goes_back_into_the_queue_after_being_told_to_stop_or_hanging(run, tmp_path, status, requeued):
    done = run("slurm.sbatch", *FLAGS, srun=NOTE + f"exit {status}", scontrol='echo "scontrol $*" >> "$HERE/requeued"')
    assert done.returncode == status
    assert (tmp_path / "asked").read_text().splitlines()[-len(FLAGS):] == FLAGS
    assert (tmp_path / "requeued").exists() == requeued
    assert not requeued or (tmp_path / "requeued").read_text() == "scontrol requeue 7\n"


# TPU VMs

GCLOUD = 'for word in "$@"; do case "$word" in --command=*) bash -c "${word#--command=}";; esac; done; wait'


def test_tpu_vm_runs_again_until_the_run_has_ended_and_its_flags_arrive_whole(run, tmp_path):
    stand_in(tmp_path / "vlp_jax/.venv/bin/python", NOTE + '[ "$count" = 3 ] && exit 0; [ "$count" = 2 ] && exit 75; exit 143')
    assert run("tpu_vm.sh", "run", "mine", "--", *FLAGS, gcloud=GCLOUD).returncode == 0
    wait_for(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text().count("--config=configs") == 3)
    assert (tmp_path / "asked").read_text().splitlines() == ["-m", "vlp_jax.main", *FLAGS] * 3


def test_tpu_vm_does_not_start_again_after_a_mistake_in_the_config(run, tmp_path):
    stand_in(tmp_path / "vlp_jax/.venv/bin/python", NOTE + "exit 2")
    run("tpu_vm.sh", "run", "mine", "--", *FLAGS, gcloud=GCLOUD)
    wait_for(lambda: (tmp_path / "asked").exists())
    assert (tmp_path / "asked").read_text().splitlines() == ["-m", "vlp_jax.main", *FLAGS]


@pytest.mark.parametrize(("action", "words"), [
    ("create", "tpu-vm create mine --zone=z --accelerator-type=v5litepod-8 --version=v2 --spot"),
    ("queue", "queued-resources create mine --node-id=mine --zone=z --accelerator-type=v5litepod-8 --runtime-version=v2 --spot"),
    ("status", "queued-resources describe mine"), ("install", "pip"), ("logs", "--worker=0"), ("stop", "pkill"),
    ("resume", "queued-resources delete mine"), ("delete", "queued-resources delete mine --zone=z --force --quiet")])
def test_every_action_of_tpu_vm_shows_its_commands(run, action, words):
    done = run("tpu_vm.sh", action, "mine", "--zone=z", "--type=v5litepod-8", "--version=v2", "--spot", "--bucket=b", "--dry-run",
               "--", *FLAGS, gcloud="exit 1")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.parametrize("arguments", [(), ("create",), ("fly", "mine"), ("create", "mine", "--zome=z"), ("run", "mine")])
def test_a_mistaken_call_of_tpu_vm_is_status_2_and_a_line_of_usage(run, arguments):
    done = run("tpu_vm.sh", *arguments, gcloud="exit 1")
    assert done.returncode == 2 and "usage: launch/tpu_vm.sh" in done.stderr


# Several processes here

def test_local_processes_are_told_who_they_are(run):
    lines = run("local_multiprocess.sh", "--processes=3", "--devices=2", "--port=9999", "--dry-run", *FLAGS).stdout.splitlines()
    assert [f"--process-id={i}" in line and "--num-processes=3" in line and "--coordinator=127.0.0.1:9999" in line
            and "device_count=2" in line for i, line in enumerate(lines)] == [True] * 3


@pytest.mark.parametrize(("restarts", "status", "calls"), [(0, 143, 2), (1, 0, 4)])
def test_local_processes_start_again_together_when_asked(run, tmp_path, monkeypatch, restarts, status, calls):
    stand_in(tmp_path / "python", 'echo x >> "$HERE/calls"; [ "$(wc -l < "$HERE/calls")" -gt 2 ] && exit 0; sleep 0.5; exit 143')
    monkeypatch.setenv("PYTHON", str(tmp_path / "python"))
    done = run("local_multiprocess.sh", f"--restarts={restarts}", "--config=c", f"--workdir={tmp_path}/runs/two")
    assert done.returncode == status, done.stderr
    assert (tmp_path / "calls").read_text().count("x") == calls


def test_local_processes_need_a_workdir(run):
    done = run("local_multiprocess.sh", "--config=c")
    assert done.returncode == 2 and "--workdir=DIR is missing" in done.stderr


# GKE and Docker

def test_the_jobset_has_a_pod_for_every_four_chips_and_grace_to_save():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == rows * columns // chips
    assert pod["terminationGracePeriodSeconds"] >= 300 and jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    mounted = container["volumeMounts"][0]["mountPath"]
    assert all(argument.partition("=")[0].startswith("--") for argument in container["args"])
    assert f"--workdir={mounted}/" in "\n".join(container["args"])


def test_the_dockerfile_copies_what_is_there_and_installs_an_extra_that_exists():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    setup = (ROOT / "setup.py").read_text()
    assert '"tpu": [' in setup and '"cuda12": [' in setup


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    time.sleep(0.3)
