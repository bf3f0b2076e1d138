"""Tables as people have them: quotes that are none, long fields, blanks, byte order marks, lists in
a field, images elsewhere."""

import ast
import csv
import io
import json

import fsspec
import numpy as np
import pyarrow
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources import file_patterns
from vlp_jax.data.sources.file_patterns import find_files
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.sources.spec import split_options
from vlp_jax.errors import DataError


def png(value=0):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder set, with 0.png, Images/1.png, lists/ and a picture beside it."""
    for name in ("set/Images", "set/lists", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "set/0.png").write_bytes(png(0))
    (tmp_path / "set/Images/1.png").write_bytes(png(1))
    (tmp_path / "other/2.png").write_bytes(png(2))
    return tmp_path / "set"


def captions(spec):
    return [sample.captions for sample in open_source(spec)]


def reason_of(source, index=0):
    with pytest.raises(SampleError) as caught:
        source[index]
    return caught.value.reason, str(caught.value)


# Quotes

UNQUOTED = {
    "begins": ["one", '"Hello" says a dog', "three"],
    "left open": ["one", '"Hello says a dog', "three", "four"],
    "two left open": ["one", '"Hello says a dog', "three", '"Hello says a cat', "five"],
    "takes in a row": ["one", '"Hello', 'a dog"', "four"],
    "inside": ['5" nails', 'say "hi"', 'a"', '"'],
}


@pytest.mark.parametrize("case", UNQUOTED)
def test_tabs_without_quoting_are_read_as_arrow_reads_them_and_no_row_is_lost(folder, capsys, case):
    (folder / "x.tsv").write_text(
        "image\tcaption\n" + "".join(f"0.png\t{text}\n" for text in UNQUOTED[case])
    )
    options = arrow_csv.ParseOptions(delimiter="\t", quote_char=False)
    expected = arrow_csv.read_csv(folder / "x.tsv", parse_options=options)["caption"].to_pylist()
    assert (
        captions(f"csv:{folder}/x.tsv")
        == [(text,) for text in expected]
        == [(text,) for text in UNQUOTED[case]]
    )
    report = capsys.readouterr().err
    assert (
        report == ""
        if report == ""
        else report.count("\n") == 1 and "has no quoted fields, as its line" in report
    )
    assert captions(f"csv:{folder}/x.tsv?quotes=none") == [(text,) for text in expected]
    assert capsys.readouterr().err == ""


def test_tabs_with_quoting_are_read_as_the_csv_module_writes_them(folder, capsys):
    texts = ['say "hi"', '"all of it"', "two\nlines", "a, b", "with a\ttab", "last"]
    with open(folder / "x.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(
            [("image", "caption"), *(("0.png", text) for text in texts)]
        )
    assert captions(f"csv:{folder}/x.tsv") == [(text,) for text in texts]
    assert capsys.readouterr().err == ""


def test_whether_a_file_is_quoted_can_be_said(folder):
    (folder / "x.tsv").write_text('image\tcaption\n0.png\t"Hello\n0.png\ta dog"\n0.png\t"all"\n')
    assert captions(f"csv:{folder}/x.tsv?quotes=csv") == [("Hello\n0.png\ta dog",), ("all",)]
    (folder / "x.csv").write_text('image,caption\n0.png,"Hello" says a dog\n0.png,"b"\n')
    with pytest.raises(
        DataError,
        match=r"line 2, in the row at byte 14.*where no field is "
        r"quoted, give \?quotes=none",
    ):
        open_source(f"csv:{folder}/x.csv")
    assert captions(f"csv:{folder}/x.csv?quotes=none") == [('"Hello" says a dog',), ('"b"',)]
    with pytest.raises(DataError, match="quotes 'no' is not one of auto, csv, none"):
        open_source(f"csv:{folder}/x.csv?quotes=no")
    quoted, not_quoted = (
        open_source(f"csv:{folder}/x.tsv?quotes={quotes}").fingerprint()
        for quotes in ("csv", "none")
    )
    assert quoted != not_quoted


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_fields_may_be_long(folder, ending):
    text = "word " * 60_000
    with open(folder / f"x.{ending}", "w", newline="") as file:
        rows = csv.writer(file, delimiter="\t" if ending == "tsv" else ",")
        rows.writerows([("image", "caption"), ("0.png", text), ("0.png", "b")])
    assert captions(f"csv:{folder}/x.{ending}") == [(text.strip(),), ("b",)]


def test_the_table_of_flickr30k_is_read(folder, capsys):
    """Bars, blanks, no quoting, and its one broken row."""
    rows = ['0| "Two" dogs , one black .', "1   A dog .", '2| A "dog" .', '3| "']
    (folder / "results.csv").write_text(
        "".join(
            f"{row}\n"
            for row in ("image_name| comment_number| comment", *(f"0.png| {row}" for row in rows))
        )
    )
    source = open_source(f"csv:{folder}/results.csv?delimiter=|&image=image_name&caption=comment")
    assert [source[n].captions for n in (0, 2, 3)] == [
        ('"Two" dogs , one black .',),
        ('A "dog" .',),
        ('"',),
    ]
    assert reason_of(source, 1)[0] == Reason.DAMAGED_TEXT
    assert source[0].metadata == {"comment_number": "0"}


@pytest.mark.parametrize(("delimiter", "name"), [(";", ";"), ("\t", "tab"), ("|", "|")])
def test_a_header_of_one_column_is_answered_with_another_delimiter(folder, delimiter, name):
    (folder / "x.csv").write_text(f"image{delimiter}caption\n0.png{delimiter}a\n")
    with pytest.raises(DataError) as caught:
        open_source(f"csv:{folder}/x.csv")
    assert f"is its delimiter another one? ?delimiter={name}" in str(caught.value)
    assert captions(f"csv:{folder}/x.csv?delimiter={name}") == [("a",)]


def test_columns_without_a_name_may_be_several(folder):
    (folder / "x.csv").write_text("image,caption,,\n0.png,a,,\n")
    assert captions(f"csv:{folder}/x.csv") == [("a",)]


# Headers, delimiters, encodings


@pytest.mark.parametrize(
    "text",
    [
        'image, caption\n0.png, a cat\n0.png, "a dog, black"\n',
        'image , caption \n0.png , a cat\n 0.png , "a dog, black"\n',
        '"image" , "caption" \n"0.png" , "a cat" \n0.png,"a dog, black" \n',
        '\ufeffimage, caption\r\n0.png, a cat\r\n0.png, "a dog, black"\r\n',
    ],
)
def test_blanks_around_columns_do_not_matter(folder, text):
    (folder / "x.csv").write_text(text, newline="")
    source = open_source(f"csv:{folder}/x.csv")
    assert [sample.captions for sample in source] == [("a cat",), ("a dog, black",)]
    assert source[1].image == png(0)


def test_a_quote_left_open_is_found_among_blanks_too(folder):
    (folder / "x.csv").write_text('image, caption\n0.png, "a cat\n0.png, a dog\n0.png, a "bird"\n')
    with pytest.raises(
        DataError, match="in the row at byte 15: a quote has no other; is a quote left open"
    ):
        open_source(f"csv:{folder}/x.csv")
    (folder / "x.csv").write_text(
        'image, caption\n0.png, "a dog, on\nthe ""grass"""\n0.png, 5" nails\n0.png, b\n'
    )
    assert captions(f"csv:{folder}/x.csv") == [('a dog, on\nthe "grass"',), ('5" nails',), ("b",)]


