"""prepare stopped in every way there is, and run again: what is written is what an unbroken run
writes."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from vlp_jax import prepare
from vlp_jax.data.prepare.resumable_output import ResumableOutput
from vlp_jax.data.prepare.writer import Options, write_dataset
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import ConfigError, DataError


def picture(number, height, width):
    file = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


def write_tar(path, pictures):
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(pictures):
            for name, data in (
                (f"k{number}.png", image),
                (f"k{number}.txt", f"thing {number}".encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


OPTIONS = Options(shards=4, image_size=6)  # ten samples: shards of 2, 3, 2, 3


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    """Ten samples; the second and the sixth are bad."""
    pictures = [
        b"no picture" if number in (1, 5) else picture(number, 9, 7) for number in range(10)
    ]
    return write_tar(tmp_path_factory.mktemp("source") / "in.tar", pictures)


@pytest.fixture(scope="module")
def unbroken(tar, tmp_path_factory):
    """The files of a run that nothing stops."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    write(tar, output)
    return digests(output)


def write(tar, output, options=OPTIONS, **more):
    return write_dataset({"train": open_source(f"webdataset:{tar}")}, output, "x", options, **more)


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_workers_change_nothing_and_bad_samples_come_back_from_them(tar, unbroken, tmp_path):
    write(tar, tmp_path / "out", dataclasses.replace(OPTIONS, workers=2))
    assert digests(tmp_path / "out") == unbroken
    entry = json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["train"]
    assert (entry["count"], entry["resized"], entry["skipped"]) == (8, 8, {"damaged_image": 2})


KILLED = """
import os, signal, sys
from vlp_jax.data.prepare import resumable_output, writer
from vlp_jax.data.sources import registry

place, shards, tar, output = sys.argv[1:]
add, finish = resumable_output.ResumableOutput.add, resumable_output.ResumableOutput.finish

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at_last(self, entry):
    if sum(map(len, self.shards.values())) == int(shards):
        kill()
    add(self, entry)

if place == "renamed":
    resumable_output.ResumableOutput.add = kill_at_last
if place == "whole":
    resumable_output.ResumableOutput.finish = kill
progress = lambda split, done, of: kill() if place == "record" and done == 6 else None
writer.write_dataset({"train": registry.open_source(f"webdataset:{tar}")}, output, "x",
                     writer.Options(shards=4, image_size=6), progress)
"""


