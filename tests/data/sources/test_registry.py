"""Sources: what they yield, and the one line they say when the data is not there or not right."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fsspec.registry import _registry
from PIL import Image

from vlp_jax.data.samples import Reason, SampleError, Source
from vlp_jax.data.sources.file_patterns import expand_braces
from vlp_jax.data.sources.registry import KINDS, open_source
from vlp_jax.errors import DataError


def png(value=0, size=(4, 3)):
    file = io.BytesIO()
    Image.new("RGB", size, (value % 256, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members, **options):
    """Members are (name, bytes); the layout is the one webdataset's TarWriter gives."""
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uname = len(data), 0o444, "bigdata"
            tar.addfile(info, io.BytesIO(data))
    return path


def sample_members(number, **fields):
    fields = {"caption": f"caption {number}"} | fields
    return [
        (f"s{number:04d}.png", png(number)),
        (f"s{number:04d}.json", json.dumps(fields).encode()),
    ]


@pytest.fixture
def shards(tmp_path):
    """Three tars of 4, 3 and 5 samples, and their pattern."""
    number = 0
    for shard, count in enumerate((4, 3, 5)):
        members = [
            member for n in range(number, number + count) for member in sample_members(n, place=n)
        ]
        write_tar(tmp_path / f"part-{shard:02d}.tar", members)
        number += count
    return f"webdataset:{tmp_path}/part-{{00..02}}.tar"


def test_every_sample_is_found_by_its_index_in_the_order_of_the_tars(shards):
    source = open_source(shards)
    assert isinstance(source, Source)
    assert len(source) == 12
    for index in np.random.default_rng(0).permutation(12):
        sample = source[index]
        assert sample.key == f"s{index:04d}"
        assert sample.image == png(int(index))
        assert sample.captions == (f"caption {index}",)
        assert sample.metadata == {"place": index}
    assert source[-1].key == "s0011"
    with pytest.raises(IndexError):
        source[12]


def test_a_source_ends_when_it_is_iterated(shards):
    assert [sample.key for sample in open_source(shards)] == [f"s{n:04d}" for n in range(12)]


def test_braces_lists_and_globs_name_the_same_sorted_files(shards):
    folder = shards.removeprefix("webdataset:").rsplit("/", 1)[0]
    expected = open_source(shards).paths
    for pattern in (
        "part-{02,01,00}.tar",
        "part-*.tar",
        "part-0[0-2].tar",
        "{part-00,part-01}.tar",
        "part-0{0..2}.tar",
    ):
        found = open_source(f"webdataset:{folder}/{pattern}").paths
        assert found == (expected[:2] if "01}" in pattern else expected)


def test_brace_ranges_keep_their_zeros_and_multiply():
    assert expand_braces("a{08..11}") == ["a08", "a09", "a10", "a11"]
    assert expand_braces("{8..11}") == ["8", "9", "10", "11"]
    assert expand_braces("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
    assert expand_braces("{x,{0..1}}") == ["x", "0", "1"]


@pytest.mark.parametrize("pattern", ["a{0..", "a}b", "a{3..1}", "a{one}"])
def test_a_brace_that_means_nothing_is_an_error(pattern):
    with pytest.raises(DataError, match="data error: .*brace|backwards|neither"):
        expand_braces(pattern)


def test_a_source_pickles_and_its_copy_reads_the_same(shards):
    source = open_source(shards)
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[i] for i in range(12)] == [source[i] for i in range(12)]
    assert copy.fingerprint() == source.fingerprint()


def test_a_source_may_be_read_from_several_threads(shards):
    source = open_source(shards)
    order = np.random.default_rng(1).integers(0, 12, 2000)
    with ThreadPoolExecutor(8) as pool:
        assert [s.key for s in pool.map(source.__getitem__, order)] == [f"s{n:04d}" for n in order]


