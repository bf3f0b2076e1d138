"""Tars that are cut off, counts that stand beside tars, and which fields of a sample are its
captions."""

import io
import json
import os
import pickle
import tarfile
import threading

import fsspec
import numpy as np
import pytest
from PIL import Image

from vlp_jax import reporting
from vlp_jax.data import notifications
from vlp_jax.data.config import TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import REASONS, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources import index, member_checks, webdataset
from vlp_jax.data.sources.filesystem import read_range
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError


def png(number=0):
    file = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count):
    return [
        member
        for n in range(count)
        for member in ((f"s{n}.png", png(n)), (f"s{n}.txt", f"caption {n}".encode()))
    ]


def outcomes(source):
    """The key of every sample, or the reason why there is none."""
    found = []
    for number in range(len(source)):
        try:
            found.append(source[number].key)
        except SampleError as error:
            found.append(error.reason)
    return found


@pytest.fixture
def whole(tmp_path):
    """A tar of three samples; where the headers of its members start and their data ends."""
    path = write_tar(tmp_path / "whole.tar", samples(3))
    with tarfile.open(path) as tar:
        return (
            path,
            [member.offset for member in tar],
            [member.offset_data + member.size for member in tar],
        )


def test_a_tar_that_is_cut_off_anywhere_is_read_as_far_as_it_goes(whole, tmp_path, capsys):
    path, headers, ends = whole
    data = path.read_bytes()
    for size in [*range(512, ends[-1], 37), *headers[1:], *ends]:
        (tmp_path / "cut.tar").write_bytes(data[:size])
        source = open_source(f"webdataset:{tmp_path}/cut.tar")
        begun = sum(header + 512 <= size for header in headers)
        complete = sum(end <= size for end in ends)
        assert outcomes(source) == [f"s{n}" for n in range(complete // 2)] + [Reason.CUT_OFF] * (
            -(-begun // 2) - complete // 2
        )
        said = capsys.readouterr().err
        assert f"cut.tar is cut off at byte {size}; whatever came behind is lost" in said
        assert said.count("\n") == 1


def test_a_whole_tar_says_nothing(whole, capsys):
    assert outcomes(open_source(f"webdataset:{whole[0]}")) == ["s0", "s1", "s2"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("zeros", "cut"), [(1 << 20, False), (5 << 20, True)])
def test_zeros_far_beyond_any_padding_are_a_tar_that_has_not_all_arrived(
    whole, tmp_path, capsys, zeros, cut
):
    path, starts, _ = whole
    (tmp_path / "zeros.tar").write_bytes(path.read_bytes()[: starts[4]] + bytes(zeros))
    source = open_source(f"webdataset:{tmp_path}/zeros.tar")
    assert (len(source), source[1].key) == (2, "s1")
    said = capsys.readouterr().err
    assert (
        said.startswith(f"data warning: {tmp_path}/zeros.tar is cut off at byte {starts[4]};")
        if cut
        else said == ""
    )


def test_a_tar_without_samples_among_others_is_said(whole, tmp_path, capsys):
    for number in (1, 2):
        write_tar(tmp_path / f"empty{number}.tar", [])
    assert (
        len(
            webdataset.WebDatasetSource(
                [str(whole[0]), *map(str, sorted(tmp_path.glob("empty*")))], "spec", {}
            )
        )
        == 3
    )
    said = capsys.readouterr().err
    assert said.startswith(
        f"data warning: {tmp_path}/empty1.tar holds no sample (nor do 1 more tars)"
    )
    assert len(said.splitlines()) == 1


def test_several_tars_that_are_cut_off_are_one_line_and_only_their_last_samples_are_lost(
    whole, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(index, "SMALL", -1)  # indexes are stored
    for name, size in (("a", 600), ("b", -1), ("c", whole[2][4] + 512)):
        (tmp_path / f"{name}.tar").write_bytes(whole[0].read_bytes()[: size if size > 0 else None])
    for _ in range(2):  # built, and read
        source = open_source(f"webdataset:{tmp_path}/{{a,b,c}}.tar")
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "a.tar is cut off" in said and "(and 1 more tars)" in said
        for copy in (source, pickle.loads(pickle.dumps(source))):
            assert outcomes(copy) == [Reason.CUT_OFF, "s0", "s1", "s2", "s0", "s1", Reason.CUT_OFF]
            assert capsys.readouterr().err == ""


def test_a_sample_in_the_middle_of_a_cut_tar_that_lacks_its_text_is_another_thing(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.png", png()), *samples(1)])
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset
    os.truncate(path, end)
    assert outcomes(open_source(f"webdataset:{path}")) == [Reason.MISSING_CAPTION, Reason.CUT_OFF]


def test_the_row_of_a_sample_that_is_cut_off_is_filled_and_carries_the_reason(whole, tmp_path):
    (tmp_path / "cut.tar").write_bytes(whole[0].read_bytes()[: whole[2][4] - 1])
    rows = TrainRows(
        open_mixture(TrainSourceConfig(source=f"webdataset:{tmp_path}/cut.tar")),
        Preprocessor(16, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096)),
        AugmentationConfig(),
        seed=0,
    )
    epoch = [rows.row(position) for position in range(3)]
    bad = [row for row in epoch if row["reason"]]
    assert [REASONS[row["reason"] - 1] for row in bad] == [Reason.CUT_OFF]
    assert str(bad[0]["bad_sample"]).startswith("s2: ") and (
        "is cut off in the middle of it, at byte"
    ) in str(bad[0]["bad_sample"])


@pytest.mark.parametrize(("between", "reads"), [(10, 1), (100_000, 2)])
def test_a_sample_is_one_read_unless_much_lies_between_its_members(
    tmp_path, monkeypatch, between, reads
):
    path = write_tar(
        tmp_path / "x.tar", [("a.png", png()), ("a.mask.png", bytes(between)), ("a.txt", b"text")]
    )
    asked = []
    monkeypatch.setattr(
        member_checks, "read_range", lambda *place: (asked.append(place), read_range(*place))[1]
    )
    sample = open_source(f"webdataset:{path}")[0]
    assert (sample.image, sample.captions, len(asked)) == (png(), ("text",), reads)


def test_links_folders_and_devices_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for key, kind in zip(
            "abcd",
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE),
            strict=True,
        ):
            info, text = tarfile.TarInfo(f"{key}.png"), tarfile.TarInfo(f"{key}.txt")
            info.type, info.linkname, text.size = kind, "/etc/passwd", 4
            tar.addfile(info), tar.addfile(text, io.BytesIO(b"text"))
    assert outcomes(open_source(f"webdataset:{tmp_path}/x.tar")) == [Reason.MISSING_IMAGE] * 4


def test_a_key_may_stand_in_two_tars(whole, tmp_path):
    (tmp_path / "again.tar").write_bytes(whole[0].read_bytes())
    assert (
        outcomes(open_source(f"webdataset:{tmp_path}/{{whole,again}}.tar"))
        == ["s0", "s1", "s2"] * 2
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "sizes.json",
            {"whole.tar": 4, "other.tar": 9},
            "whole.tar holds 3 samples; sizes.json next to it gives 4",
        ),
        (
            "sizes.json",
            {"whole.tar": "4"},
            "whole.tar holds 3 samples; sizes.json next to it gives 4",
        ),
        ("sizes.json", {"whole.tar": 3}, None),
        ("sizes.json", {"whole.tar": 2}, None),
        ("sizes.json", {"other.tar": 9}, None),
        ("sizes.json", [4], None),
        (
            "whole_stats.json",
            {"count": 9, "successes": 4},
            "whole.tar holds 3 samples; whole_stats.json next to it gives 4",
        ),
        ("whole_stats.json", {"count": 9, "successes": 3, "failed_to_download": 6}, None),
        ("whole_stats.json", {"what": "no img2dataset"}, None),
        ("other_stats.json", {"successes": 4}, None),
        ("sizes.json", "{", "sizes.json cannot be read"),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_a_tar_with_fewer_samples_than_a_file_beside_it_says_is_an_error(
    whole, tmp_path, name, content, message, remote
):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    spec = f"webdataset:{whole[0]}"
    if remote:
        for path in tmp_path.iterdir():
            fsspec.filesystem("memory").pipe_file(str(path), path.read_bytes())
        spec = spec.replace("webdataset:", "webdataset:memory:/")
    if message is None:
        assert len(open_source(spec)) == 3
        return
    with pytest.raises(DataError) as caught:
        open_source(spec)
    assert str(caught.value).startswith(f"data error: {spec}: ") and message in str(caught.value)


def test_a_cut_off_tar_of_img2dataset_is_an_error_that_names_it(whole, tmp_path):
    (tmp_path / "00000.tar").write_bytes(whole[0].read_bytes())
    (tmp_path / "00001.tar").write_bytes(whole[0].read_bytes()[: whole[1][4]])
    for name in ("00000", "00001"):
        (tmp_path / f"{name}_stats.json").write_text(json.dumps({"count": 5, "successes": 3}))
    with pytest.raises(
        DataError,
        match="00001.tar holds 2 samples; 00001_stats.json next to it gives 3; was it cut off",
    ):
        open_source(f"webdataset:{tmp_path}/0*.tar")


FIELDS = {
    "caption": "one",
    "captions": ["two", "one"],
    "recaption": "three",
    "alt": [{"text": "four"}, {"text": "five"}],
    "image": "no picture",
    "txt": "never",
    "empty": "",
    "none": None,
}


@pytest.mark.parametrize(
    ("options", "captions", "fields"),
    [
        ("", ("one", "two"), ("caption", "captions")),
        ("?caption=recaption", ("three",), ("recaption",)),
        ("?caption=txt|recaption", ("of the txt", "three"), ("txt", "recaption")),
        (
            "?caption=alt.text&caption=caption",
            ("four", "five", "one"),
            ("alt.text", "alt.text", "caption"),
        ),
        ("?caption=captions|caption", ("two", "one"), ("captions", "captions")),
        ("?caption=none|empty|txt", ("of the txt",), ("txt",)),
        (
            "?prompt=a photo of {}|{}",
            ("a photo of one", "one", "a photo of two", "two"),
            ("caption",) * 2 + ("captions",) * 2,
        ),
        ("?caption=txt&prompt={}!", ("of the txt!",), ("txt",)),
    ],
)
def test_captions_come_from_the_fields_that_the_options_name(tmp_path, options, captions, fields):
    members = [("a.png", png()), ("a.json", json.dumps(FIELDS).encode()), ("a.txt", b"of the txt")]
    write_tar(tmp_path / "part-00.tar", members)
    for pattern in (f"{tmp_path}/part-??.tar", f"memory:/{tmp_path}/part-??.tar"):
        fsspec.filesystem("memory").pipe_file(
            f"{tmp_path}/part-00.tar", (tmp_path / "part-00.tar").read_bytes()
        )
        sample = open_source(f"webdataset:{pattern}{options}")[0]
        assert (sample.captions, sample.caption_fields) == (captions, fields)
        assert sample.metadata["image"] == "no picture"
        used = (
            {"caption", "captions"}
            if "caption=" not in options
            else {field.split(".")[0] for field in fields}
        )
        assert not used & (set(sample.metadata) - {"txt"})


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ([("a.txt", b"text")], ("txt",)),
        ([("a.json", b'{"caption": null, "captions": null}'), ("a.txt", b"text")], ("txt",)),
        ([("a.json", b'{"captions": {"de": "Text"}}'), ("a.txt", b"\xef\xbb\xbftext")], ("txt",)),
        ([("a.json", b'{"captions": "text"}')], ("captions",)),
        ([("a.json", b'{"caption": ["text", "text "], "captions": ["text"]}')], ("caption",)),
    ],
)
def test_the_field_of_a_caption_is_where_it_stands(tmp_path, members, fields):
    sample = open_source(
        f"webdataset:{write_tar(tmp_path / 'x.tar', [('a.png', png()), *members])}"
    )[0]
    assert (sample.captions, sample.caption_fields) == (("text",), fields)


