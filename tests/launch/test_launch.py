"""The launch scripts, with stand-ins for gcloud, srun, scontrol and Python that note what they are
asked."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
FLAGS = [
    "--config=configs/clip_b16.py",
    "--workdir=/mnt/b/run",
    "--config.data.train.source=webdataset:/a b/{0..3}.tar?caption=x|y",
    "--config.evaluators={'val': {}}",
]


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
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "HERE": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "RESTART_PAUSE": "0",
        }
        return subprocess.run(
            ["bash", LAUNCH / script, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    return run


def words_of(line):
    """What a shell makes of a line."""
    return subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


# one --config= a call
NOTE = 'printf "%s\\n" "$@" >> "$HERE/asked"; count=$(grep -c -- --config= "$HERE/asked"); '


def test_shellcheck_finds_nothing():
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"]
    assert len(scripts) >= 3
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Slurm

REQUEUE = 'echo "scontrol $*" >> "$HERE/requeued"'


@pytest.mark.parametrize(
    ("status", "restarts", "requeued"),
    [
        (0, 0, False),
        (2, 0, False),
        (143, 0, True),
        (75, 9, True),
        (134, 0, True),
        (137, 0, True),
        (1, 10, False),
        (143, 10, False),
    ],
)
def test_slurm_goes_back_into_the_queue_unless_done_or_mistaken_but_not_for_ever(
    run, tmp_path, monkeypatch, status, restarts, requeued
):
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    done = run("slurm.sbatch", *FLAGS, srun=NOTE + f"exit {status}", scontrol=REQUEUE)
    assert done.returncode == status
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[-len(FLAGS) - 1 :] == [*FLAGS, "--config.data.workers=10"]
    assert (
        "--cpus-per-task=12" in asked
        and "--kill-on-bad-exit=0" in asked
        and any(word.startswith("--wait=") for word in asked)
    )
    assert (tmp_path / "requeued").exists() == requeued
    assert not requeued or (tmp_path / "requeued").read_text() == "scontrol requeue 7\n"


def test_slurm_goes_back_into_the_queue_however_often_as_long_as_there_is_a_new_checkpoint(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "50")
    (tmp_path / "run/checkpoints/90").mkdir(parents=True)
    flags = ["--config=c", f"--workdir={tmp_path}/run"]
    assert (
        run(
            "slurm.sbatch",
            *flags,
            srun="mkdir $HERE/run/checkpoints/100; exit 143",
            scontrol=REQUEUE,
        ).returncode
        == 143
    )
    assert (tmp_path / "requeued").exists()
    (tmp_path / "requeued").unlink()
    run(
        "slurm.sbatch",
        *flags,
        srun="mkdir $HERE/run/checkpoints/200.orbax-checkpoint-tmp; exit 143",
    )
    assert not (tmp_path / "requeued").exists()


def test_slurm_leaves_the_number_of_workers_to_the_flag_and_its_dry_run_can_be_pasted(run):
    flags = [*FLAGS, "--config.data.workers=3"]
    line, _ = run("slurm.sbatch", "--dry-run", *flags).stdout.splitlines()
    assert words_of(line)[-len(flags) :] == flags


# TPU VMs

GCLOUD = (
    'for word in "$@"; do case "$word" in --command=*) bash -c "${word#--command=}";; esac; done'
)
LIVES = NOTE + (
    "trap 'sleep 0.3; echo saved >> $HERE/saved; exit 143' TERM; for i in $(seq 400); "
    "do sleep 0.05; done"
)


@pytest.fixture
def worker(tmp_path):
    """The checkout on a TPU VM, with a stand-in for its Python."""

    def worker(python):
        stand_in(tmp_path / "vlp_jax/.venv/bin/python", python)
        if not (tmp_path / "vlp_jax/launch").exists():
            (tmp_path / "vlp_jax/launch").symlink_to(LAUNCH)
        return tmp_path / "vlp_jax"

    return worker


def test_tpu_vm_runs_again_until_the_run_has_ended_and_its_flags_arrive_whole(
    run, worker, tmp_path
):
    folder = worker(
        NOTE + "case $count in 1) exit 143;; 2) exit 75;; 3) kill -ABRT $$;; *) exit 0; esac"
    )
    (folder / "run.log").write_text("of the run before\n")
    assert run("tpu_vm.sh", "run", "mine", "--", *FLAGS, gcloud=GCLOUD).returncode == 0
    wait_for(lambda: "has ended with status 0" in (folder / "run.log").read_text())
    assert (tmp_path / "asked").read_text().splitlines() == ["-m", "vlp_jax.main", *FLAGS] * 4
    assert (folder / "run.log").read_text().startswith("of the run before\n")


@pytest.mark.parametrize(("status", "calls"), [(2, 1), (1, 4)])
def test_tpu_vm_does_not_start_again_after_a_mistake_nor_for_ever(
    run, worker, tmp_path, status, calls
):
    folder = worker(NOTE + f"exit {status}")
    run("tpu_vm.sh", "run", "mine", "--restarts=3", "--", *FLAGS, gcloud=GCLOUD)
    wait_for(lambda: f"has ended with status {status}" in (folder / "run.log").read_text())
    assert (tmp_path / "asked").read_text().splitlines() == ["-m", "vlp_jax.main", *FLAGS] * calls


def test_a_new_checkpoint_gives_tpu_vm_all_its_restarts_again(run, worker, tmp_path):
    folder = worker(
        NOTE + "mkdir -p $HERE/run/checkpoints; [ $count = 4 ] && exit 0; "
        "[ $count = 2 ] && mkdir $HERE/run/checkpoints/10; exit 1"
    )
    run(
        "tpu_vm.sh",
        "run",
        "mine",
        "--restarts=2",
        "--",
        "--config=c",
        f"--workdir={tmp_path}/run",
        gcloud=GCLOUD,
    )
    wait_for(lambda: "has ended with status 0" in (folder / "run.log").read_text())


def test_the_restarts_of_a_run_in_a_bucket_are_counted_by_its_checkpoints(run, worker, tmp_path):
    folder = worker(
        '[ "$2" = vlp_jax.storage.newest ] && { echo "$3" >> $HERE/looked; '
        '[ "$3" = gs://b/run ] && cat $HERE/newest; exit; }; '
        + NOTE
        + "[ $count = 4 ] && exit 0; [ $count = 2 ] && echo 10 > $HERE/newest; exit 1"
    )
    (tmp_path / "newest").write_text("-1\n")
    flags = ("--config=c", "--workdir=gs://b/run")
    run("tpu_vm.sh", "run", "mine", "--restarts=2", "--", *flags, gcloud=GCLOUD)
    wait_for(lambda: "has ended with status 0" in (folder / "run.log").read_text())
    assert set((tmp_path / "looked").read_text().split()) == {"gs://b/run"}


def test_local_multiprocess_writes_no_folder_for_a_workdir_in_a_bucket(run, tmp_path):
    done = run(
        "local_multiprocess.sh",
        "--config=c",
        "--workdir=gs://b/runs/two",
        python='[ "$2" = vlp_jax.storage.newest ] && { echo 3; exit; }; echo "$*"',
    )
    assert done.returncode == 0, done.stderr
    assert "--workdir=gs://b/runs/two" in (tmp_path / "two.process1.log").read_text()
    assert not (tmp_path / "gs:").exists()


def test_tpu_vm_run_refuses_a_second_run_stop_waits_until_it_is_saved_and_run_trains_again(
    run, worker, tmp_path
):
    folder = worker(LIVES)
    call = ("tpu_vm.sh", "run", "mine", "--", *FLAGS)
    assert run(*call, gcloud=GCLOUD).returncode == 0
    wait_for(lambda: (tmp_path / "asked").exists())
    second = run(*call)
    assert second.returncode == 1 and "a run is going on here" in second.stderr
    assert run("tpu_vm.sh", "stop", "mine").returncode == 0
    assert (tmp_path / "saved").read_text() == "saved\n" and "has ended with status 143" in (
        folder / "run.log"
    ).read_text()
    assert (tmp_path / "asked").read_text().count("--config=configs") == 1
    assert run("tpu_vm.sh", "stop", "mine").stdout == "nothing runs here\n"
    assert run(*call).returncode == 0
    wait_for(lambda: (tmp_path / "asked").read_text().count("--config=configs") == 2)
    run("tpu_vm.sh", "stop", "mine")


def test_tpu_vm_copies_the_working_tree_as_it_is(run, tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("launch", "configs", "runs"):
        (checkout / name).mkdir(parents=True)
    for name in ("tpu_vm.sh", "tpu_worker.sh", "restarts.sh", "install.sh"):
        shutil.copy(LAUNCH / name, checkout / "launch")
    (checkout / "configs/a b.py").write_text("as committed")
    (checkout / "setup.py").write_text("")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=checkout, check=True)
    (checkout / "configs/a b.py").write_text("changed")
    (checkout / "configs/new.py").write_text("new")
    (checkout / "runs/checkpoint").write_text("large")
    (checkout / "setup.py").unlink()
    stand_in(tmp_path / "there/vlp_jax/.venv/bin/python", 'echo "$@" >> "$HERE/python"')
    gcloud = 'cd "$HERE/there"; if [ "$4" = scp ]; then cp "$5" "${6#mine:}"; fi; ' + GCLOUD
    done = run(checkout / "launch/tpu_vm.sh", "install", "mine", gcloud=gcloud)
    assert done.returncode == 0, done.stderr
    copied = {
        str(path.relative_to(tmp_path / "there/vlp_jax")): path.read_text()
        for path in (tmp_path / "there/vlp_jax").rglob("*")
        if path.is_file() and ".venv" not in path.parts
    }
    assert {name: text for name, text in copied.items() if not name.startswith("launch/")} == {
        "configs/a b.py": "changed",
        "configs/new.py": "new",
    }
    assert (tmp_path / "python").read_text().splitlines() == [
        "-m pip install -q .[tpu,gcs]",
        "-m vlp_jax.hardware.devices tpu",
    ]


@pytest.mark.parametrize("has_python", [False, True])
def test_a_worker_gets_python_and_its_bucket_with_renames_allowed(
    run, worker, tmp_path, has_python
):
    folder = worker("")
    (folder / ".venv/bin/python").unlink()
    made = 'mkdir -p .venv/bin; printf "#!/bin/sh\\n" > .venv/bin/python; chmod +x .venv/bin/python'
    note = 'echo "$(basename "$0") $*" >> "$HERE/done"; '
    commands = {
        "uv": note + made,
        "python3.11": f'{note}[ "$1" = -m ] && {{ {made}; }}; exit {0 if has_python else 1}',
        "curl": note + "echo key",
        "lsb_release": "echo jammy",
        "apt-get": note,
        "mountpoint": "exit 1",
        "sudo": '[ "$1" = tee ] && { echo "$2: $(cat)" >> "$HERE/done"; exit; }; echo "sudo $*" '
        '>> "$HERE/done"; '
        '[ "$*" = "apt-get install -y -q gcsfuse" ] && printf "#!/bin/sh\\necho gcsfuse '
        '\\$* >> $HERE/done\\n" '
        '> "$HERE/bin/gcsfuse" && chmod +x "$HERE/bin/gcsfuse"; exit 0',
    }
    done = run(folder / "launch/tpu_worker.sh", "install", "b", **commands)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "done").read_text().splitlines()
    assert ("uv venv --quiet --seed --python 3.11 .venv" in lines) != has_python
    source = (
        "deb [signed-by=/usr/share/keyrings/cloud.google.asc] "
        "https://packages.cloud.google.com/apt gcsfuse-jammy main"
    )
    rest = [
        f"/etc/apt/sources.list.d/gcsfuse.list: {source}",
        "sudo apt-get update -q",
        "sudo apt-get install -y -q gcsfuse",
    ]
    assert [lines.index(line) for line in rest] == sorted(lines.index(line) for line in rest)
    assert lines[-1] == "gcsfuse --implicit-dirs --rename-dir-limit=200000 b /mnt/b"


@pytest.mark.parametrize(("extras", "platform"), [("cuda12", "gpu"), ("tpu,gcs", "tpu")])
def test_an_installation_ends_with_the_devices_and_fails_without_them(
    run, tmp_path, extras, platform
):
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "install.sh", tmp_path / "launch")
    note = 'echo "$*" >> "$HERE/python"; '
    for status in (0, 1):
        stand_in(tmp_path / ".venv/bin/python", f'{note}[ "$2" = pip ] || exit {status}')
        assert run(tmp_path / "launch/install.sh", extras).returncode == status
    calls = [f"-m pip install -q .[{extras}]", f"-m vlp_jax.hardware.devices {platform}"]
    assert (tmp_path / "python").read_text().splitlines() == 2 * calls


def test_an_installation_leaves_the_devices_of_a_run_alone(run, worker, tmp_path):
    folder = worker(LIVES)
    assert run("tpu_vm.sh", "run", "mine", "--", *FLAGS, gcloud=GCLOUD).returncode == 0
    wait_for(lambda: (tmp_path / "asked").exists())
    stand_in(tmp_path / "vlp_jax/.venv/bin/python", 'echo "$*" >> "$HERE/python"')
    done = run(folder / "launch/install.sh", "tpu")
    assert done.returncode == 0 and "a run holds the devices here" in done.stdout
    assert (tmp_path / "python").read_text() == "-m pip install -q .[tpu]\n"
    run("tpu_vm.sh", "stop", "mine")


def test_an_installation_without_a_platform_is_refused(run):
    done = run("install.sh", "gcs")
    assert (
        done.returncode == 2 and done.stderr == "usage: launch/install.sh tpu|cuda12[,EXTRA...]\n"
    )


QUEUED = """name: projects/p/locations/z/queuedResources/mine
spot: {}
state:
  state: ACTIVE