def test_the_fingerprint_tells_the_contents_and_not_the_place(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    write_tar(tmp_path / "a/x.tar", sample_members(0) + sample_members(1))
    write_tar(tmp_path / "b/x.tar", sample_members(0) + sample_members(1))
    write_tar(tmp_path / "c/x.tar", sample_members(1) + sample_members(0))
    a, b, c = (open_source(f"webdataset:{tmp_path}/{name}/x.tar").fingerprint() for name in "abc")
    assert a == b != c


def test_a_sample_is_the_neighbours_that_share_a_name_up_to_its_first_dot(tmp_path):
    members = [
        ("deep.er/a.JPG", png(1)),
        ("deep.er/a.txt", "ein Fuß\n".encode()),
        ("deep.er/a.seg.png", png(9)),
        ("notes.md", b"no sample"),
        ("b.webp", png(2)),
        ("b.json", b'{"captions": ["one", "two", "one", ""], "n": 1}'),
        (".hidden.png", png(3)),
    ]
    source = open_source(f"webdataset:{write_tar(tmp_path / 'x.tar', members)}")
    assert [(s.key, s.captions, s.metadata) for s in source] == [
        ("deep.er/a", ("ein Fuß",), {}),
        ("b", ("one", "two"), {"n": 1}),
    ]
    assert source[0].image == png(1)


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_survive_the_hidden_members_of_a_tar(tmp_path, layout):
    key = "größe/" * 10 + "x" * 90
    path = write_tar(
        tmp_path / "x.tar", [(f"{key}.png", png()), (f"{key}.txt", b"long")], format=layout
    )
    assert [sample.key for sample in open_source(f"webdataset:{path}")] == [key]


def test_it_reads_what_the_webdataset_library_writes(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as tar:
        for number in range(3):
            fields = {"caption": f"c{number}", "n": number}
            tar.write(
                {"__key__": f"k{number}", "png": png(number), "json": json.dumps(fields).encode()}
            )
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert [(s.key, s.image, s.captions, s.metadata) for s in source] == [
        (f"k{n}", png(n), (f"c{n}",), {"n": n}) for n in range(3)
    ]


@pytest.mark.parametrize(
    ("fields", "text", "captions"),
    [
        (b'{"caption": "a"}', b"b", ("a",)),
        (b'{"caption": null, "url": "u"}', b" b\n", ("b",)),
        (b'{"caption": "a", "captions": ["b", "a"]}', None, ("a", "b")),
        (b'{"caption": "a", "captions": {"de": "ein a"}}', None, ("a",)),
        (b'{"caption": ["a", "b"]}', None, ("a", "b")),
    ],
)
def test_where_captions_come_from(tmp_path, fields, text, captions):
    members = [("a.png", png()), ("a.json", fields)] + ([("a.txt", text)] if text else [])
    assert (
        open_source(f"webdataset:{write_tar(tmp_path / 'x.tar', members)}")[0].captions == captions
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"txt": b"no picture"}, Reason.MISSING_IMAGE),
        ({"png": png()}, Reason.MISSING_CAPTION),
        ({"png": png(), "json": b"{}"}, Reason.MISSING_CAPTION),
        ({"png": png(), "json": b'{"captions": []}'}, Reason.MISSING_CAPTION),
        ({"png": png(), "txt": b" \n"}, Reason.EMPTY_CAPTION),
        ({"png": png(), "json": b'{"caption": ""}'}, Reason.EMPTY_CAPTION),
        ({"png": png(), "json": b'{"caption": 7}'}, Reason.WRONG_TYPE),
        ({"png": png(), "json": b'{"captions": ["a", 7]}'}, Reason.WRONG_TYPE),
        ({"png": png(), "json": b'["a"]'}, Reason.WRONG_TYPE),
        ({"png": png(), "json": b'{"caption": '}, Reason.DAMAGED_TEXT),
        ({"png": png(), "txt": b"\xff\xfe"}, Reason.DAMAGED_TEXT),
    ],
)
def test_a_bad_sample_says_why_and_leaves_the_others_readable(tmp_path, members, reason):
    bad = [(f"bad.{ending}", data) for ending, data in members.items()]
    source = open_source(f"webdataset:{write_tar(tmp_path / 'x.tar', bad + sample_members(1))}")
    with pytest.raises(SampleError, match="data error: bad: ") as caught:
        source[0]
    assert (caught.value.reason, caught.value.key) == (reason, "bad")
    copy = pickle.loads(pickle.dumps(caught.value))  # it crosses from worker processes
    assert (str(copy), copy.reason) == (str(caught.value), reason)
    assert source[1].captions == ("caption 1",)


