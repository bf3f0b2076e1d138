"""Parquet, JSONL, CSV, class folders, TFDS and synthetic samples: what they read, and what they say
of what is wrong."""

import csv
import dataclasses
import datetime
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow
import pytest
from array_record.python import array_record_module
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from PIL import Image
from pyarrow import parquet

from vlp_jax import prepare
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError


def png(value=0):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (value % 256, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def images(tmp_path):
    """A folder with images/0.png to images/5.png, and a picture beside it that no file in it may
    name."""
    (tmp_path / "set/images").mkdir(parents=True)
    for number in range(6):
        (tmp_path / f"set/images/{number}.png").write_bytes(png(number))
    (tmp_path / "secret.png").write_bytes(png(99))
    return tmp_path / "set"


def write_jsonl(path, rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return open_source(f"jsonl:{path}")


def write_csv(path, rows, spec=None):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return open_source(spec or f"csv:{path}")


def write_parquet(path, columns, options="", **how):
    parquet.write_table(pyarrow.table(columns), path, **how)
    return open_source(f"parquet:{path}{options}")


def write_folder(path, classes):
    for name, pictures in classes.items():
        (path / name).mkdir(parents=True)
        for picture, data in pictures.items():
            (path / name / picture).write_bytes(data)
    return open_source(f"folder:{path}")


def reason_of(source, index=0):
    with pytest.raises(SampleError) as caught:
        source[index]
    assert "\n" not in str(caught.value)
    # it crosses from worker processes
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value.reason


def refusal(spec):
    with pytest.raises(DataError) as caught:
        open_source(spec)
    message = str(caught.value)
    assert message.startswith("data error: ") and "\n" not in message
    return message


# Columns and options, the same for all kinds


def test_columns_are_chosen_by_name_and_the_others_are_metadata(images):
    row = {
        "image": "x",
        "caption": "no",
        "file": "images/1.png",
        "title": "one",
        "alt": ["uno", "one"],
        "n": 3,
    }
    write_jsonl(images / "x.jsonl", [row])
    sample = open_source(f"jsonl:{images}/x.jsonl?image=file&caption=title|alt")[0]
    assert sample.captions == ("one", "uno")
    assert sample.metadata == {"image": "x", "caption": "no", "n": 3}
    assert sample == open_source(f"jsonl:{images}/x.jsonl?caption=title&image=file&caption=alt")[0]


def test_a_dot_reaches_into_nested_fields(images, tmp_path):
    rows = [
        {"image": {"path": "images/0.png"}, "texts": [{"raw": "a", "id": 1}, {"raw": "b", "id": 2}]}
    ]
    write_jsonl(images / "x.jsonl", rows)
    assert open_source(f"jsonl:{images}/x.jsonl?image=image.path&caption=texts.raw")[
        0
    ].captions == ("a", "b")
    source = write_parquet(
        tmp_path / "x.parquet",
        {"image": [png()], "texts": [rows[0]["texts"]]},
        "?caption=texts.raw",
    )
    assert source[0].captions == ("a", "b")


def test_captions_beside_the_image_in_one_column_are_there_without_it_too(tmp_path):
    column = [{"bytes": png(), "said": "a cat"}, {"bytes": png(), "said": "a dog"}]
    source = write_parquet(
        tmp_path / "a.parquet", {"both": column, "v": [1, 2]}, "?image=both.bytes&caption=both.said"
    )
    for i in range(2):
        assert (
            source.without_image(i) == dataclasses.replace(source[i], image=b"")
            and source[i].image == png()
        )


def test_prompts_make_captions(images):
    write_jsonl(images / "x.jsonl", [{"image": "images/0.png", "caption": ["cat", "dog"]}])
    source = open_source(
        f"jsonl:{images}/x.jsonl?prompt=a photo of a {{}}, isn't it?|my {{}} %26 I"
    )
    assert source[0].captions == (
        "a photo of a cat, isn't it?",
        "my cat & I",
        "a photo of a dog, isn't it?",
        "my dog & I",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "?imag=jpg",
            "unknown option 'imag' (did you mean 'image'?); options: image, caption, "
            "prompt, root, delimiter, quotes",
        ),
        ("?image=a|b", "option 'image' takes one value, not 2"),
        ("?caption=", "option 'caption' has an empty value"),
        ("?prompt=a photo", "prompt 'a photo' has no {} for the caption"),
        ("?delimiter=%3B%3B", "delimiter ';;' is not one ASCII character (a tab is %09)"),
        (
            "?image=picture",
            "x.csv: no column 'picture' (columns: image, caption); name the right one: "
            "?image=COLUMN",
        ),
        (
            "?caption=a|caption",
            "x.csv: no column 'a' (columns: image, caption); name the right one: ?caption=COLUMN",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line(images, options, message):
    write_csv(images / "x.csv", [["image", "caption"], ["images/0.png", "a"]])
    assert refusal(f"csv:{images}/x.csv{options}") == (
        f"data error: csv:{images}/x.csv{options}: {message}"
    )


def test_a_question_mark_in_a_glob_is_no_option(images):
    write_csv(images / "x1.csv", [["image", "caption"], ["images/0.png", "a"]])
    write_csv(images / "x2.csv", [["image", "caption"], ["images/1.png", "b"]])
    assert [sample.key for sample in open_source(f"csv:{images}/x?.csv?image=image")] == [
        "x1.csv:1",
        "x2.csv:1",
    ]


# Image files that rows name


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("images/9.png", Reason.MISSING_IMAGE),
        ("images", Reason.MISSING_IMAGE),
        ("images/0.png/x", Reason.MISSING_IMAGE),
        ("x" * 5000, Reason.MISSING_IMAGE),
        ("", Reason.MISSING_IMAGE),
        ("images/empty.png", Reason.MISSING_IMAGE),
        ("../secret.png", Reason.FORBIDDEN_PATH),
        ("images/../../secret.png", Reason.FORBIDDEN_PATH),
        ("{outside}/secret.png", Reason.FORBIDDEN_PATH),
        ("{outside}/set/../secret.png", Reason.FORBIDDEN_PATH),
        ("/etc/passwd", Reason.FORBIDDEN_PATH),
        ("https://example.com/a.png", Reason.FORBIDDEN_PATH),
        ("file:///etc/passwd", Reason.FORBIDDEN_PATH),
        ("images/0.png\0", Reason.FORBIDDEN_PATH),
        (".", Reason.FORBIDDEN_PATH),
    ],
)
def test_an_image_that_cannot_be_read_is_a_bad_sample(images, kind, name, reason):
    (images / "images/empty.png").touch()
    name = name.replace("{outside}", str(images.parent))
    if kind == "csv":
        source = write_csv(
            images / "x.csv", [["image", "caption"], [name, "a"], ["images/0.png", "b"]]
        )
    else:
        source = write_jsonl(
            images / "x.jsonl",
            [{"image": name, "caption": "a"}, {"image": "images/0.png", "caption": "b"}],
        )
    assert reason_of(source) == reason
    assert source[1].image == png(0)


def test_a_path_may_wander_as_long_as_it_ends_inside(images, monkeypatch):
    names = [
        "images/../images/1.png",
        "./images//2.png",
        f"{images}/images/3.png",
        f"{images}/../set/images/4.png",
    ]
    write_jsonl(images / "x.jsonl", [{"image": name, "caption": "a"} for name in names])
    assert [sample.image for sample in open_source(f"jsonl:{images}/x.jsonl")] == [
        png(n) for n in (1, 2, 3, 4)
    ]
    monkeypatch.chdir(images)
    assert [sample.image for sample in open_source("jsonl:x.jsonl")] == [
        png(n) for n in (1, 2, 3, 4)
    ]


# JSONL


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"caption": "a"}, Reason.MISSING_IMAGE),
        ({"image": 7, "caption": "a"}, Reason.WRONG_TYPE),
        ({"image": "images/0.png"}, Reason.MISSING_CAPTION),
        ({"image": "images/0.png", "caption": None}, Reason.MISSING_CAPTION),
        ({"image": "images/0.png", "caption": []}, Reason.MISSING_CAPTION),
        ({"image": "images/0.png", "caption": " \n"}, Reason.EMPTY_CAPTION),
        ({"image": "images/0.png", "caption": 7}, Reason.WRONG_TYPE),
        ({"image": "images/0.png", "caption": ["a", 7]}, Reason.WRONG_TYPE),
        ({"image": "images/0.png", "caption": {"en": "a"}}, Reason.WRONG_TYPE),
        ('"text"', Reason.WRONG_TYPE),
        ('{"image": "images/0.png", "capt', Reason.DAMAGED_TEXT),
        ("{" + '"a": {' * 100_000, Reason.DAMAGED_TEXT),
    ],
)
def test_a_bad_line_says_why_and_leaves_the_others_readable(images, line, reason):
    source = write_jsonl(images / "x.jsonl", [line, {"image": "images/1.png", "caption": "b"}])
    assert reason_of(source) == reason
    assert (source[1].key, source[1].captions) == ("x.jsonl:2", ("b",))


