"""What a source keeps in memory, and sends to worker processes, does not grow with its samples."""

import io
import pickle
import resource
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vlp_jax import prepare
from vlp_jax.data.sources import arrayrecord, index
from vlp_jax.data.sources.registry import open_source

FEW, MANY = 500, 8_000


@pytest.fixture(autouse=True)
def indexes_are_stored(monkeypatch):
    monkeypatch.setattr(index, "SMALL", -1)


def webdataset_tar(folder, count):
    with tarfile.open(folder / f"{count}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(count):
            for ending in ("png", "txt"):
                info = tarfile.TarInfo(f"{number:09d}.{ending}")
                info.size = 4
                tar.addfile(info, io.BytesIO(b"data"))
    return f"webdataset:{folder}/{count}.tar"


def jsonl_file(folder, count):
    (folder / "a.png").write_bytes(b"image")
    (folder / f"{count}.jsonl").write_text('{"image": "a.png", "caption": "one"}\n' * count)
    return f"jsonl:{folder}/{count}.jsonl"


def opened(spec):
    """(bytes that Python held at most while it opened a source, bytes of its pickle); modules are
    loaded before."""
    tracemalloc.start()
    source = open_source(spec)
    source.fingerprint()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, len(pickle.dumps(source))


@pytest.mark.parametrize("write", [webdataset_tar, jsonl_file])
def test_opening_by_a_stored_index_takes_no_memory_for_each_sample(tmp_path, write):
    few, many = write(tmp_path, FEW), write(tmp_path, MANY)
    for spec in (few, many):
        assert open_source(spec)[3].captions
    (few_peak, few_pickle), (many_peak, many_pickle) = opened(few), opened(many)
    assert many_peak - few_peak < MANY - FEW  # less than a byte a sample
    assert many_pickle - few_pickle < 100


def test_arrayrecord_keeps_some_readers_open_and_reads_all_shards(tmp_path, monkeypatch):
    prepare.main(
        ["--source=synthetic:40?height=8&width=8", f"--output={tmp_path}/out", "--shards=8"]
    )
    source = open_source(f"arrayrecord:{tmp_path}/out/train")
    expected = [sample.key for sample in source]
    assert len(source._readers) == 8
    monkeypatch.setattr(arrayrecord, "readers_kept", lambda: 2)
    copy = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).integers(0, 40, 3000)
    with ThreadPoolExecutor(8) as pool:
        assert [sample.key for sample in pool.map(copy.__getitem__, order)] == [
            expected[number] for number in order
        ]
    assert len(copy._readers) == 2


@pytest.mark.parametrize(
    ("limit", "kept"), [(1024, 512), (10, 16), (10**6, 4096), (resource.RLIM_INFINITY, 4096)]
)
def test_the_readers_that_are_kept_leave_half_of_the_files_a_process_may_open(
    monkeypatch, limit, kept
):
    monkeypatch.setattr(arrayrecord.resource, "getrlimit", lambda which: (limit, limit))
    assert arrayrecord.readers_kept() == kept