def test_a_missing_shard_of_a_brace_pattern_is_named_and_counted(shards):
    path = shards.removeprefix("webdataset:").replace("{00..02}", "01")
    os.remove(path)
    with pytest.raises(DataError) as caught:
        open_source(shards)
    assert str(caught.value) == f"data error: {shards}: part-01.tar is missing; 2 of 3 shards found"


def damaged_tars(folder):
    whole = write_tar(folder / "whole.tar", sample_members(0) + sample_members(1)).read_bytes()
    yield (
        "damaged header",
        whole[:2048] + b"\x01" + whole[2049:],
        "header at byte 2048 of 10240 is damaged",
    )
    yield "not a tar", b"hello" * 1000, "not a tar file"
    yield "empty", b"", "not a tar file (0 bytes are less than a header)"
    yield "less than a header", whole[:511], "not a tar file (511 bytes"
    yield "compressed", b"\x1f\x8b\x08\x00" + bytes(600), "is compressed"
    for name in ("../up.png", "/etc/up.png", "a/../../up.png"):
        escape = write_tar(folder / "escape.tar", [(name, png())]).read_bytes()
        yield name, escape, f"member '{name}' leaves the folder"
    twice = write_tar(folder / "twice.tar", [("a.png", png()), ("a.jpg", png())]).read_bytes()
    yield "two pictures", twice, "sample 'a' has two members of this kind"
    yield (
        "no samples",
        write_tar(folder / "none.tar", [("README", b"")]).read_bytes(),
        "no sample in 1 tar file",
    )


def test_a_damaged_tar_is_an_error_that_names_it(tmp_path):
    for what, data, message in damaged_tars(tmp_path):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(DataError) as caught:
            open_source(f"webdataset:{tmp_path}/x.tar")
        assert message in str(caught.value) and str(tmp_path / "x.tar") in str(caught.value), what
        assert "\n" not in str(caught.value), what


def test_a_tar_that_shrinks_after_it_was_opened_is_a_damaged_record(tmp_path):
    path = write_tar(tmp_path / "x.tar", sample_members(0) + sample_members(1))
    source = open_source(f"webdataset:{path}")
    os.truncate(path, 2100)
    with pytest.raises(SampleError) as caught:
        source[1]
    assert caught.value.reason == Reason.DAMAGED_RECORD


@pytest.fixture
def without_gcsfs(monkeypatch):
    """gcsfs as if it were not installed."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for scheme in ("gs", "gcs"):
        monkeypatch.delitem(_registry, scheme, raising=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("webdatset:/data/x.tar", "unknown kind 'webdatset' (did you mean 'webdataset'?)"),
        ("/data/x.tar", "write KIND:PATTERN"),
        ("webdataset:", "write KIND:PATTERN"),
        ("webdataset:/nowhere/*.tar", "no file matches"),
        ("webdataset:/nowhere/x.tar", "no such file"),
        ("webdataset:/", "/ is a folder"),
        ("webdataset:gs://bucket/x.tar", "install gcsfs"),
        (
            "arrayrecord:s3://bucket/x/train",
            "arrayrecord reads local paths and gs:// only; mount it (with mount-s3)",
        ),
        ("arrayrecord:/nowhere/train", "dataset_info.json is missing"),
        ("arrayrecord:train", "write DIR/SPLIT"),
        ("embedded:faces/train", "no such set; write embedded:SET/SPLIT, sets: emoji"),
    ],
)
def test_a_wrong_spec_is_one_clear_line(spec, message, without_gcsfs):
    with pytest.raises(DataError) as caught:
        open_source(spec)
    assert message in str(caught.value) and str(caught.value).startswith("data error: ")
    assert spec in str(caught.value)


def test_an_unknown_kind_is_answered_with_the_list_of_kinds():
    with pytest.raises(DataError) as caught:
        open_source("tfrecords:/data")
    assert all(kind in str(caught.value) for kind in KINDS)


def test_sources_import_neither_jax_nor_tensorflow_nor_tfds():
    modules = ", ".join(
        [
            "vlp_jax.data.prepare.writer",
            *sorted({place.partition(":")[0] for place in KINDS.values()}),
        ]
    )
    heavy = "{'jax', 'tensorflow', 'tensorflow_datasets', 'torch', 'grain', 'pyarrow', 'fsspec'}"
    code = f"import sys, {modules}; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