def test_blank_lines_line_ends_and_a_byte_order_mark_do_not_matter(images):
    rows = [
        json.dumps({"image": f"images/{n}.png", "caption": f"ä {n}"}, ensure_ascii=False).encode()
        for n in range(3)
    ]
    (images / "x.jsonl").write_bytes(
        b"\xef\xbb\xbf" + rows[0] + b"\r\n\r\n\n" + rows[1] + b"\n  \n" + rows[2]
    )
    source = open_source(f"jsonl:{images}/x.jsonl")
    assert [sample.captions[0] for sample in source] == ["ä 0", "ä 1", "ä 2"]


def test_bytes_that_are_no_text_spoil_their_line_only(images):
    good = b'{"image": "images/0.png", "caption": "a"}\n'
    (images / "x.jsonl").write_bytes(good.replace(b'"a"', b'"\xff"') + good)
    (images / "x.csv").write_bytes(b"image,caption\nimages/0.png,\xff\nimages/0.png,a\n")
    for source in (open_source(f"jsonl:{images}/x.jsonl"), open_source(f"csv:{images}/x.csv")):
        assert reason_of(source) == Reason.DAMAGED_TEXT
        assert source[1].captions == ("a",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"image": "a.png"}]', "is one JSON array; write an object a line"),
        (b"\x1f\x8b\x08", "is compressed"),
        (b"\n \n", "no row in 1 file(s)"),
        (b"", "no row in 1 file(s)"),
    ],
)
def test_a_file_that_is_no_jsonl_is_refused(tmp_path, data, message):
    (tmp_path / "x.jsonl").write_bytes(data)
    assert message in refusal(f"jsonl:{tmp_path}/x.jsonl")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_file_that_shrinks_after_it_was_opened_is_a_damaged_record(images, kind):
    if kind == "csv":
        source = write_csv(images / "x.csv", [["image", "caption"], ["images/0.png", "a"]])
    else:
        source = write_jsonl(images / "x.jsonl", [{"image": "images/0.png", "caption": "a"}])
    os.truncate(images / f"x.{kind}", 20)
    assert reason_of(source) == Reason.DAMAGED_RECORD
    os.remove(images / f"x.{kind}")
    with pytest.raises(DataError, match="no such file"):
        source[0]


