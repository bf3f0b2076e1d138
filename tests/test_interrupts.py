"""Ctrl-C, a closed terminal and a scheduler's SIGTERM: what is said at once, what is saved, and
what is left behind. With real processes; how long anything takes is not tested.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from stderr_lines import own_lines

from vlp_jax import command_line
from vlp_jax.data import worker_processes
from vlp_jax.data.config import DataConfig, TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError
from vlp_jax.training.signals import StopSignal

ROOT = pathlib.Path(__file__).parents[1]
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"


def default_signals():
    """What a shell's background ignores, and what nohup does, has its default again, as in a
    terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(module, *arguments, **options):
    """An entry point in a process group of its own, as a terminal has it."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return subprocess.Popen(
        [sys.executable, "-m", f"vlp_jax.{module}", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **{"preexec_fn": default_signals, **options},
    )


@pytest.fixture
def training(tiny, tmp_path):
    """A run without an end, with two workers, that has made its first updates; killed where a test
    leaves it."""
    started = []
    workdir, plan = (
        tmp_path / "run",
        ("steps=100000000", "checkpoint.every_steps=none", "data.workers=2", SYNTHETIC),
    )

    def run():
        process = start(
            "main",
            f"--config={ROOT}/configs/clip_emoji.py:smoke",
            f"--workdir={workdir}",
            *tiny(*plan),
        )
        started.append(process)
        path = workdir / "metrics.jsonl"
        while process.poll() is None and not (path.exists() and path.read_text().count("\n") > 3):
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        return process, workdir

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def shared_memory():
    """The shared memory that no living process has: other tests, of this machine's other users too,
    come and go."""
    left = {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.mp-", "pym-"))}
    for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # a process that has ended meanwhile
            left -= {
                name.removesuffix(" (deleted)")
                for name in re.findall(r"/dev/shm/(.*)", maps.read_text())
            }
    return left


def assert_nothing_left(before):
    """Soon: the workers leave, and then Python's tracker removes what they had; other tests'
    processes may just be starting."""
    deadline = time.monotonic() + 60
    while shared_memory() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not shared_memory() - before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, ["stopping after this step; again to stop now"]),
        (signal.SIGTERM, 143, []),
        (signal.SIGHUP, 129, []),
    ],
)
def test_a_signal_to_the_whole_group_saves_and_leaves_nothing_behind(
    training, number, status, said
):
    before = shared_memory()
    process, workdir = training()
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    assert errors.splitlines() == said
    assert "saved; run the same command again to resume" in output
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [str(last)]
    assert_nothing_left(before)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_without_the_save(training):
    before = shared_memory()
    process, workdir = training()
    os.killpg(process.pid, signal.SIGINT)
    line = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert (line + errors).splitlines() == [
        "stopping after this step; again to stop now",
        "stopped now, without a further save",
    ]
    assert_nothing_left(before)


IMPORTING = """
import signal, os, sys
class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.killpg(os.getpid(), signal.SIGINT)
            while True:
                pass
sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.variants
@pytest.mark.parametrize(
    ("door", "while_importing"),
    [
        ("main", "ml_collections"),
        ("main", "jax"),
        ("main", "orbax.checkpoint"),
        ("evaluate", "jax"),
        ("inspect", "flax"),
        ("prepare", "numpy"),
    ],
)
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path, door, while_importing):
    """A module that is never found, while which the terminal sends its signal."""
    (tmp_path / "sitecustomize.py").write_text(IMPORTING.format(name=while_importing))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    arguments = {
        "main": ("--config=clip_emoji:smoke", f"--workdir={tmp_path}/run"),
        "inspect": (f"--workdir={tmp_path}/run",),
    }
    done = subprocess.run(
        [sys.executable, "-m", f"vlp_jax.{door}", *arguments.get(door, ())],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        start_new_session=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, own_lines(done.stderr)) == (130, "", ["interrupted"]), (
        done.stderr
    )


def test_an_answer_comes_while_the_main_thread_is_not_in_python(capfd):
    """`sleep` in C waits on after a signal whose handler is Python's, as a compilation does."""
    code = (
        "import ctypes, os, signal, threading\nfrom vlp_jax.interrupts import "
        "leave_on_ctrl_c\nleave_on_ctrl_c()\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "libc = ctypes.CDLL(None)\nwhile True: libc.usleep(900000000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_error_does_not_wait_for_a_compilation_in_another_thread():
    code = (
        "import ctypes, threading\nfrom vlp_jax.command_line import run_entry_point\n"
        "from vlp_jax.errors import ConfigError\nfrom vlp_jax.interrupts import COMPILING_AHEAD\n"
        "def main(arguments):\n"
        "    wait = lambda: ctypes.CDLL(None).sleep(3600)\n"
        "    threading.Thread(target=wait, name=COMPILING_AHEAD).start()\n"
        "    raise ConfigError('no')\n"
        "run_entry_point(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=120
    )
    assert (done.returncode, own_lines(done.stderr)) == (2, ["config error: no"])


def test_a_keyboard_interrupt_through_a_door_is_one_line(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["door"])
    with pytest.raises(SystemExit) as left:
        command_line.run_entry_point(interrupted)
    assert left.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_hangup_is_remembered_as_sigterm_is(number, status):
    # nohup, under which tests may run, has it ignored
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), number)
            assert stop.asks() and stop.exit_status == status
    finally:
        signal.signal(number, before)


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asks()
    finally:
        signal.signal(signal.SIGHUP, before)


# Open files


@pytest.mark.full
def test_workers_take_few_open_files_and_the_limit_is_raised_for_them(monkeypatch):
    preprocessor = Preprocessor(32, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096))
    rows = TrainRows(
        open_mixture(TrainSourceConfig(source="synthetic:64")),
        preprocessor,
        AugmentationConfig(),
        0,
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 50, limits[1]))
    batches = Batches(rows, DataConfig(batch_size=8, workers=2, prefetch=4))
    try:
        for _ in range(8):
            next(batches)
        assert len(os.listdir("/proc/self/fd")) - before < 2 * worker_processes.FILES_OF_A_WORKER
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before + 50
        workers = [
            child.pid
            for child in psutil.Process().children()
            if "multiprocessing.spawn" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        for number in workers:
            status = pathlib.Path(f"/proc/{number}/status").read_text()
            blocked = int(re.search(r"SigBlk:\t(\w+)", status)[1], 16)
            assert all(blocked >> stop - 1 & 1 for stop in worker_processes.STOPS)
    finally:
        batches.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_more_workers_than_the_hard_limit_allows_are_refused(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 300))
    with pytest.raises(
        ConfigError,
        match=r"data.workers: 16 workers need up to 832 open files, "
        r"and this process may have 300",
    ):
        worker_processes.allow_open_files(16, batches=6, least=1, most=12)