@pytest.mark.parametrize(
    ("options", "reason", "words"),
    [
        ("?caption=nothing|here.either", Reason.MISSING_CAPTION, "has no nothing or here.either"),
        ("?caption=empty", Reason.EMPTY_CAPTION, "its caption is empty"),
        ("?caption=alt", Reason.WRONG_TYPE, "its alt is or holds dict, not text"),
    ],
)
def test_a_sample_without_the_named_field_is_bad(tmp_path, options, reason, words):
    path = write_tar(
        tmp_path / "x.tar", [("a.png", png()), ("a.json", json.dumps(FIELDS).encode())]
    )
    with pytest.raises(SampleError) as caught:
        open_source(f"webdataset:{path}{options}")[0]
    assert caught.value.reason == reason and words in caught.value.message


@pytest.mark.parametrize(
    ("options", "words"),
    [("?captions=a", "did you mean 'caption'?"), ("?prompt=a photo", "has no {}")],
)
def test_a_wrong_option_is_one_clear_line(whole, options, words):
    with pytest.raises(DataError) as caught:
        open_source(f"webdataset:{whole[0]}{options}")
    assert words in str(caught.value)


def test_the_fingerprint_tells_a_tar_that_is_cut_off(whole):
    before = open_source(f"webdataset:{whole[0]}").fingerprint()
    os.truncate(whole[0], whole[2][5] - 1)  # in the last member
    assert len(open_source(f"webdataset:{whole[0]}")) == 3
    assert open_source(f"webdataset:{whole[0]}").fingerprint() != before


def test_the_fingerprint_tells_the_options(whole):
    prints = {
        open_source(f"webdataset:{whole[0]}{options}").fingerprint()
        for options in ("", "?caption=txt", "?prompt={}!")
    }
    assert len(prints) == 3


def test_indexing_that_takes_long_is_said_once_in_a_while(whole, tmp_path, monkeypatch):
    said, lines = threading.Event(), []
    monkeypatch.setattr(notifications, "PATIENCE", 0.01)
    monkeypatch.setattr(index, "message_while_waiting", notifications.message_while_waiting)
    monkeypatch.setattr(notifications, "notice", lambda line: (lines.append(line), said.set()))

    def build(path):
        assert said.wait(60)
        return {"numbers": np.arange(3)}

    index.load_indexes([str(whole[0])], "test", build, "webdataset:x")
    assert lines[0] == "indexing webdataset:x: 0 of 1 files"


def test_worker_processes_say_nothing(capsys, monkeypatch):
    monkeypatch.setattr(reporting.multiprocessing, "parent_process", lambda: os)
    notifications.notice("a line")
    assert capsys.readouterr().err == ""