# CSV


def test_quoted_fields_hold_commas_quotes_and_line_ends(images):
    captions = ["a, b", 'say "hi"', "two\nlines", "three\r\n\r\nlines", "ß\u2028ü\x0b", "last"]
    rows = [[f"images/{n}.png", caption, str(n)] for n, caption in enumerate(captions)]
    source = write_csv(images / "x.csv", [["image", "caption", "place"], *rows])
    assert [sample.captions[0] for sample in source] == [caption.strip() for caption in captions]
    assert [sample.metadata for sample in source] == [{"place": str(n)} for n in range(6)]
    assert [sample.image for sample in source] == [png(n) for n in range(6)]


def test_every_file_has_a_header_of_its_own_and_tsv_means_tabs(images):
    (images / "x1.tsv").write_text("filepath\ttitle\nimages/0.png\ta, b\n")
    (images / "x2.tsv").write_text("title\tfilepath\r\nc d\timages/1.png")
    source = open_source(f"csv:{images}/x*.tsv?image=filepath&caption=title")
    assert [(sample.captions, sample.image) for sample in source] == [
        (("a, b",), png(0)),
        (("c d",), png(1)),
    ]
    (images / "x.txt").write_text("image|caption\n\nimages/2.png|e")
    assert open_source(f"csv:{images}/x.txt?delimiter=%7C")[0].captions == ("e",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["images/0.png", ""], Reason.EMPTY_CAPTION),
        (["images/0.png"], Reason.DAMAGED_TEXT),
        (["images/0.png", "a", "b"], Reason.DAMAGED_TEXT),
    ],
)
def test_a_bad_row_says_why_and_leaves_the_others_readable(images, row, reason):
    source = write_csv(images / "x.csv", [["image", "caption"], row, ["images/1.png", "b"]])
    assert reason_of(source) == reason
    assert source[1].captions == ("b",)


@pytest.mark.full
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first row must name the columns"),
        ("image,caption\n", "no row in 1 file(s)"),
        ("image,caption,image\na,b,c\n", "x.csv: two columns are called 'image'"),
        (
            'image,caption\nimages/0.png,"a\n',
            "line 2, in the row at byte 14: unexpected end of data; is a quote left open",
        ),
        (
            'image,caption\na.jpg,"x\na.jpg,y\na.jpg,"z"\na.jpg,w\n',
            "line 4, in the row at byte 14: ',' expected after '\"'",
        ),
        (
            'image,caption\nimages/0.png,"' + "a" * 200_000,
            "line 2, in the row at byte 14: unexpected end of data",
        ),
        (
            'image,caption\nimages/0.png,"' + "a\n" * 9_000_000,
            "in the row at byte 14: field larger than field limit (16777216)",
        ),
        (
            "image,caption\rimages/0.png,a\rimages/1.png,b\r",
            "lines end in LF or CR LF, not in CR alone",
        ),
        (
            "images/0.png,a cat\nimages/1.png,a dog\n",
            "no column 'image' (columns: images/0.png, a cat)",
        ),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    assert message in refusal(f"csv:{tmp_path}/x.csv")