def write_and_be_killed(place, shards, tar, output):
    command = [sys.executable, "-c", KILLED, place, str(shards), str(tar), str(output)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize(("place", "shards"), [("record", 2), ("renamed", 1), ("whole", 4)])
def test_killed_anywhere_and_run_again_it_writes_what_an_unbroken_run_does(
    place, shards, tar, unbroken, tmp_path
):
    output = tmp_path / "out"
    write_and_be_killed(place, shards, tar, output)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial-x"]
    lines = (tmp_path / "out.partial-x/progress.jsonl").read_text().splitlines()
    whole = [tmp_path / "out.partial-x/data" / json.loads(line)["file"] for line in lines[1:]]
    assert len(whole) == shards
    before = [path.stat().st_mtime_ns for path in whole]
    encoded = []
    write(tar, output, progress=lambda split, done, of: encoded.append(done))
    assert digests(output) == unbroken
    # the whole shards were not made again
    assert encoded == list(range([0, 2, 5, 7, 10][shards] + 1, 11))
    assert [(output / path.name).stat().st_mtime_ns for path in whole] == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("damage", ["torn line", "shard gone", "shard cut", "no progress"])
def test_what_a_crash_may_leave_behind_is_not_counted(damage, tar, unbroken, tmp_path):
    write_and_be_killed("record", 2, tar, tmp_path / "out")
    log = tmp_path / "out.partial-x/progress.jsonl"
    last = tmp_path / "out.partial-x/data" / json.loads(log.read_text().splitlines()[-1])["file"]
    if damage == "torn line":
        log.write_text(log.read_text()[:-20])
    elif damage == "shard gone":
        last.unlink()
    elif damage == "shard cut":
        last.write_bytes(last.read_bytes()[:-1])
    else:
        log.unlink()
    write(tar, tmp_path / "out")
    assert digests(tmp_path / "out") == unbroken


def test_shards_of_another_command_are_neither_used_nor_deleted(tar, unbroken, tmp_path):
    write_and_be_killed("record", 2, tar, tmp_path / "out")
    partial = tmp_path / "out.partial-x"
    before = digests(partial / "data")
    for change, message in (
        ({"image_size": 5}, "image_size was 6, now 5"),
        ({"shards": 3}, "shards was 4, now 3"),
        ({"compression": "none"}, "compression was 'zstd', now 'none'"),
    ):
        with pytest.raises(ConfigError) as caught:
            write(tar, tmp_path / "out", Options(**{"shards": 4, "image_size": 6} | change))
        assert f"{partial} holds 2 shard(s) of another command ({message})" in str(caught.value)
        assert ("remove the folder to start over") in str(caught.value) and "\n" not in str(
            caught.value
        )
    with pytest.raises(ConfigError, match="splits.train.fingerprint was"):
        other = tmp_path / "in.tar"
        other.write_bytes(tar.read_bytes())
        with tarfile.open(other, "a") as more:
            more.addfile(tarfile.TarInfo("k10.txt"))
        write(other, tmp_path / "out")
    assert digests(partial / "data") == before
    write(tar, tmp_path / "out")
    assert digests(tmp_path / "out") == unbroken


def test_a_start_without_a_whole_shard_is_no_obstacle(tar, unbroken, tmp_path):
    (tmp_path / "out.partial-x/data").mkdir(parents=True)
    (tmp_path / "out.partial-x/progress.jsonl").write_text('{"format": 1}\n')
    write(tar, tmp_path / "out")
    assert digests(tmp_path / "out") == unbroken


def test_two_processes_do_not_write_one_folder(tar, tmp_path):
    with (
        ResumableOutput(tmp_path / "out", "x", {"splits": {}}),
        pytest.raises(ConfigError, match="written by another process"),
    ):
        write(tar, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_one_line(tar, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=f"--output={tmp_path}/file/out cannot be written: Not a directory$"
    ):
        write(tar, tmp_path / "file/out")


def test_a_full_disk_is_one_line_and_what_is_whole_is_kept(tmp_path):
    """A limit on the size of files, which only the second shard breaks, stands for the disk's."""
    tar, options = (
        write_tar(tmp_path / "in.tar", [picture(0, 9, 7), picture(1, 300, 300)]),
        Options(shards=2),
    )
    write(tar, tmp_path / "unbroken", options)
    first, second = (path.stat().st_size for path in sorted((tmp_path / "unbroken").glob("x-*")))
    assert first < second
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (first, hard))
        with pytest.raises(
            ConfigError,
            match=f"--output={tmp_path}/out cannot be written: .*File too large.*run the same",
        ):
            write(tar, tmp_path / "out", options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    encoded = []
    write(tar, tmp_path / "out", options, progress=lambda split, done, of: encoded.append(done))
    assert encoded == [2]
    assert digests(tmp_path / "out") == digests(tmp_path / "unbroken")


# Through the door, with worker processes


@pytest.fixture
def command(tmp_path):
    """A command that takes some seconds."""
    tar = write_tar(tmp_path / "in.tar", [picture(number, 120, 120) for number in range(200)])
    return lambda output, workers: [
        f"--source=webdataset:{tar}",
        f"--output={output}",
        "--name=x",
        "--image-size=100",
        "--shards=50",
        f"--workers={workers}",
    ]


def start(arguments, output):
    """The door in a process, stopped by the caller once it has written a few more shards."""
    # what a shell starts in its background ignores it
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-m", "vlp_jax.prepare", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listens,
    )
    log = output.with_name(f"{output.name}.partial-x") / "progress.jsonl"
    before = log.read_text().count("\n") if log.exists() else 1
    while not log.exists() or log.read_text().count("\n") < before + 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.full
def test_ctrl_c_is_one_line_and_a_kill_takes_the_workers_along_and_the_next_run_goes_on(
    command, tmp_path
):
    output, arguments = tmp_path / "out", command(tmp_path / "out", 2)
    process = start(arguments, output)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to workers too
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    # progress, where the machine is slow
    said = [line for line in said.splitlines() if " samples, " not in line]
    assert said == ["stopped; run the same command again to resume"]
    process = start(arguments, output)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=60)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not output.exists()
    assert prepare.main(command(output, 1)) == 0
    assert prepare.main(command(tmp_path / "unbroken", 1)) == 0
    assert digests(output) == digests(tmp_path / "unbroken")


DYING = """
import os, sys
from vlp_jax.data.prepare import writer
from vlp_jax.data.sources import registry
from vlp_jax.errors import UserError

class Dying:
    def __init__(self, spec):
        self.inner, self.spec, self.parent = registry.open_source(spec), spec, os.getpid()
    def __len__(self):
        return len(self.inner)
    def fingerprint(self):
        return self.inner.fingerprint()
    def __getitem__(self, index):
        if index == 7 and os.getpid() != self.parent:
            os._exit(1)
        return self.inner[index]

if __name__ == "__main__":
    try:
        splits = {"train": Dying(sys.argv[1])}
        writer.write_dataset(splits, sys.argv[2], "x", writer.Options(workers=2))
    except UserError as error:
        print(error)
"""


def test_a_worker_that_dies_is_an_error_and_not_a_hang(tar, tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    run = [sys.executable, str(tmp_path / "dying.py"), f"webdataset:{tar}", str(tmp_path / "out")]
    done = subprocess.run(
        run,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert "data error: webdataset:" in done.stdout and "a worker process died" in done.stdout, (
        done.stderr
    )
    assert "fewer than --workers=2" in done.stdout


SENDING = """
from vlp_jax.data.prepare.parallel_encoding import Encoded, encode_from

class Large:
    source = range(100_000)
    def __call__(self, index):
        return Encoded(bytes(1 << 20))

if __name__ == "__main__":
    for _ in range(3):
        with encode_from(Large(), 0, workers=2) as encoded:
            next(encoded)
    print("left")
"""


@pytest.mark.full
def test_who_leaves_early_does_not_wait_for_workers_that_send_what_nobody_takes(tmp_path):
    (tmp_path / "sending.py").write_text(SENDING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "sending.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def test_an_error_of_a_source_in_a_worker_is_the_error_of_the_command(tar, tmp_path):
    copy = tmp_path / "in.tar"
    copy.write_bytes(tar.read_bytes())
    source = open_source(f"webdataset:{copy}")
    copy.unlink()
    with pytest.raises(DataError, match="in.tar: no such file"):
        write_dataset({"train": source}, tmp_path / "out", "x", Options(workers=2))
    assert not (tmp_path / "out").exists()