tpu:
  nodeSpec:
  - node:
      acceleratorType: v6e-16
      runtimeVersion: v2-alpha-tpuv6e
    nodeId: mine"""
VM = """acceleratorType: v4-8
runtimeVersion: tpu-ubuntu2204-base
schedulingConfig:
  preemptible: false
state: PREEMPTED"""


@pytest.mark.parametrize(
    ("there", "again"),
    [
        (
            "queued-resources",
            "queued-resources create mine --zone=z --node-id=mine "
            "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --spot",
        ),
        (
            "tpu-vm",
            "tpu-vm create mine --zone=z --accelerator-type=v4-8 --version=tpu-ubuntu2204-base",
        ),
    ],
)
def test_tpu_vm_resume_makes_again_what_was_there_in_the_way_it_was_made(
    run, tmp_path, there, again
):
    (tmp_path / "queued-resources").write_text(QUEUED)
    (tmp_path / "tpu-vm").write_text(VM)
    gcloud = (
        f'echo "$*" >> "$HERE/asked"; case "$*" in *" describe "*) [ "$3" = {there} ] || '
        "exit 1; "
        'case "$*" in *"value(state"*) echo ACTIVE;; *) cat "$HERE/$3";; esac;; esac'
    )
    done = run("tpu_vm.sh", "resume", "mine", "--zone=z", "--bucket=b", "--", *FLAGS, gcloud=gcloud)
    assert done.returncode == 0, done.stderr
    asked = [
        line.removeprefix("compute tpus ") for line in (tmp_path / "asked").read_text().splitlines()
    ]
    changes = [line for line in asked if " describe " not in line]
    assert changes[0].startswith(f"{there} delete mine --zone=z") and changes[1] == again
    assert (
        "scp" in changes[2]
        and "install b" in changes[3]
        and "run 10 --config" in changes[4]
        and len(changes) == 5
    )
    run("tpu_vm.sh", "status", "mine", "--zone=z")
    assert (tmp_path / "asked").read_text().splitlines()[-1].split()[2] == there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config=FILE and --workdir=DIR are needed"),
        (("--", "--config=c"), "--config=FILE and --workdir=DIR are needed"),
        (("--", *FLAGS), "--bucket=NAME is missing"),
        (("--bucket=b", "--", *FLAGS), "neither a queued resource nor a TPU VM"),
    ],
)
def test_tpu_vm_resume_deletes_nothing_before_it_knows_that_it_can_go_on(
    run, tmp_path, arguments, words
):
    gcloud = 'echo "$*" >> "$HERE/asked"; case "$*" in *" describe "*) exit 1;; esac'
    done = run("tpu_vm.sh", "resume", "mine", *arguments, gcloud=gcloud)
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "asked").exists() or " delete " not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            "create",
            "tpu-vm create mine --zone=z --accelerator-type=v5litepod-8 --version=v2 --spot",
        ),
        (
            "queue",
            "queued-resources create mine --zone=z --node-id=mine "
            "--accelerator-type=v5litepod-8 --runtime-version=v2 --spot",
        ),
        ("status", "tpu-vm describe mine"),
        ("install", "tpu_worker.sh\\ install\\ b"),
        ("logs", "--worker=0"),
        ("stop", "stop"),
        ("resume", "queued-resources delete mine"),
        ("delete", "queued-resources delete mine --zone=z --force --quiet"),
    ],
)
def test_every_action_of_tpu_vm_shows_its_commands(run, action, words):
    done = run(
        "tpu_vm.sh",
        action,
        "mine",
        "--zone=z",
        "--type=v5litepod-8",
        "--version=v2",
        "--spot",
        "--bucket=b",
        "--dry-run",
        "--",
        *FLAGS,
        gcloud="exit 1",
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    subprocess.run(["bash", "-n", "-c", done.stdout], check=True)


def test_the_dry_run_of_tpu_vm_can_be_pasted(run):
    (line,) = run("tpu_vm.sh", "run", "mine", "--dry-run", "--", *FLAGS).stdout.splitlines()
    assert shlex.split(words_of(line)[-1].removeprefix("--command="))[4:] == FLAGS


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("create",),
        ("fly", "mine"),
        ("create", "mine", "--zome=z"),
        ("run", "mine"),
        ("create", "mine", "--type=v6e-16"),
        ("run", "mine", "--restarts=x", "--", *FLAGS),
    ],
)
def test_a_mistaken_call_of_tpu_vm_is_status_2_and_a_line_of_usage(run, arguments):
    done = run("tpu_vm.sh", *arguments, gcloud="exit 1")
    assert done.returncode == 2 and "usage: launch/tpu_vm.sh" in done.stderr


# Several processes here


def test_local_processes_are_told_who_they_are(run, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=b c")
    given = ["--processes=3", "--devices=2", "--port=9999", "--dry-run", *FLAGS]
    lines = run("local_multiprocess.sh", *given).stdout.splitlines()
    python = ["python", "-m", "vlp_jax.main", "--coordinator=127.0.0.1:9999", "--num-processes=3"]
    assert [words_of(line) for line in lines] == [
        [
            "XLA_FLAGS=--xla_a=b c --xla_force_host_platform_device_count=2",
            "JAX_PLATFORMS=cpu",
            *python,
            f"--process-id={i}",
            *FLAGS,
        ]
        for i in range(3)
    ]


@pytest.mark.parametrize(("restarts", "status", "calls"), [(0, 143, 2), (1, 0, 4)])
def test_local_processes_start_again_together_when_asked(
    run, tmp_path, monkeypatch, restarts, status, calls
):
    stand_in(
        tmp_path / "my python",
        'echo x >> "$HERE/calls"; [ "$(wc -l < "$HERE/calls")" -gt 2 '
        "] && exit 0; sleep 0.5; exit 143",
    )
    monkeypatch.setenv("PYTHON", str(tmp_path / "my python"))
    done = run(
        "local_multiprocess.sh",
        f"--restarts={restarts}",
        "--config=c",
        f"--workdir={tmp_path}/runs/two",
    )
    assert done.returncode == status, done.stderr
    assert (tmp_path / "calls").read_text().count("x") == calls


@pytest.mark.parametrize(
    ("statuses", "status", "calls"),
    [((134, 75), 134, 6), ((75, 2), 2, 2), ((0, 1), 1, 6), ((2, 2), 2, 2)],
)
def test_local_processes_start_again_after_any_end_but_a_mistake_and_their_logs_grow(
    run, tmp_path, monkeypatch, statuses, status, calls
):
    stand_in(
        tmp_path / "python",
        'echo x | tee -a "$HERE/calls"; case "$*" in *--process-id=0*) '
        f"exit {statuses[0]};; *) exit {statuses[1]};; esac",
    )
    monkeypatch.setenv("PYTHON", str(tmp_path / "python"))
    done = run(
        "local_multiprocess.sh", "--restarts=2", "--config=c", f"--workdir={tmp_path}/runs/two"
    )
    assert done.returncode == status
    assert (tmp_path / "calls").read_text().count("x") == calls
    assert (tmp_path / "runs/two.process1.log").read_text().count("x") == calls // 2


def test_sigterm_reaches_every_local_process_and_ends_the_script(tmp_path):
    stand_in(tmp_path / "python", LIVES)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "HERE": str(tmp_path)}
    command = ["bash", LAUNCH / "local_multiprocess.sh", "--config=c", f"--workdir={tmp_path}/run"]
    script = subprocess.Popen(command, env=environment)
    wait_for(
        lambda: (
            (tmp_path / "asked").exists()
            and (tmp_path / "asked").read_text().count("--config=c") == 2
        )
    )
    script.terminate()
    assert script.wait(20) == 143 and (tmp_path / "saved").read_text() == "saved\n" * 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config=c"], "--workdir=DIR is missing"),
        (["--workdir=w", "--processes=abc"], "--processes: 'abc' is not a number from 1"),
        (["--workdir=w", "--processes=0"], "--processes: '0' is not"),
        (["--workdir=w", "--restarts=-1"], "--restarts: '-1' is not"),
        (["--workdir=w", "--process=3"], "unknown flag --process=3"),
        (["--workdir=w", "--process-id=3"], "unknown flag --process-id=3"),
        (["--workdir=w", "--dryrun"], "unknown flag --dryrun"),
    ],
)
def test_a_mistaken_call_of_local_multiprocess_is_status_2_and_one_line(run, flags, words):
    done = run("local_multiprocess.sh", *flags)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_local_multiprocess_passes_every_flag_of_the_program_on(run):
    program = re.findall(
        r'add_argument\(\s*"(--[a-z-]+)"([^)]*store_true)?', (ROOT / "vlp_jax/main.py").read_text()
    )
    assert len(program) >= 3
    flags = [name if switch else f"{name}=x" for name, switch in program] + ["--config.seed", "-1"]
    (line,) = run("local_multiprocess.sh", "--processes=1", "--dry-run", *flags).stdout.splitlines()
    assert words_of(line)[-len(flags) :] == flags


# GKE and Docker


def documents(name, mounted=False):
    """The JobSet of a file, and the other documents by kind; with its optional mount of the bucket,
    if `mounted`."""
    text = (LAUNCH / name).read_text()
    if mounted:
        text = re.sub("^( +)# mount: ", r"\1", text, flags=re.MULTILINE)
    found = {document["kind"]: document for document in yaml.safe_load_all(text)}
    return found.pop("JobSet"), found


@pytest.mark.parametrize("name", ["gke_jobset.yaml", "gke_jobset_gpu.yaml"])
@pytest.mark.parametrize("mounted", [False, True])
def test_a_jobset_has_grace_to_save_shared_memory_and_a_bucket_as_workdir(name, mounted):
    """The bucket may be mounted too, so that folders in it can be renamed."""
    jobset, others = documents(name, mounted)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"
    assert pod["terminationGracePeriodSeconds"] >= 300
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["shared-memory"] == "/dev/shm" and volumes["shared-memory"]["emptyDir"] == {
        "medium": "Memory"
    }
    assert ("bucket" in volumes) == mounted
    if mounted:
        assert mounts["bucket"] == "/bucket"
        bucket = volumes["bucket"]["csi"]
        assert bucket["driver"] == "gcsfuse.csi.storage.gke.io"
        assert bucket["volumeAttributes"]["mountOptions"].split(",") == [
            "implicit-dirs",
            "rename-dir-limit=200000",
        ]
        annotations = job["template"]["metadata"]["annotations"]
        assert annotations == {"gke-gcsfuse/volumes": "true"}
    assert pod["serviceAccountName"] == others["ServiceAccount"]["metadata"]["name"]
    assert all(argument.partition("=")[0].startswith("--") for argument in container["args"])
    assert "--workdir=gs://BUCKET/runs/" in "\n".join(container["args"])


@pytest.mark.parametrize("name", ["gke_jobset.yaml", "gke_jobset_gpu.yaml"])
def test_only_status_2_ends_a_jobset_and_everything_else_starts_it_again_a_number_of_times(name):
    jobset, _ = documents(name)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": job["template"]["spec"]["containers"][0]["name"],
            "operator": "In",
            "values": [2],
        },
    }
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0 and job["backoffLimit"] == 0


def test_the_jobset_has_a_pod_for_every_four_chips():
    jobset, _ = documents("gke_jobset.yaml")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    rows, columns = map(
        int, job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    )
    chips = job["template"]["spec"]["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == rows * columns // chips


def test_pods_with_gpus_may_ask_kubernetes_what_jax_asks():
    _, others = documents("gke_jobset_gpu.yaml")
    allowed = {
        (group, resource, verb)
        for rule in others["Role"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {("", "pods", "list"), ("batch", "jobs", "get"), ("", "services", "list")} <= allowed
    binding = others["RoleBinding"]
    assert binding["roleRef"]["name"] == others["Role"]["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": others["ServiceAccount"]["metadata"]["name"]}
    ]


def test_the_dockerfile_copies_what_is_there_and_installs_an_extra_that_exists():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in ("tpu", "cuda12", "k8s"))


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    time.sleep(0.3)