def test_blanks_inside_of_fields_stay_where_the_header_has_none(folder):
    (folder / " x .png").write_bytes(png(7))
    (folder / "x.csv").write_text("image,caption,note\n x .png,a, b \n")
    sample = open_source(f"csv:{folder}/x.csv")[0]
    assert (sample.image, sample.metadata) == (png(7), {"note": " b "})


@pytest.mark.parametrize(
    ("given", "character"),
    [("|", "|"), ("%7C", "|"), (";", ";"), ("%09", "\t"), ("\\t", "\t"), ("tab", "\t")],
)
def test_a_delimiter_is_written_as_it_is(folder, given, character):
    (folder / "x.txt").write_text(
        character.join(["image", "caption"]) + "\n" + character.join(["0.png", "a, b"]) + "\n"
    )
    assert captions(f"csv:{folder}/x.txt?delimiter={given}") == [("a, b",)]
    assert captions(f"csv:{folder}/x.txt?delimiter={given}&image=image") == [("a, b",)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(folder, kind, encoding):
    rows = [("0.png", "größe"), ("Images/1.png", "猫")]
    lines = (
        ["image,caption", *map(",".join, rows)]
        if kind == "csv"
        else [
            json.dumps({"image": image, "caption": text}, ensure_ascii=False)
            for image, text in rows
        ]
    )
    (folder / f"x.{kind}").write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    assert [
        (sample.image, sample.captions) for sample in open_source(f"{kind}:{folder}/x.{kind}")
    ] == [(png(0), ("größe",)), (png(1), ("猫",))]
    (folder / f"x.{kind}").write_bytes("\r\n".join([*lines, ""]).encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16; write it in UTF-8"):
        open_source(f"{kind}:{folder}/x.{kind}")


# Lists in a field

LISTS = [
    ('["a cat", "the cat"]', ("a cat", "the cat")),
    (' ["a, b", "\\u00e9", null, ""]\n', ("a, b", "é")),
    ('["one"]', ("one",)),
    ("[laughs] a cat", ("[laughs] a cat",)),
    ("[a cat]", ("[a cat]",)),
    ("a cat [0]", ("a cat [0]",)),
]
NO_TEXTS = [
    "['a cat', 'the cat']",
    str(["it's", 'a "cat"']),
    "[1, 2]",
    '[{"raw": "a"}]',
    '[["a"], ["b"]]',
    str(np.array(["a", "b"])),
]


def write_as(kind, folder, text):
    if kind == "csv":
        with open(folder / "x.csv", "w", newline="") as file:
            csv.writer(file).writerows([("image", "caption"), ("0.png", text)])
    elif kind == "jsonl":
        (folder / "x.jsonl").write_text(json.dumps({"image": "0.png", "caption": text}))
    else:
        parquet.write_table(
            pyarrow.table({"image": [png()], "caption": [text]}), folder / "x.parquet"
        )
    return open_source(f"{kind}:{folder}/x.{kind}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_json_list_in_a_field_is_a_list_of_captions_or_is_refused(folder, kind):
    for text, expected in LISTS:
        assert write_as(kind, folder, text)[0].captions == expected
    for text in NO_TEXTS:
        reason, message = reason_of(write_as(kind, folder, text))
        assert reason == Reason.WRONG_TYPE and "list" in message
    assert reason_of(write_as(kind, folder, "[]"))[0] == Reason.MISSING_CAPTION
    assert ast.literal_eval(NO_TEXTS[1]) == ["it's", 'a "cat"']  # it is what Python prints


# Images elsewhere


def test_images_may_lie_in_another_folder_that_an_option_names(folder, monkeypatch):
    (folder / "captions.txt").write_text("image,caption\n1.png,a\n")
    (folder / "lists/x.csv").write_text(f"image,caption\n{folder}/Images/1.png,a\n")
    expected = png(1)
    assert open_source(f"csv:{folder}/captions.txt?root={folder}/Images")[0].image == expected
    assert open_source(f"csv:{folder}/captions.txt?root=Images")[0].image == expected
    assert open_source(f"csv:{folder}/lists/x.csv?root={folder}/Images")[0].image == expected
    assert open_source(f"csv:{folder}/lists/x.csv?root=..")[0].image == expected
    assert open_source(f"csv:{folder}/lists/x.csv?root=/")[0].image == expected
    monkeypatch.chdir(folder)
    assert open_source("csv:captions.txt?root=Images")[0].image == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "name",
    [
        "../0.png",
        "/etc/passwd",
        "{outside}/other/2.png",
        "https://example.com/1.png",
        "x/../../0.png",
    ],
)
def test_a_path_may_not_leave_the_root_either(folder, kind, name):
    name = name.replace("{outside}", str(folder.parent))
    table = {"image": [name, "1.png"], "caption": ["a", "b"]}
    if kind == "parquet":
        parquet.write_table(pyarrow.table(table), folder / "x.parquet")
    elif kind == "csv":
        (folder / "x.csv").write_text(f"image,caption\n{name},a\n1.png,b\n")
    else:
        lines = [{"image": image, "caption": "a"} for image in table["image"]]
        (folder / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = open_source(f"{kind}:{folder}/x.{kind}?root=Images")
    assert source[1].image == png(1)
    reason, message = reason_of(source)
    assert reason == Reason.FORBIDDEN_PATH and "?root=FOLDER" in message


def test_a_path_that_is_missing_or_forbidden_names_the_way_out(folder):
    (folder / "captions.txt").write_text(f"image,caption\n1.png,a\n{folder.parent}/other/2.png,b\n")
    source = open_source(f"csv:{folder}/captions.txt")
    for number, reason in enumerate((Reason.MISSING_IMAGE, Reason.FORBIDDEN_PATH)):
        found, message = reason_of(source, number)
        assert found == reason and "?root=FOLDER" in message
    with pytest.raises(
        DataError,
        match="root: .*/Pictures is no folder; a relative one begins at the folder of its file",
    ):
        open_source(f"csv:{folder}/captions.txt?root=Pictures")


def test_roots_and_tables_may_be_remote_and_local(folder):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/far/lists/x.csv", b"image,caption\n1.png,a\n")
    memory.pipe_file("/far/Images/1.png", png(9))
    assert open_source("csv:memory:///far/lists/x.csv?root=../Images")[0].image == png(9)
    assert open_source("csv:memory:///far/lists/x.csv?root=memory:///far/Images")[0].image == png(9)
    assert open_source(f"csv:memory:///far/lists/x.csv?root={folder}/Images")[0].image == png(1)
    (folder / "x.csv").write_text(
        "image,caption\n1.png,a\nmemory:///far/Images/1.png,b\nmemory:///far/x.png,c\n"
    )
    source = open_source(f"csv:{folder}/x.csv?root=memory:///far/Images")
    assert [source[0].image, source[1].image, reason_of(source, 2)[0]] == [
        png(9),
        png(9),
        Reason.FORBIDDEN_PATH,
    ]


# Names of files


@pytest.mark.parametrize(
    ("rest", "pattern", "options"),
    [
        (
            "https://h/x.tar?sig=a%2Fb&t=1#caption=txt",
            "https://h/x.tar?sig=a%2Fb&t=1",
            {"caption": ("txt",)},
        ),
        ("https://h/x.tar?sig=1#", "https://h/x.tar?sig=1", {}),
        (
            "https://h/x.tar#image=a|b&caption=c",
            "https://h/x.tar",
            {"image": ("a", "b"), "caption": ("c",)},
        ),
        ("https://h/x.tar?caption=txt", "https://h/x.tar", {"caption": ("txt",)}),
        ("https://h/x.tar?caption=a#caption=b", "https://h/x.tar?caption=a", {"caption": ("b",)}),
        ("/data/set#1/x.tar?caption=a", "/data/set#1/x.tar", {"caption": ("a",)}),
        ("/data/C#.tar?caption=a#b", "/data/C#.tar", {"caption": ("a#b",)}),
        ("/data/a?b=1.csv#", "/data/a?b=1.csv", {}),
        ("x-??.csv?caption=a", "x-??.csv", {"caption": ("a",)}),
    ],
)
def test_options_come_after_a_query_behind_a_sharp(rest, pattern, options):
    assert split_options(rest, "webdataset", ("image", "caption")) == (pattern, options)


def test_a_query_that_is_taken_for_options_is_answered_with_the_sharp():
    with pytest.raises(DataError, match="unknown option 'sig'.*begin the options with #"):
        split_options("https://h/x.tar?sig=1", "webdataset", ("image", "caption"))


def test_a_signed_url_is_read_and_its_signature_is_part_of_no_name(folder, monkeypatch):
    class Server(LocalFileSystem):
        protocol = "signed"
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            path = str(path).replace("signed://host", str(folder))
            return (
                path.partition("?")[0]
                if path.endswith("?sig=a/b&c={1}") or "?" not in path
                else f"{path} is not signed"
            )

    monkeypatch.setattr(file_patterns, "WEB", ("signed",))  # in the place of https
    fsspec.register_implementation("signed", Server, clobber=True)
    for number in range(2):
        (folder / f"x{number}.tsv").write_text(f"image\tcaption\n0.png\tnumber {number}\n")
    source = open_source("csv:signed://host/x{0,1}.tsv?sig=a/b&c={1}#caption=caption")
    assert [(sample.key, sample.captions, sample.image) for sample in source] == [
        (f"x{n}.tsv:1", (f"number {n}",), png(0)) for n in range(2)
    ]


@pytest.mark.parametrize("name", ["a{1}", "a{x,y}", "{0..3}", "a}b", "{", "100%7B"])
def test_files_and_folders_may_have_braces_in_their_names(folder, name):
    (folder / name).mkdir()
    (folder / name / "0.png").write_bytes(png(3))
    (folder / name / "x1.csv").write_text("image,caption\n0.png,a\n")
    assert open_source(f"csv:{folder}/{name}/x1.csv")[0].image == png(3)
    escaped = name.replace("{", "%7B").replace("}", "%7D")
    if "%" not in name:
        assert (
            len(open_source(f"csv:{folder}/{escaped}/x*.csv"))
            == len(open_source(f"csv:{folder}/{escaped}/x{{1..1}}.csv"))
            == 1
        )
    (folder / f"{name}.csv").write_text("image,caption\n0.png,a\n")
    assert find_files(f"{folder}/{name}.csv", "csv") == [f"{folder}/{name}.csv"]


def test_braces_that_belong_to_a_name_are_answered_with_their_escape(folder):
    for pattern in ("a{1}*.csv", "a{*.csv"):
        with pytest.raises(DataError, match="write %7B and %7D for braces that belong to a name"):
            find_files(f"{folder}/{pattern}", "csv")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_json_object_in_a_field_is_no_caption(folder, kind):
    text = json.dumps({"raw": "a cat", "tokens": ["a", "cat"]})
    reason, message = reason_of(write_as(kind, folder, text))
    assert reason == Reason.WRONG_TYPE and "its caption is a JSON object, not a text" in message
    for text in ("{a cat}", "{}x", "{ }{"):
        assert write_as(kind, folder, text)[0].captions == (text,)


def test_a_url_as_an_image_is_answered_with_what_to_do_and_one_of_a_file_here_is_that_file(folder):
    names = ["https://example.com/0.png", f"file://{folder}/0.png", "file:///etc/passwd"]
    (folder / "x.jsonl").write_text(
        "".join(json.dumps({"image": name, "caption": "a"}) + "\n" for name in names)
    )
    source = open_source(f"jsonl:{folder}/x.jsonl")
    reason, message = reason_of(source)
    assert (
        reason == Reason.FORBIDDEN_PATH
        and "is the URL 'https://example.com/0.png'" in message
        and "download" in message
    )
    assert source[1].image == png(0)
    assert reason_of(source, 2)[0] == Reason.FORBIDDEN_PATH
