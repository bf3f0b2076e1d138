"""Tars as people have them: dots in keys, tars behind one another, hard links, sparse files,
endings, classes; no sample is lost without a line.
"""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from vlp_jax import prepare
from vlp_jax.data.config import TrainSourceConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import open_mixture
from vlp_jax.data.pipeline import TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources import index
from vlp_jax.data.sources.image_endings import IMAGE_ENDINGS
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.sources.tar_headers import TarError, TarMembers, read_members
from vlp_jax.data.target_kinds import ClassTargetConfig
from vlp_jax.data.targets import Targets
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.prompts import zero_shot_classes
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig, zero_shot

GNU_TAR = (
    shutil.which("tar")
    and "GNU tar" in subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout
)


def png(number=0, form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 90, 40)).save(file, form)
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def outcomes(source):
    found = []
    for number in range(len(source)):
        try:
            sample = source[number]
            found.append((sample.key, sample.image, sample.captions))
        except SampleError as error:
            found.append((error.key, error.reason))
    return found


def pairs(keys, ending="jpg"):
    return [
        member
        for number, key in enumerate(keys)
        for member in ((f"{key}.{ending}", png(number)), (f"{key}.txt", key.encode()))
    ]


# Keys with dots


@pytest.mark.parametrize(
    "keys",
    [
        ["plain0", "plain1", "img_v1.0", "img_v1.1", "img_v1.2"],
        ["photo.v1", "photo.v2", "photo", "photo.v1.b", "2024.01.05 at 10.30"],
        ["a.b/c.d", "a.b/c.e", "a.b/c", "w.w.w/0"],
        ["http.example.com.0", "http.example.com.1"],
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_no_sample_is_lost_for_a_dot_in_its_key(tmp_path, capsys, monkeypatch, keys, stored):
    monkeypatch.setattr(index, "SMALL", -1 if stored else 1 << 20)
    write_tar(tmp_path / "x.tar", pairs(keys))
    for _ in range(2):
        assert outcomes(open_source(f"webdataset:{tmp_path}/x.tar")) == [
            (key, png(n), (key,)) for n, key in enumerate(keys)
        ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seed", range(20))
def test_whatever_keys_and_order_every_image_with_a_text_of_its_name_is_a_sample(tmp_path, seed):
    draw = np.random.default_rng(seed)
    words = ["a", "b", "v1", "2", "mask", "jpg", "x y"]
    keys = list(
        dict.fromkeys(
            "/".join(
                [
                    *["d.1"] * int(draw.integers(2)),
                    ".".join(draw.choice(words, draw.integers(1, 4))),
                ]
            )
            for _ in range(30)
        )
    )
    members = pairs(keys)
    if seed % 2:
        members = [members[place] for place in draw.permutation(len(members))]
    source = open_source(f"webdataset:{write_tar(tmp_path / 'x.tar', members)}")
    assert sorted(outcomes(source)) == sorted((key, png(n), (key,)) for n, key in enumerate(keys))
    assert not source.left_out


def test_other_members_of_a_sample_are_counted_and_can_be_chosen(tmp_path, capsys):
    members = [
        (f"{key}.{ending}", data)
        for n, key in enumerate(("a", "b", "c.v1"))
        for ending, data in (
            ("jpg", png(n)),
            ("txt", key.encode()),
            ("mask.png", png(n + 50)),
            ("depth.PNG", png(n + 90)),
        )
    ]
    path = write_tar(tmp_path / "x.tar", members)
    assert outcomes(open_source(f"webdataset:{path}")) == [
        (key, png(n), (key,)) for n, key in enumerate(("a", "b", "c.v1"))
    ]
    assert (
        "6 members are part of no sample: 3 .mask.png, 3 .depth.png; samples are an image"
    ) in capsys.readouterr().err.replace("3 .depth.png, 3 .mask.png", "3 .mask.png, 3 .depth.png")
    chosen = open_source(f"webdataset:{path}?image=mask.png")
    assert outcomes(chosen) == [
        (key, png(n + 50), (key,)) for n, key in enumerate(("a", "b", "c.v1"))
    ]
    assert chosen.fingerprint() != open_source(f"webdataset:{path}").fingerprint()


def test_an_image_and_a_mask_under_one_key_are_told_apart_by_an_option(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(index, "SMALL", -1)  # an index of one choice is not that of another
    members = [
        (f"{key}.{ending}", data)
        for key in "ab"
        for ending, data in (("jpg", png(1)), ("png", png(2)), ("txt", b"t"))
    ]
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(
        DataError,
        match=r"'a' has two members of this kind.*\?image=ENDING "
        r"chooses the image, as \?image=jpg does",
    ):
        open_source(f"webdataset:{path}")
    for ending, image in (("jpg", png(1)), ("png", png(2)), ("jpg", png(1))):
        source = open_source(f"webdataset:{path}?image={ending}&caption=txt")
        assert outcomes(source) == [(key, image, ("t",)) for key in "ab"]
        assert source.left_out == {f".{'png' if ending == 'jpg' else 'jpg'}": 2}


def test_a_sample_that_lacks_its_image_is_bad_and_its_other_members_are_named(tmp_path, capsys):
    members = [
        ("a.input.jpg", png(1)),
        ("a.target.jpg", png(2)),
        ("a.json", b'{"caption": "t"}'),
        *pairs(["b"]),
    ]
    path = write_tar(tmp_path / "x.tar", members)
    assert outcomes(open_source(f"webdataset:{path}"))[0] == ("a", Reason.MISSING_IMAGE)
    assert "1 .input.jpg, 1 .target.jpg" in capsys.readouterr().err
    assert outcomes(open_source(f"webdataset:{path}?image=target.jpg|jpg")) == [
        ("a", png(2), ("t",)),
        ("b", png(0), ("b",)),
    ]


# Endings


def test_every_ending_of_a_format_that_pillow_reads_is_one_of_an_image(tmp_path, capsys):
    Image.init()
    formats = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
    endings = {
        ending.removeprefix(".")
        for ending, form in Image.registered_extensions().items()
        if form in formats
    }
    assert {
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "ppm",
        "pgm",
        "pbm",
        "avif",
        "bmp",
        "tif",
        "tiff",
        "gif",
        "webp",
    } <= endings
    assert endings <= IMAGE_ENDINGS
    write_tar(
        tmp_path / "x.tar",
        [member for ending in sorted(endings) for member in pairs([f"k_{ending}"], ending.upper())],
    )
    (tmp_path / "classes/cat").mkdir(parents=True)
    for ending in sorted(endings):
        (tmp_path / f"classes/cat/k.{ending}").write_bytes(png(1))
    found = [sample.key for sample in open_source(f"webdataset:{tmp_path}/x.tar")]
    assert found == [f"k_{ending}" for ending in sorted(endings)]
    assert len(open_source(f"folder:{tmp_path}/classes")) == len(endings)
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_one_line_in_every_door(tmp_path, capsys):
    write_tar(
        tmp_path / "x.tar",
        [
            *pairs(["a", "b"]),
            ("a.mp4", b"1"),
            ("README", b""),
            ("b.npy", b""),
            (".DS_Store", b""),
            ("__MACOSX/._a.jpg", b""),
        ],
    )
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert source.left_out == {
        "hidden files": 2,
        ".mp4": 1,
        "files without an ending": 1,
        ".npy": 1,
    }
    report = capsys.readouterr().err
    assert (
        report.count("\n") == 1
        and "5 members are part of no sample: 2 hidden files, 1 .mp4" in report
    )
    (tmp_path / "c/cat").mkdir(parents=True)
    for name in ("a.png", "b.txt", ".c.png", "d"):
        (tmp_path / "c/cat" / name).write_bytes(png())
    assert open_source(f"folder:{tmp_path}/c").left_out == {
        ".txt": 1,
        "hidden files": 1,
        "files without an ending": 1,
    }
    assert capsys.readouterr().err.count("3 files in classes are no images") == 1
    prepare.main([f"--source=webdataset:{tmp_path}/x.tar", f"--output={tmp_path}/out"])
    assert (
        "train: 2 samples" in (said := capsys.readouterr()).out
        and "part of no sample: 2 hidden files, 1 .mp4" in said.out
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["splits"]["train"]["left_out"] == source.left_out


# Tars behind one another


@pytest.mark.parametrize("stored", [False, True])
def test_tars_behind_one_another_are_read_to_the_end_as_tarfile_reads_them(
    tmp_path, capsys, monkeypatch, stored
):
    monkeypatch.setattr(index, "SMALL", -1 if stored else 1 << 20)
    parts = [pairs(["a", "b"]), pairs(["b", "c"]), pairs(["d.1"])]
    data = b"".join(write_tar(tmp_path / "part.tar", members).read_bytes() for members in parts)
    (tmp_path / "x.tar").write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data), ignore_zeros=True) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    assert list(read_members(io.BytesIO(data))) == expected and len(expected) == 10
    for _ in range(2):
        source = open_source(f"webdataset:{tmp_path}/x.tar")
        assert [key for key, *_ in outcomes(source)] == ["a", "b", "b", "c", "d.1"]
    assert capsys.readouterr().err == ""


def test_a_tar_that_follows_and_is_cut_off_and_bytes_that_are_no_tar_are_reported(tmp_path, capsys):
    one = write_tar(tmp_path / "one.tar", pairs(["a"])).read_bytes()
    other = write_tar(tmp_path / "other.tar", pairs(["b"])).read_bytes()
    (tmp_path / "x.tar").write_bytes(one + other[:600])
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert [outcome[:2] for outcome in outcomes(source)] == [("a", png(0)), ("b", Reason.CUT_OFF)]
    assert "is cut off at byte" in capsys.readouterr().err
    (tmp_path / "x.tar").write_bytes(one + b"\x01 no tar" * 100)
    assert len(open_source(f"webdataset:{tmp_path}/x.tar")) == 1
    assert "800 bytes behind its end that are no tar" in capsys.readouterr().err.replace(",", "")


# Links


def test_hard_links_are_the_files_that_they_lead_to(tmp_path, capsys):
    for name, data in (
        ("a.jpg", png(1)),
        ("a.txt", b"one"),
        ("b.txt", b"two"),
        ("c.txt", b"three"),
    ):
        (tmp_path / name).write_bytes(data)
    for name in ("b.jpg", "c.jpg"):
        os.link(tmp_path / "a.jpg", tmp_path / name)
    os.symlink("a.jpg", tmp_path / "d.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.jpg", "a.txt", "b.jpg", "b.txt", "c.jpg", "c.txt", "d.jpg"):
            tar.add(tmp_path / name, arcname=name)
        assert [member.name for member in tar if member.islnk()] == ["b.jpg", "c.jpg"]
    expected = [("a", png(1), ("one",)), ("b", png(1), ("two",)), ("c", png(1), ("three",))]
    assert outcomes(open_source(f"webdataset:{tmp_path}/x.tar")) == expected
    assert "1 symbolic links" in capsys.readouterr().err


def test_hard_links_lead_to_the_last_file_of_that_name_before_them_and_never_outside(
    tmp_path, capsys
):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:

        def add(name, data=None, link=None):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = (
                (tarfile.LNKTYPE, link, 0) if link else (tarfile.REGTYPE, "", len(data))
            )
            tar.addfile(info, io.BytesIO(data or b""))

        add("x/i.bin", png(1)), add("a.jpg", link="x/i.bin"), add("a.txt", b"a")
        add("x/i.bin", png(2)), add("b.jpg", link="x/i.bin"), add("b.txt", b"b")
        add("c.jpg", link="/etc/passwd"), add("c.txt", b"c")
        add("d.jpg", link="later.bin"), add("d.txt", b"d"), add("later.bin", png(3))
    assert outcomes(open_source(f"webdataset:{tmp_path}/x.tar")) == [
        ("a", png(1), ("a",)),
        ("b", png(2), ("b",)),
        ("c", Reason.MISSING_IMAGE),
        ("d", Reason.MISSING_IMAGE),
    ]
    assert "2 hard links to files that are not there" in capsys.readouterr().err


# Sparse files


def test_hard_links_to_hard_links_are_the_file_at_the_end_as_tarfile_reads_them(tmp_path, capsys):
    links = {
        "b.jpg": "a.jpg",
        "c.jpg": "b.jpg",
        "d.jpg": "c.jpg",
        "e.jpg": "e.jpg",
        "f.jpg": "g.jpg",
        "g.jpg": "f.jpg",
    }
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in [("a.jpg", png(7)), ("a.txt", b"a"), *links.items()]:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.LNKTYPE, data
                tar.addfile(info)
                data = name.encode()
                info = tarfile.TarInfo(name.replace("jpg", "txt"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = outcomes(open_source(f"webdataset:{tmp_path}/x.tar"))
    with tarfile.open(tmp_path / "x.tar") as tar:
        expected = {name: tar.extractfile(f"{name}.jpg").read() for name in "abcd"}
    assert {key: rest[0] for key, *rest in found if key in expected} == expected
    assert [outcome for outcome in found if outcome[0] not in expected] == [
        (name, Reason.MISSING_IMAGE) for name in "efg"
    ]
    assert "3 hard links to files that are not there" in capsys.readouterr().err


def holes(size, seed, parts):
    """A file of zeros with `parts` that are not."""
    draw, data = np.random.default_rng(seed), bytearray(size)
    for start in sorted(draw.choice(size // 8192, parts, replace=False)):
        data[start * 8192 : start * 8192 + 4096] = draw.bytes(4096)
    return bytes(data)


def write_sparse(path, data):
    with open(path, "wb") as file:
        file.truncate(len(data))
        for start in range(0, len(data), 4096):
            if any(data[start : start + 4096]):
                file.seek(start)
                file.write(data[start : start + 4096])


@pytest.mark.skipif(not GNU_TAR, reason="it is written by GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=oldgnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
)
def test_sparse_files_are_read_as_tarfile_reads_them(tmp_path, capsys, options):
    files = {
        "a.jpg": png(1) + holes(1 << 20, 1, 3),
        "b.jpg": holes(4 << 20, 2, 60),
        "c.jpg": bytes(1 << 20),
        "d.jpg": png(4),
    }
    for name, data in files.items():
        write_sparse(tmp_path / name, data)
        (tmp_path / name).with_suffix(".txt").write_text(name)
    names = sorted(path.name for path in tmp_path.iterdir())
    subprocess.run(
        ["tar", "-S", *options, "--hole-detection=raw", "-cf", "x.tar", *names],
        cwd=tmp_path,
        check=True,
    )
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert sum(member.issparse() for member in tar) >= 3
        expected = [tar.extractfile(name).read() for name in files]
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert [sample.key for sample in source] == list("abcd") and [
        sample.captions for sample in source
    ] == [(n,) for n in files]
    assert [sample.image for sample in source] == expected == list(files.values())
    assert capsys.readouterr().err == ""


def test_a_map_of_a_sparse_file_that_is_not_one_is_an_error_and_takes_no_memory():
    for attributes in (
        {"map": "0,512,256,512", "size": "2048"},
        {"map": "0,512,1", "size": "9"},
        {"map": "0,4096", "size": "4096"},
        {"map": "0,512"},
        {"map": "0,-5", "size": "9"},
        {"major": "2", "minor": "0", "realsize": "9"},
        {"major": "1", "minor": "0", "realsize": "9"},
    ):
        info, file = tarfile.TarInfo("a.jpg"), io.BytesIO()
        info.size, info.pax_headers = (
            512,
            {f"GNU.sparse.{name}": value for name, value in attributes.items()},
        )
        file.write(info.tobuf(tarfile.PAX_FORMAT) + b"9" * 512 + bytes(1024))
        with pytest.raises(TarError, match="the header at byte 1024 of 3072 is damaged"):
            list(TarMembers(file))


def test_a_sparse_file_that_claims_to_be_huge_is_counted_and_the_others_are_read(tmp_path, capsys):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, attributes in (
            ("huge.jpg", {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(1 << 50)}),
            ("a.jpg", {}),
            ("a.txt", {}),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 512, attributes
            tar.addfile(info, io.BytesIO(b"9" * 512))
    assert [key for key, *_ in outcomes(open_source(f"webdataset:{tmp_path}/x.tar"))] == ["a"]
    assert "1 sparse files of more than 256 MiB" in capsys.readouterr().err


def test_a_symbolic_link_to_a_name_that_is_not_utf_8_is_counted(tmp_path, capsys):
    with tarfile.open(
        tmp_path / "x.tar", "w", encoding="latin-1", format=tarfile.USTAR_FORMAT
    ) as tar:
        info = tarfile.TarInfo("l.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "größe.jpg"
        tar.addfile(info)
        for name, data in pairs(["a"]):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert len(open_source(f"webdataset:{tmp_path}/x.tar")) == 1
    assert "1 symbolic links" in capsys.readouterr().err


# Texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'["a cat", "the cat"]\r\n', ("a cat", "the cat")),
        (b"\xef\xbb\xbfa cat\r\n", ("a cat",)),
        (b"[a] cat", ("[a] cat",)),
    ],
)
def test_a_json_list_in_a_txt_is_a_list_of_captions(tmp_path, text, expected):
    assert (
        open_source(
            f"webdataset:{write_tar(tmp_path / 'x.tar', [('a.jpg', png()), ('a.txt', text)])}"
        )[0].captions
        == expected
    )


def test_a_python_list_in_a_txt_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", png()), ("a.txt", b"['a cat', 'the cat']")])
    assert outcomes(open_source(f"webdataset:{path}")) == [("a", Reason.WRONG_TYPE)]


def test_a_tar_of_other_things_is_refused_with_what_is_there(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.mp4", b"1"), ("b.mp4", b"1"), ("c.npy", b"1")])
    with pytest.raises(DataError, match="no sample in 1 tar file.*and there are 2 .mp4, 1 .npy"):
        open_source(f"webdataset:{path}")


# Members that are not neighbours


def test_members_that_are_not_neighbours_are_brought_together_and_the_command_that_sorts_works(
    tmp_path, capsys
):
    keys = ["a", "b.1", "c"]
    members = [(f"{key}.jpg", png(n)) for n, key in enumerate(keys)] + [
        (f"{key}.txt", key.encode()) for key in keys
    ]
    write_tar(tmp_path / "my x.tar", members)
    expected = [(key, png(n), (key,)) for n, key in enumerate(keys)]
    assert outcomes(open_source(f"webdataset:{tmp_path}/my x.tar")) == expected
    report = capsys.readouterr().err
    assert ("samples have members that are not next to each other") in report and report.count(
        "\n"
    ) == 1
    if GNU_TAR:
        subprocess.run(report.split("sort them: ")[1], shell=True, check=True, cwd=tmp_path)
        assert sorted(outcomes(open_source(f"webdataset:{tmp_path}/my x-sorted.tar"))) == sorted(
            expected
        )
        assert capsys.readouterr().err == ""


def test_members_of_one_key_that_are_there_twice_stay_samples_of_their_own(tmp_path, capsys):
    write_tar(
        tmp_path / "x.tar",
        [*pairs(["a", "b"]), ("a.json", b'{"caption": "json"}'), *pairs(["c"]), *pairs(["b"])],
    )
    assert [outcome[::2] for outcome in outcomes(open_source(f"webdataset:{tmp_path}/x.tar"))] == [
        ("a", ("json",)),
        ("b", ("b",)),
        ("c", ("c",)),
        ("b", ("b",)),
    ]


# Classes


def write_classes(folder, names=(), templates=(), count=6, **extra):
    (folder / "test").mkdir(parents=True)
    members = [
        (f"s{n}.{ending}", data)
        for n in range(count)
        for ending, data in (
            ("cls", str(n % 3).encode() + b"\n" * (n % 2)),
            ("jpg", png(n)),
            *((end, data) for end, data in extra.items()),
        )
    ]
    write_tar(folder / "test/0.tar", members)
    if names:
        (folder / "classnames.txt").write_bytes(("\ufeff" + "\r\n".join([*names, ""])).encode())
    if templates:
        (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
    return f"webdataset:{folder}/test/{{0..0}}.tar"


def test_classes_of_tars_are_named_by_the_file_above_them(tmp_path, capsys):
    spec = write_classes(tmp_path, ["tench", "great white shark", "crane"])
    source = open_source(spec)
    assert [(s.key, s.captions, s.metadata) for s in source][:2] == [
        ("s0", ("tench",), {"cls": 0, "class": "tench"}),
        ("s1", ("great white shark",), {"cls": 1, "class": "great white shark"}),
    ]
    assert open_source(f"{spec}?prompt=a {{}}|my {{}}")[2].captions == ("a crane", "my crane")
    assert open_source(f"{spec}?caption=cls")[2].captions == ("2",)
    assert list(source) == [
        dataclasses.replace(source.without_image(i), image=png(i)) for i in range(6)
    ]
    assert capsys.readouterr().err == ""


def test_classes_without_names_need_no_caption_but_where_one_is_asked_for(tmp_path):
    spec = write_classes(tmp_path)
    assert [(s.captions, s.metadata) for s in open_source(spec)] == [
        ((), {"cls": n % 3}) for n in range(6)
    ]
    data = EvaluationSet(open_source(spec))
    with pytest.raises(
        DataError,
        match="s0: has a class and no caption, and retrieval needs a caption of every image",
    ):
        data.require_captions("retrieval")
    with pytest.raises(
        DataError,
        match="are numbers, such as 0, and nothing names them: give "
        "class_names, or.*classnames.txt",
    ):
        zero_shot_classes(data, ZeroShotTaskConfig(class_field="cls"))
    words = {"0": ("a",), "1": ("b", "bee"), "2": ("c",)}
    named = zero_shot_classes(data, ZeroShotTaskConfig(class_field="cls", class_names=words))
    assert (named.names, named.truth.tolist(), named.words["1"]) == (
        ["0", "1", "2"],
        [0, 1, 2, 0, 1, 2],
        ("b", "bee"),
    )


def test_a_text_next_to_a_class_is_the_caption(tmp_path):
    spec = write_classes(tmp_path, ["tench", "shark", "crane"], txt=b"a text", json=b'{"n": 1}')
    assert (open_source(spec)[1].captions, open_source(spec)[1].metadata) == (
        ("a text",),
        {"n": 1, "cls": 1, "class": "shark"},
    )


def test_a_class_may_be_a_name_and_one_that_has_none_is_bad(tmp_path):
    path = write_tar(
        tmp_path / "x.tar",
        [("a.jpg", png()), ("a.cls", b"tabby cat\n"), ("b.jpg", png()), ("b.cls", b"7")],
    )
    assert outcomes(open_source(f"webdataset:{path}")) == [
        ("a", png(), ("tabby cat",)),
        ("b", png(), ()),
    ]
    empty = write_tar(tmp_path / "y.tar", [("a.jpg", png()), ("a.cls", b"\n")])
    assert outcomes(open_source(f"webdataset:{empty}")) == [("a", Reason.MISSING_CAPTION)]
    (tmp_path / "classnames.txt").write_text("one\ntwo\n")
    assert outcomes(open_source(f"webdataset:{path}"))[1] == ("b", Reason.WRONG_TYPE)


@pytest.mark.parametrize("label", ["-1", " -1\n", "-1.0"])
@pytest.mark.parametrize("named", [False, True])
def test_a_negative_class_is_none(tmp_path, label, named):
    """As test splits whose classes are secret have it."""
    write_tar(
        tmp_path / "x.tar",
        [
            ("a.jpg", png(0)),
            ("a.cls", b"0"),
            ("b.jpg", png(1)),
            ("b.cls", label.encode()),
            ("c.jpg", png(1)),
            ("c.cls", label.encode()),
            ("c.txt", b"a cat"),
        ],
    )
    if named:
        (tmp_path / "classnames.txt").write_text("dog\n")
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    with pytest.raises(SampleError, match="missing_caption"):
        source[1]
    assert (source[2].captions, source[2].metadata) == (("a cat",), {})


@pytest.mark.parametrize("field", ["cls", "class"])
def test_zero_shot_asks_for_all_names_by_the_prompts_that_lie_with_the_tars(
    tmp_path, field, capsys
):
    names = (
        ["tench", "missile", "crane", "missile"]
        if field == "cls"
        else ["tench", "missile", "crane", "a {bird}"]
    )
    data = EvaluationSet(
        open_source(write_classes(tmp_path, names, ["a photo of a {c}.", "{c} {x}"]))
    )
    classes = zero_shot_classes(data, ZeroShotTaskConfig(class_field=field))
    asked = []

    def embed(texts):
        asked.extend(texts)
        known = ["tench", "missile", "crane", "a {bird}"]
        return np.eye(8)[
            [known.index(name) for text in texts for name in set(names) if name in text]
        ]

    found = zero_shot(
        np.eye(8)[[0, 1, 2, 0, 1, 2]],
        classes.truth,
        classes.names,
        embed,
        classes.templates,
        classes.words,
        {},
    )
    assert asked == [text for name in names for text in (f"a photo of a {name}.", f"{name} {{x}}")]
    assert found["classes"] == 4
    # of two classes of one name, none can be told
    assert found["zero_shot_accuracy"] == (4 / 6 if field == "cls" else 1.0)
    assert "zero-shot prompts are its own 2, such as 'a photo of a {}.'" in capsys.readouterr().err
    mine = zero_shot_classes(
        data,
        ZeroShotTaskConfig(
            class_field=field, templates=("my {}",), class_names={"tench": ("fish", "tench")}
        ),
    )
    assert mine.templates == ("my {}",) and mine.words["0" if field == "cls" else "tench"] == (
        "fish",
        "tench",
    )


def test_a_prompt_without_a_class_is_refused(tmp_path):
    spec = write_classes(tmp_path, ["a", "b", "c"], ["a photo of a {c}.", "a photo."])
    with pytest.raises(
        DataError,
        match="zeroshot_classification_templates.txt: 'a photo.' must have exactly one {c}",
    ):
        open_source(spec)


@pytest.mark.parametrize("named", [False, True])
def test_tars_of_classes_train(tmp_path, named):
    spec = write_classes(tmp_path, ["tench", "shark", "crane"] if named else ())
    target = ClassTargetConfig(field="cls", classes=3)

    def batch(spec):
        train = TrainRows(
            open_mixture(TrainSourceConfig(source=spec)),
            Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), 12, 4096)),
            AugmentationConfig(),
            seed=0,
            inputs=("target_cls",),
            targets=Targets({"cls": target}, {"cls": ("0", "1", "2")}),
        )
        return train.batch(range(6))

    if not named:
        with pytest.raises(
            DataError,
            match=r"has a class and no caption; name the "
            r"classes.*\?caption=cls",
        ):
            batch(spec)
    found = batch(spec if named else f"{spec}?caption=cls")
    assert not found["reason"].any()
    assert sorted(found["target_cls"].tolist()) == [0, 0, 1, 1, 2, 2]


def test_names_of_classes_of_remote_tars_are_found(tmp_path):
    write_classes(tmp_path, ["tench", "shark", "crane"], ["a {c}"])
    memory = fsspec.filesystem("memory")
    for path in tmp_path.rglob("*.t*"):
        memory.pipe_file(str(path), path.read_bytes())
    source = open_source(f"webdataset:memory:/{tmp_path}/test/0.tar")
    assert (source[1].captions, source.templates, source.class_names["cls"]) == (
        ("shark",),
        ["a {}"],
        ["tench", "shark", "crane"],
    )