# Parquet


def test_parquet_keeps_other_columns_but_not_binary_ones(tmp_path):
    moment = datetime.datetime(2026, 1, 2, 3, 4)
    columns = {
        "image": [{"bytes": png(), "path": None}],
        "caption": [["a", "b"]],
        "n": [3],
        "ok": [True],
        "score": [0.5],
        "at": [moment],
        "tags": [["x", "y"]],
        "nested": [{"day": moment.date()}],
        "nothing": pyarrow.nulls(1),
        "thumbnail": [b"123"],
        "mask": [{"bytes": b"1", "path": "m"}],
        "raw": [[b"1"]],
    }
    source = write_parquet(tmp_path / "x.parquet", columns)
    assert source[0].captions == ("a", "b")
    assert source[0].metadata == {
        "n": 3,
        "ok": True,
        "score": 0.5,
        "at": "2026-01-02 03:04:00",
        "tags": ["x", "y"],
        "nested": {"day": "2026-01-02"},
        "nothing": None,
    }


@pytest.mark.parametrize("image", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view()])
@pytest.mark.parametrize(
    "caption",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        pyarrow.list_(pyarrow.large_string()),
    ],
)
def test_parquet_reads_every_arrow_type_of_bytes_and_text(tmp_path, image, caption):
    texts = [["a"]] if pyarrow.types.is_list(caption) else ["a"]
    columns = {
        "image": pyarrow.array([png()], image),
        "caption": pyarrow.array(texts).cast(caption),
    }
    sample = write_parquet(tmp_path / "x.parquet", columns)[0]
    assert (sample.image, sample.captions) == (png(), ("a",))


def test_rows_are_found_over_files_and_groups_of_any_size(tmp_path):
    number = 0
    for shard, (count, group) in enumerate([(7, 3), (0, 1), (1, 1), (12, 5)]):
        numbers = range(number, number + count)
        table = pyarrow.table(
            {
                "image": pyarrow.array([png(n) for n in numbers], pyarrow.binary()),
                "caption": pyarrow.array([f"c{n}" for n in numbers], pyarrow.string()),
            }
        )
        parquet.write_table(table, tmp_path / f"{shard}.parquet", row_group_size=group)
        number += count
    source = open_source(f"parquet:{tmp_path}/*.parquet")
    assert len(source) == 20
    order = np.random.default_rng(0).integers(0, 20, 400)
    with ThreadPoolExecutor(8) as pool:
        for n, sample in zip(order, pool.map(source.__getitem__, order), strict=True):
            assert (sample.image, sample.captions) == (png(int(n)), (f"c{n}",))
    assert [source[n].key for n in (0, 6, 7, 8, 19)] == [
        "0.parquet:1",
        "0.parquet:7",
        "2.parquet:1",
        "3.parquet:1",
        "3.parquet:12",
    ]
    assert len(source._kept) <= 8


@pytest.mark.parametrize(
    ("image", "caption", "reason"),
    [
        (None, "a", Reason.MISSING_IMAGE),
        (b"", "a", Reason.MISSING_IMAGE),
        (png(), None, Reason.MISSING_CAPTION),
        (png(), " ", Reason.EMPTY_CAPTION),
    ],
)
@pytest.mark.parametrize("as_struct", [False, True])
def test_a_bad_row_of_parquet_says_why(tmp_path, image, caption, reason, as_struct):
    images = (
        [{"bytes": data, "path": "p"} for data in (image, png(1))] if as_struct else [image, png(1)]
    )
    source = write_parquet(tmp_path / "x.parquet", {"image": images, "caption": [caption, "b"]})
    assert reason_of(source) == reason
    assert source[1].captions == ("b",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [7], "caption": ["a"]},
            "x.parquet: column 'image' is int64; expected binary or {bytes, path}",
        ),
        (
            {"image": pyarrow.nulls(1), "caption": ["a"]},
            "x.parquet: column 'image' is null; expected binary or {bytes, path}",
        ),
        (
            {"image": [b"1"], "caption": [{"en": "a"}]},
            "expected text or lists of it; a dot reaches into it: ?caption=caption.NAME",
        ),
        (
            {"image": [b"1"], "caption": [7]},
            "x.parquet: column 'caption' is int64; expected text or lists of it",
        ),
        (
            {"image": [b"1"], "text": ["a"]},
            "no column 'caption' (columns: image, text); name the right one: ?caption=COLUMN",
        ),
        (
            {
                "image": pyarrow.array([], pyarrow.binary()),
                "caption": pyarrow.array([], pyarrow.string()),
            },
            "no row in 1 file(s)",
        ),
    ],
)
def test_a_parquet_file_with_other_columns_is_refused(tmp_path, columns, message):
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    assert message in refusal(f"parquet:{tmp_path}/x.parquet")


