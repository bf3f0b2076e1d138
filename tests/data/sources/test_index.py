"""Indexes: built once, beside the data or in the cache, and never trusted for another file."""

import io
import json
import os
import pickle
import tarfile

import fsspec
import numpy as np
import pytest

from vlp_jax.data.sources import index
from vlp_jax.data.sources.index import load_indexes
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError

ARRAYS = {
    "numbers": np.arange(7, dtype=np.int64).reshape(7, 1),
    "bytes": np.arange(3, dtype=np.uint8),
    "none": np.zeros((0, 3), np.uint32),
}


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch, tmp_path):
    monkeypatch.setattr(index, "SMALL", -1)
    monkeypatch.setenv("VLP_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.bin").write_bytes(b"12345")
    return tmp_path / "data/x.bin"


class Builder:
    def __init__(self):
        self.built = 0

    def __call__(self, path):
        self.built += 1
        return ARRAYS


def load(path, build, kind="test"):
    return load_indexes([str(path)], kind, build, "test:spec")[0]


def assert_whole(found):
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)


def test_an_index_is_built_once_and_lies_hidden_beside_the_file(file):
    build = Builder()
    for _ in range(3):
        assert_whole(load(file, build))
    assert build.built == 1
    assert sorted(path.name for path in file.parent.iterdir()) == [".x.bin.test-index", "x.bin"]


def test_a_small_file_leaves_no_index(file, monkeypatch):
    monkeypatch.setattr(index, "SMALL", 5)
    build = Builder()
    assert_whole(load(file, build)), load(file, build)
    assert build.built == 2
    assert [path.name for path in file.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("change", ["size", "time", "kind"])
def test_an_index_of_another_file_or_kind_is_not_taken(file, change):
    build = Builder()
    load(file, build)
    if change == "size":
        file.write_bytes(b"123456")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    load(file, build, "other" if change == "kind" else "test")
    assert build.built == 2


def test_an_index_that_is_cut_off_or_overwritten_is_built_again(file):
    build = Builder()
    load(file, build)
    stored = file.with_name(".x.bin.test-index")
    whole = stored.read_bytes()
    for data in (whole[:-1], whole[:100], b"", b"{}", b"\xff" * len(whole), b"[1]" + whole[3:]):
        stored.write_bytes(data)
        assert_whole(load(file, build))
        assert stored.read_bytes() == whole
    assert build.built == 7


def unwritable(folder, monkeypatch):
    """As root may write anywhere, permissions alone would not do."""
    make = index.tempfile.NamedTemporaryFile

    def refuse(*arguments, dir, **options):
        if str(dir) == str(folder):
            raise PermissionError(13, "Permission denied")
        return make(*arguments, dir=dir, **options)

    monkeypatch.setattr(index.tempfile, "NamedTemporaryFile", refuse)


@pytest.mark.parametrize("how", ["refuses", "mode"])
def test_the_index_of_a_read_only_folder_goes_to_the_cache(file, tmp_path, monkeypatch, how):
    unwritable(file.parent, monkeypatch) if how == "refuses" else file.parent.chmod(0o555)
    build = Builder()
    for _ in range(2):
        assert_whole(load(file, build))
    file.parent.chmod(0o755)
    assert build.built == 1
    assert len(list((tmp_path / "cache/indexes").iterdir())) == 1
    assert [path.name for path in file.parent.iterdir()] == ["x.bin"]


def test_where_nothing_can_be_written_the_index_stays_in_memory(file, tmp_path, monkeypatch):
    unwritable(file.parent, monkeypatch)
    (tmp_path / "cache").write_text("a file")
    found = load(file, Builder())
    assert_whole(found)
    assert_whole(pickle.loads(pickle.dumps(found)))


def test_the_index_of_a_remote_file_goes_to_the_cache(tmp_path):
    memory, build = fsspec.filesystem("memory"), Builder()
    memory.pipe_file(f"{tmp_path}/x.bin", b"123")
    for _ in range(2):
        assert_whole(load(f"memory:/{tmp_path}/x.bin", build))
    assert build.built == 1
    memory.pipe_file(f"{tmp_path}/x.bin", b"1234")
    load(f"memory:/{tmp_path}/x.bin", build)
    assert build.built == 2


def test_an_index_pickles_as_the_name_of_its_file(file):
    big = {"numbers": np.arange(100_000)}
    found = load(file, lambda path: big)
    packed = pickle.dumps(found)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)["numbers"], big["numbers"])
    file.with_name(".x.bin.test-index").unlink()
    with pytest.raises(DataError, match="this index is gone or has changed"):
        pickle.loads(packed)


def test_a_failure_to_build_leaves_nothing(file):
    def fail(path):
        raise DataError(f"{path}: is damaged")

    with pytest.raises(DataError, match="is damaged"):
        load(file, fail)
    assert [path.name for path in file.parent.iterdir()] == ["x.bin"]


def test_a_folder_that_fills_up_while_it_is_written_leaves_no_part(file, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index.os, "replace", full)
    assert_whole(load(file, Builder()))
    assert [path.name for path in file.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("kind", ["webdataset", "jsonl", "csv", "parquet"])
def test_every_kind_reads_the_same_from_a_stored_index(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    path = tmp_path / f"x.{kind}"
    if kind == "webdataset":
        with tarfile.open(path, "w") as tar:
            for name, data in (
                ("a.png", b"image"),
                ("a.txt", b"one"),
                ("b.png", b"image"),
                ("b.txt", b"two"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    elif kind == "jsonl":
        path.write_text(
            "".join(
                json.dumps({"image": "a.png", "caption": caption}) + "\n"
                for caption in ("one", "two")
            )
        )
    elif kind == "csv":
        path.write_text("image,caption\na.png,one\na.png,two\n")
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(
            pyarrow.table({"image": [b"image"] * 2, "caption": ["one", "two"]}), path
        )
    first, second = open_source(f"{kind}:{path}"), open_source(f"{kind}:{path}")
    assert len([name for name in os.listdir(tmp_path) if name.startswith(f".x.{kind}.")]) == 1
    assert list(first) == list(second) == list(pickle.loads(pickle.dumps(second)))
    assert [sample.captions for sample in second] == [("one",), ("two",)]
    assert first.fingerprint() == second.fingerprint()
