"""Files that change, and indexes that are damaged: a sample is the one that its key names, or it is
refused."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources import index
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError

KINDS = ["webdataset", "jsonl", "csv", "parquet"]
COUNT = 40


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch, tmp_path):
    monkeypatch.setattr(index, "SMALL", -1)
    monkeypatch.setenv("VLP_JAX_CACHE", str(tmp_path / "cache"))


def write(folder, kind, word, name="x"):
    """COUNT samples, whose captions are `word NUMBER`; for words of one length the files are as
    long as each other."""
    (folder / "a.png").write_bytes(b"image")
    path, captions = folder / f"{name}.{kind}", [f"{word} {number:02d}" for number in range(COUNT)]
    if kind == "webdataset":
        with tarfile.open(path, "w") as tar:
            for number, caption in enumerate(captions):
                for ending, data in (("png", b"image"), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{word}{number}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    elif kind == "jsonl":
        path.write_text(
            "".join(
                json.dumps({"image": "a.png", "caption": caption}) + "\n" for caption in captions
            )
        )
    elif kind == "csv":
        path.write_text(
            "image,caption\n" + "".join(f'a.png,"{caption}"\n\n' for caption in captions)
        )
    else:
        table = pyarrow.table({"image": [b"image"] * COUNT, "caption": captions})
        parquet.write_table(table, path, row_group_size=10, compression="none")
    return path


def keep_stamp(path, change):
    """Changes a file behind its time of change."""
    status = os.stat(path)
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (
        os.stat(path).st_size == status.st_size and os.stat(path).st_mtime_ns == status.st_mtime_ns
    )


def captions_of(source):
    """The captions of all samples, None for those that are refused."""
    found = []
    for number in range(len(source)):
        try:
            found.append(source[number].captions[0])
        except SampleError as error:
            assert str(source.paths[0]) in error.message and (
                "since" in error.message or "cannot be read" in error.message
            )
            found.append(None)
    return found


def expected(word):
    return [f"{word} {number:02d}" for number in range(COUNT)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "way",
    ["renamed over", "written over", "written over, and its time set back", "one bit", "cut short"],
)
def test_a_file_that_changes_while_it_is_open_gives_no_other_samples(tmp_path, kind, way):
    path, other = write(tmp_path, kind, "word"), write(tmp_path, kind, "echo", "y").read_bytes()
    source = open_source(f"{kind}:{path}")
    assert source[3].captions == ("word 03",)
    if way == "renamed over":
        keep_stamp(path, lambda: os.replace(path.with_name(f"y.{kind}"), path))
    elif way == "written over":
        path.write_bytes(other)
    elif way == "cut short":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = (
            other
            if way != "one bit"
            else path.read_bytes().replace(b"word 07", b"word 06").replace(b"word7.t", b"word6.t")
        )
        keep_stamp(path, lambda: path.write_bytes(data))
    found = captions_of(source)
    # row groups that were read are kept; of a time that was set back Arrow's checksums know nothing
    if kind == "parquet":
        if "back" in way or way == "one bit":
            return
        assert all(
            caption in (None, right) for caption, right in zip(found, expected("word"), strict=True)
        )
    elif way == "one bit":
        assert found == [
            None if number == 7 else caption for number, caption in enumerate(expected("word"))
        ]
    else:
        assert found == [None] * COUNT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["renamed over", "written over, and its time set back"])
def test_the_index_of_another_file_is_not_taken_for_that_of_this_one(tmp_path, kind, way):
    path = write(tmp_path, kind, "word")
    assert captions_of(open_source(f"{kind}:{path}")) == expected("word")
    write(tmp_path, kind, "echo", "y")
    other = path.with_name(f"y.{kind}")
    keep_stamp(
        path,
        lambda: (
            os.replace(other, path)
            if way == "renamed over"
            else path.write_bytes(other.read_bytes())
        ),
    )
    found = captions_of(open_source(f"{kind}:{path}"))
    assert (
        found == expected("echo")
        if way == "renamed over" or kind == "parquet"
        else found == [None] * COUNT
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_an_index_is_noticed_or_changes_nothing(tmp_path, kind, monkeypatch):
    # larger arrays are checked when they are first used
    monkeypatch.setattr(index, "CHECKED_AT_ONCE", 64)
    path = write(tmp_path, kind, "word")
    first = open_source(f"{kind}:{path}")
    samples, fingerprint = list(first), first.fingerprint()
    stored = next(file for file in tmp_path.iterdir() if file.name.startswith(f".x.{kind}."))
    content, rng, noticed = stored.read_bytes(), np.random.default_rng(0), 0
    for bit in rng.integers(0, 8 * len(content), 150).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        stored.write_bytes(flipped)
        try:
            source = open_source(f"{kind}:{path}")
            found = list(source)
        except DataError as error:
            assert "this index is damaged, and was removed" in str(error), (bit, error)
            noticed, source = noticed + 1, open_source(f"{kind}:{path}")  # builds another
            found = list(source)
        assert found == samples and source.fingerprint() == fingerprint, bit
    assert noticed > 10 or kind == "parquet"


KILLED = """
import os, signal, sys
from vlp_jax.data.sources import index
from vlp_jax.data.sources.registry import open_source
index.SMALL = -1
index.os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
open_source(sys.argv[1])
"""


def test_what_a_killed_indexing_left_is_cleaned_up(tmp_path):
    path = write(tmp_path, "jsonl", "word")
    before = {file.name for file in tmp_path.iterdir()}
    for _ in range(2):
        assert (
            subprocess.run([sys.executable, "-c", KILLED, f"jsonl:{path}"]).returncode
            == -signal.SIGKILL
        )
    # the second has cleaned up after the first
    assert len({file.name for file in tmp_path.iterdir()} - before) == 1
    assert captions_of(open_source(f"jsonl:{path}")) == expected("word")
    assert {file.name for file in tmp_path.iterdir()} - before == {".x.jsonl.jsonl-index"}


def test_what_other_processes_are_writing_is_left_alone(tmp_path):
    path = write(tmp_path, "jsonl", "word")
    prefix = index._partial_name(".x.jsonl.jsonl-index")
    names = [
        f"{prefix}{os.uname().nodename}-{os.getppid()}-a",
        f"{prefix}elsewhere-1-b",
        f"{prefix}long-ago-1-c",
        ".partial-other",
    ]
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / names[2], (1, 1))
    open_source(f"jsonl:{path}")
    assert [name for name in names if (tmp_path / name).exists()] == [names[0], names[1], names[3]]


def test_a_file_that_is_still_being_written_is_not_indexed(tmp_path, monkeypatch):
    path = write(tmp_path, "jsonl", "word")

    def build(name):
        with open(name, "a") as file:
            file.write("\n")
        return {"numbers": np.arange(3)}

    with pytest.raises(
        DataError, match="x.jsonl: changed while it was indexed; is it still being written?"
    ):
        index.load_indexes([str(path)], "test", build, "test:x")


def test_an_index_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(index.os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(
        index.os, "replace", lambda *paths: (order.append("replace"), replace(*paths))
    )
    open_source(f"jsonl:{write(tmp_path, 'jsonl', 'word')}")
    assert order == ["fsync", "replace"]


def test_inodes_count_where_the_file_system_keeps_them(tmp_path, monkeypatch):
    from vlp_jax.data.sources import local_files

    path = write(tmp_path, "jsonl", "word")
    monkeypatch.setattr(local_files, "_inodes_are_stable", lambda device: False)
    before = local_files.stamp_of(os.stat(path))
    keep_stamp(path, lambda: os.replace(write(tmp_path, "jsonl", "echo", "y"), path))
    assert local_files.stamp_of(os.stat(path)) == before
    monkeypatch.setattr(local_files, "_inodes_are_stable", lambda device: True)
    assert local_files.stamp_of(os.stat(path)) != before