@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_truncated_parquet_file_is_refused_by_name(tmp_path, place):
    write_parquet(tmp_path / "x.parquet", {"image": [png()] * 100, "caption": ["a"] * 100})
    data = (tmp_path / "x.parquet").read_bytes()
    for size in (0, 3, len(data) // 2, len(data) - 1):
        (tmp_path / "x.parquet").write_bytes(data[:size])
        fsspec.filesystem("memory").pipe_file(f"{tmp_path}/x.parquet", data[:size])
        path = f"{tmp_path}/x.parquet" if place == "file" else f"memory:/{tmp_path}/x.parquet"
        assert f"{path}: is not a Parquet file, or is cut off" in refusal(f"parquet:{path}")


def test_a_damaged_row_group_spoils_its_rows_only(tmp_path):
    columns = {"image": [png(n) for n in range(20)], "caption": [f"c{n}" for n in range(20)]}
    write_parquet(
        tmp_path / "x.parquet",
        columns,
        row_group_size=10,
        write_page_checksum=True,
        use_dictionary=False,
    )
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    chunk = parquet.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    data[end - 30 : end - 10] = b"\xff" * 20
    (tmp_path / "x.parquet").write_bytes(data)
    source = open_source(f"parquet:{tmp_path}/x.parquet")
    assert [reason_of(source, n) for n in (10, 19)] == [Reason.DAMAGED_RECORD] * 2
    assert source[9].captions == ("c9",)


def test_a_parquet_file_that_is_replaced_or_removed_is_noticed(tmp_path):
    source = write_parquet(
        tmp_path / "x.parquet", {"image": [png()] * 4, "caption": ["a"] * 4}, row_group_size=2
    )
    write_parquet(tmp_path / "x.parquet", {"image": [png()], "caption": ["a"]})
    assert [reason_of(source, n) for n in (0, 3)] == [Reason.DAMAGED_RECORD] * 2
    os.remove(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        source[0]


# Folders of classes


def test_classes_are_captions_in_the_order_of_their_names(tmp_path):
    write_folder(
        tmp_path,
        {
            "tabby_cat": {"2.png": png(2), "10.JPG": png(1), "notes.txt": b""},
            "dog": {"x.webp": png(3)},
            "empty": {},
            ".git": {"x.png": b""},
        },
    )
    (tmp_path / "readme.txt").touch()
    source = open_source(f"folder:{tmp_path}?prompt=a photo of a {{}}|the {{}}&prompt={{}}")
    assert [(s.key, s.image, s.captions, s.metadata) for s in source] == [
        ("dog/x.webp", png(3), ("a photo of a dog", "the dog", "dog"), {"class": "dog"}),
        (
            "tabby_cat/10.JPG",
            png(1),
            ("a photo of a tabby cat", "the tabby cat", "tabby cat"),
            {"class": "tabby_cat"},
        ),
        (
            "tabby_cat/2.png",
            png(2),
            ("a photo of a tabby cat", "the tabby cat", "tabby cat"),
            {"class": "tabby_cat"},
        ),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/a.png", "cat/more/b.png"], "cat/more is a folder; a class holds images only"),
        (["a.png"], "a.png lies in no class"),
        (["cat/notes.txt"], "no image; expected"),
        ([], "no image; expected"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    assert message in refusal(f"folder:{tmp_path}")
    assert "cannot be read: No such file" in refusal(f"folder:{tmp_path}/nowhere")


def test_an_image_of_a_class_that_vanishes_or_is_empty_is_missing(tmp_path):
    source = write_folder(tmp_path, {"cat": {"0.png": b"", "1.png": png()}})
    os.remove(tmp_path / "cat/1.png")
    assert [reason_of(source, n) for n in (0, 1)] == [Reason.MISSING_IMAGE] * 2
    (tmp_path / "cat/1.png").symlink_to("nowhere")
    assert reason_of(open_source(f"folder:{tmp_path}"), 1) == Reason.MISSING_IMAGE


# TFDS


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """TMP/pets/1.0.0, in the folder where TFDS looks for data sets by name."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    write_folder(
        tmp_path / "in", {"cat": {f"{n}.png": png(n) for n in range(5)}, "dog": {"9.png": png(9)}}
    )
    prepare.main(
        [
            f"--source=folder:{tmp_path}/in",
            f"--output={tmp_path}/pets/1.0.0",
            "--name=pets",
            "--shards=2",
        ]
    )
    return tmp_path / "pets/1.0.0"


def test_tfds_reads_what_prepare_has_written_by_folder_by_slice_and_by_name(prepared):
    whole = list(open_source(f"tfds:{prepared}/train"))
    assert whole == list(open_source(f"arrayrecord:{prepared}/train"))
    part = open_source(f"tfds:{prepared}/train[2:5]")
    assert list(part) == whole[2:5]
    assert part.fingerprint() != open_source(f"tfds:{prepared}/train").fingerprint()
    assert open_source(f"tfds:{prepared}/train?caption=class&prompt=my {{}}")[5].captions == (
        "my dog",
    )
    assert list(open_source("tfds:pets/train")) == whole


def test_tfds_reads_without_tensorflow(prepared):
    code = (
        "import sys; from vlp_jax.data.sources.registry import open_source; s = "
        f"open_source('tfds:{prepared}/train'); s[0]; print([m for m in ('tensorflow', "
        "'torch', 'jax') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_tfds_refuses_what_is_not_there(prepared):
    assert "no split 'test'; splits: train" in refusal(f"tfds:{prepared}/test")
    assert "no split 'train[a:]'; splits: train" in refusal(f"tfds:{prepared}/train[a:]")
    assert "expected a folder with dataset_info.json" in refusal(f"tfds:{prepared}/nowhere/train")
    assert "nor a data set that TFDS knows" in refusal("tfds:no_such_set/train")
    assert "make it with tfds build --file_format=array_record mnist" in refusal("tfds:mnist/train")
    assert "write DIR/SPLIT or NAME/SPLIT" in refusal("tfds:train")
    assert "no column 'title' (columns: caption" in refusal(f"tfds:{prepared}/train?caption=title")
    assert ("tfds reads local paths and gs:// only; mount it (with mount-s3)") in refusal(
        "tfds:s3://bucket/x/train"
    )
    info = json.loads((prepared / "dataset_info.json").read_text())
    (prepared / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    assert "only array_record is read" in refusal(f"tfds:{prepared}/train")


def test_a_missing_or_short_shard_of_tfds_is_named(prepared):
    first, second = sorted(prepared.glob("*.array_record*"))
    data = second.read_bytes()
    second.write_bytes(first.read_bytes())
    second.unlink()
    assert f"{second.name} is missing; 1 of 2 shards found" in refusal(f"tfds:{prepared}/train")
    second.write_bytes(data[:100])
    assert f"{second.name} is damaged" in refusal(f"tfds:{prepared}/train")
    writer = array_record_module.ArrayRecordWriter(str(second), "group_size:1")
    writer.write(b"\xff\xff")
    writer.close()
    assert (f"{second.name} holds 1 records; dataset_info.json lists 3") in refusal(
        f"tfds:{prepared}/train"
    )


def test_a_record_of_tfds_that_is_none_is_damaged(prepared):
    shard = sorted(prepared.glob("*.array_record*"))[1]
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    for record in (b"\xff\xff", b"", b"\xff"):
        writer.write(record)
    writer.close()
    source = open_source(f"tfds:{prepared}/train")
    assert [reason_of(source, n) for n in (3, 5)] == [Reason.DAMAGED_RECORD] * 2
    assert source[2].captions == ("cat",)


# Synthetic samples


def test_synthetic_samples_are_distinct_pictures_and_always_the_same():
    spec = "synthetic:50?height=20&width=30&caption_words=4"
    samples, again = list(open_source(spec)), list(open_source(spec))
    assert samples == again
    assert (
        len({sample.image for sample in samples})
        == len({sample.captions for sample in samples})
        == 50
    )
    for sample in samples:
        picture = Image.open(io.BytesIO(sample.image))
        picture.load()
        assert (picture.format, picture.size, len(sample.captions[0].split())) == (
            "JPEG",
            (30, 20),
            4,
        )
    assert Image.open(io.BytesIO(open_source("synthetic:10000000")[9_999_999].image)).size == (
        500,
        375,
    )


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("many", "'many' is not a number of samples"),
        ("0", "'0' is not a number of samples"),
        ("5?height=-3", "option 'height' is '-3'; expected a whole number from 1 on"),
        ("5?height=100000", "a JPEG file has at most 65,500 pixels a side"),
        ("5?heigth=3", "unknown option 'heigth' (did you mean 'height'?)"),
    ],
)
def test_a_wrong_number_of_synthetic_samples_is_refused(rest, message):
    assert refusal(f"synthetic:{rest}") == f"data error: synthetic:{rest}: {message}" + (
        "; options: height, width, caption_words" if "heigth" in rest else ""
    )


# Fingerprints


def test_a_fingerprint_changes_with_names_contents_and_options(images, tmp_path):
    def row(caption):
        return [["image", "caption", "alt"], ["images/0.png", caption, "b"]]

    seen = {
        write_csv(images / "x.csv", row("a")).fingerprint(),
        write_csv(images / "y.csv", row("a")).fingerprint(),
        write_csv(images / "x.csv", row("c")).fingerprint(),  # of the same size
        write_csv(images / "x.csv", row("a"), f"csv:{images}/x.csv?caption=alt").fingerprint(),
    }
    assert len(seen) == 4
    seen = {
        write_jsonl(
            images / "x.jsonl", [{"image": "images/0.png", "caption": caption}]
        ).fingerprint()
        for caption in "ab"
    }
    assert len(seen) == 2
    columns = {"image": [png()] * 4, "caption": ["a"] * 4}
    seen = {
        write_parquet(tmp_path / "x.parquet", columns).fingerprint(),
        write_parquet(tmp_path / "y.parquet", columns).fingerprint(),
        write_parquet(tmp_path / "x.parquet", columns, row_group_size=2).fingerprint(),
        write_parquet(
            tmp_path / "x.parquet", columns | {"caption": ["a"] * 3 + ["bbb"]}
        ).fingerprint(),
    }
    assert len(seen) == 4
    seen = {
        write_folder(tmp_path / f"f{place}", classes).fingerprint()
        for place, classes in enumerate(
            [
                {"cat": {"0.png": b"1"}},
                {"cat": {"1.png": b"1"}},
                {"dog": {"0.png": b"1"}},
                {"cat": {"0.png": b"12"}},
            ]
        )
    }
    seen.add(open_source(f"folder:{tmp_path}/f0?prompt=a {{}}").fingerprint())
    assert len(seen) == 5
    assert open_source(f"folder:{tmp_path}/f0").fingerprint() in seen


def test_a_fingerprint_does_not_depend_on_the_place(images, tmp_path):
    first = write_csv(images / "x.csv", [["image", "caption"], ["images/0.png", "a"]]).fingerprint()
    os.rename(images, tmp_path / "elsewhere")
    assert open_source(f"csv:{tmp_path}/elsewhere/x.csv").fingerprint() == first


# Remote files


def test_remote_patterns_are_sorted_and_a_missing_file_is_named(tmp_path):
    memory, folder = fsspec.filesystem("memory"), f"memory:/{tmp_path}"
    for name in "bca":
        memory.pipe_file(
            f"{tmp_path}/{name}.jsonl",
            json.dumps({"image": f"i/{name}.png", "caption": name}).encode(),
        )
        memory.pipe_file(f"{tmp_path}/i/{name}.png", png())
    for pattern in ("*.jsonl", "{b,a,c}.jsonl", "[a-c].jsonl", "?.jsonl"):
        assert [sample.captions[0] for sample in open_source(f"jsonl:{folder}/{pattern}")] == [
            "a",
            "b",
            "c",
        ]
    assert "d.jsonl is missing; 3 of 4 shards found" in refusal(f"jsonl:{folder}/{{a,b,c,d}}.jsonl")
    assert "no file matches" in refusal(f"jsonl:{folder}/x*.jsonl")
    assert "is a folder, not a file" in refusal(f"jsonl:{folder}/i")
    memory.rm(f"{tmp_path}/i/b.png")
    assert reason_of(open_source(f"jsonl:{folder}/*.jsonl"), 1) == Reason.MISSING_IMAGE


@pytest.mark.parametrize(
    "name",
    [
        "i/a.png",
        "j/../i/a.png",
        "{folder}/i/a.png",
        "../a.png",
        "/etc/passwd",
        "{folder}/../a.png",
        "gs://a/b.png",
    ],
)
def test_a_remote_path_may_not_leave_its_folder_either(tmp_path, name):
    memory, folder = fsspec.filesystem("memory"), f"memory:/{tmp_path}/set"
    memory.pipe_file(f"{tmp_path}/set/i/a.png", png())
    memory.pipe_file(f"{tmp_path}/a.png", png())
    row = {"image": name.replace("{folder}", folder), "caption": "a"}
    memory.pipe_file(f"{tmp_path}/set/x.jsonl", json.dumps(row).encode())
    source = open_source(f"jsonl:{folder}/x.jsonl")
    if "i/a.png" in name:
        assert source[0].image == png()
    else:
        assert reason_of(source) == Reason.FORBIDDEN_PATH


def test_a_remote_tar_is_checked_like_a_local_one(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("a.png", png()), ("a.txt", b"one")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    whole, path = (tmp_path / "x.tar").read_bytes(), f"memory:/{tmp_path}/x.tar"
    for data, message in (
        (whole[:500], "is not a tar file"),
        (whole[:1024] + b"1" * 900, "the header at byte 1024"),
        (b"hello" * 999, "is not a tar file"),
        (b"\x1f\x8b\x08" + bytes(600), "is compressed"),
    ):
        fsspec.filesystem("memory").pipe_file(f"{tmp_path}/x.tar", data)
        assert f"{path}: {message}" in refusal(f"webdataset:{path}")
    fsspec.filesystem("memory").pipe_file(f"{tmp_path}/x.tar", whole)
    assert (
        open_source(f"webdataset:{path}").fingerprint()
        == open_source(f"webdataset:{tmp_path}/x.tar").fingerprint()
    )


@pytest.fixture
def without_gcsfs(monkeypatch):
    """gcsfs as if it were not installed."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for scheme in ("gs", "gcs"):
        monkeypatch.delitem(_registry, scheme, raising=False)


def test_a_remote_storage_that_is_unknown_or_fails_is_one_line(tmp_path, without_gcsfs):
    assert "Protocol not known: floppy" in refusal("parquet:floppy://a/x.parquet")
    assert "install gcsfs" in refusal("csv:gs://bucket/{0..3}.csv")
    assert ("folder reads local paths only; mount it (with gcsfuse)") in refusal(
        "folder:gs://bucket/x"
    )

    class Broken(LocalFileSystem):
        protocol = "broken"

        @classmethod
        def _strip_protocol(cls, path):
            return str(path).removeprefix("broken://")

        def cat_file(self, *args, **options):
            raise RuntimeError("the line\nis down")

    fsspec.register_implementation("broken", Broken, clobber=True)
    (tmp_path / "x.jsonl").write_text("{}\n")
    path = f"broken://{tmp_path}/x.jsonl"
    with pytest.raises(DataError, match=f"{path}: cannot be read: the line is down"):
        open_source(f"jsonl:{path}")[0]


def test_arrayrecord_and_its_json_are_read_from_gs(prepared, monkeypatch):
    """With a file system in the place of gcsfs, and a reader that finds gs:// where ArrayRecord's
    own client would."""

    class Bucket(LocalFileSystem):
        protocol = "gs"
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            return str(path).replace("gs://bucket", str(prepared))

    class Reader(array_record_module.ArrayRecordReader):
        def __init__(self, path, *arguments, **options):
            super().__init__(path.replace("gs://bucket", str(prepared)), *arguments, **options)

    fsspec.register_implementation("gs", Bucket, clobber=True)
    try:
        monkeypatch.setattr(array_record_module, "ArrayRecordReader", Reader)
        remote = open_source("arrayrecord:gs://bucket/train")
        assert list(remote) == list(open_source(f"arrayrecord:{prepared}/train"))
        assert remote.paths[0].startswith("gs://bucket/")
        assert remote.fingerprint() == open_source(f"arrayrecord:{prepared}/train").fingerprint()
    finally:
        sys.modules["fsspec.registry"]._registry.pop("gs")


def test_a_null_among_captions_is_passed_over(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "x.jsonl").write_text(
        '{"image": "a.png", "caption": ["good", null, "", "better"]}\n'
    )
    assert open_source(f"jsonl:{tmp_path}/x.jsonl")[0].captions == ("good", "better")


def test_parquet_metadata_that_python_cannot_hold_becomes_text(tmp_path):
    import pyarrow
    from pyarrow import parquet

    times = pyarrow.array([1_700_000_000_123_456_789], pyarrow.timestamp("ns"))
    far = pyarrow.array([10**15], pyarrow.timestamp("ms"))
    table = pyarrow.table({"image": [b"x"], "caption": ["a"], "time": times, "far": far})
    parquet.write_table(table, tmp_path / "x.parquet")
    metadata = open_source(f"parquet:{tmp_path}/x.parquet")[0].metadata
    assert metadata["time"] == "2023-11-14 22:13:20.123456789" and isinstance(metadata["far"], str)


def test_two_parquet_columns_of_one_name_are_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    columns = [pyarrow.array([b"x"]), pyarrow.array(["a"]), pyarrow.array(["b"])]
    table = pyarrow.Table.from_arrays(columns, ["image", "caption", "caption"])
    parquet.write_table(table, tmp_path / "x.parquet")
    assert "two columns are called 'caption'" in refusal(f"parquet:{tmp_path}/x.parquet")


def test_two_asterisks_reach_into_every_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "x", tmp_path / "x/y"):
        folder.mkdir(exist_ok=True)
        (folder / "a.png").write_bytes(b"x")
        (folder / "x.jsonl").write_text('{"image": "a.png", "caption": "a"}\n')
    assert len(open_source(f"jsonl:{tmp_path}/**/*.jsonl")) == 3


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["image", "title"],
            "an image without a caption suits only objectives that read no text, of kind 'simclr'",
        ),
        (
            ["title", "caption"],
            "a text without an image suits only objectives that read no image, of "
            "kind 'masked_language'",
        ),
    ],
)
def test_a_table_of_images_or_texts_alone_names_the_objectives_that_would_take_it(
    images, columns, words
):
    (images / "alone.csv").write_text(f"{','.join(columns)}\nimages/0.png,a\n")
    assert words in refusal(f"csv:{images}/alone.csv")
