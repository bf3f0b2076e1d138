"""Named pipes, devices and folders in the place of files are refused in one line, and never waited
for; so are endless braces."""

import glob
import json
import os
import threading

import pytest
from PIL import Image

from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources import file_patterns
from vlp_jax.data.sources.file_patterns import expand_braces
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.data.text.word_vectors import read_vectors
from vlp_jax.errors import UserError

THINGS = ["pipe", "link to a pipe", "device", "folder", "link to a folder", "socket"]


@pytest.fixture
def put(tmp_path):
    """`put(name, thing)` makes something that is no file, and fails the test where it is waited
    for."""

    def make(name, thing):
        path = tmp_path / name
        if thing.endswith("pipe"):
            os.mkfifo(tmp_path / f"{name}.pipe" if "link" in thing else path)
        if thing.startswith("link"):
            target = tmp_path / f"{name}.pipe"
            target.mkdir() if "folder" in thing else None
            path.symlink_to(target)
        if thing == "device":
            path.symlink_to("/dev/zero")
        if thing == "folder":
            path.mkdir()
        if thing == "socket":
            import socket

            held = socket.socket(socket.AF_UNIX)
            os.chdir(tmp_path)  # names of sockets are short
            held.bind(name)
        return path

    before = os.getcwd()
    yield make
    os.chdir(before)


def quickly(call):
    """The error that a call raises within some seconds, in one line."""
    outcome = []

    def run():
        try:
            call()
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    assert outcome and isinstance(outcome[0], UserError) and "\n" not in str(outcome[0]), outcome
    return outcome[0]


def soon(call):
    """What a call returns within some seconds."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert outcome, "it takes without end, or fails"
    return outcome[0]


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("ending", ["webdataset", "jsonl", "csv", "parquet"])
def test_a_source_is_a_file(put, thing, ending):
    path = put(f"x.{ending}", thing)
    error = quickly(lambda: open_source(f"{ending}:{path}"))
    assert str(path) in str(error)
    if "pipe" in thing or thing == "device":
        assert f"is a {'named pipe' if 'pipe' in thing else 'device'}, not a file" in str(error)


@pytest.mark.parametrize("thing", THINGS)
def test_an_image_is_a_file(put, tmp_path, thing):
    put("a.png", thing)
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "a.png", "caption": "a"}) + "\n")
    error = quickly(lambda: open_source(f"jsonl:{tmp_path}/x.jsonl")[0])
    assert isinstance(error, SampleError) and error.key == "x.jsonl:1"
    assert error.reason == (Reason.MISSING_IMAGE if "folder" in thing else Reason.FORBIDDEN_PATH)
    preprocess = Preprocessor(8, ImagesConfig(), load_tokenizer(TextConfig(), 6, 4096))
    assert isinstance(quickly(lambda: preprocess(images=tmp_path / "a.png")), SampleError)


def test_images_in_folders_of_classes_are_files(put, tmp_path):
    (tmp_path / "set/cat").mkdir(parents=True)
    os.mkfifo(tmp_path / "set/cat/a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "set/cat/b.png")
    source = open_source(f"folder:{tmp_path}/set")
    assert "is a named pipe" in str(quickly(lambda: source[0])) and source[1].captions == ("cat",)


@pytest.mark.parametrize("url", ["", "file://"])
def test_a_url_of_a_local_file_is_that_file(put, tmp_path, url):
    put("a.tar", "pipe")
    assert "is a named pipe" in str(
        quickly(lambda: open_source(f"webdataset:{url}{tmp_path}/a.tar"))
    )


@pytest.mark.parametrize("thing", THINGS)
def test_files_beside_the_data_are_files(put, tmp_path, thing):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for name in ("tokenizer.json", "vocab.txt", "spiece.model"):
        path = put(name, thing)
        error = quickly(lambda path=path: load_tokenizer(TextConfig(tokenizer=str(path)), 6, 4096))
        assert "data.text.tokenizer" in str(error) and str(path) in str(error)
    path = put("vectors.txt", thing)
    assert "model.text.word_vectors" in str(quickly(lambda: read_vectors(str(path), {"a"}, 3)))


@pytest.mark.parametrize(
    "name", ["vocab.txt", "tokenizer_config.json", "config.json", "tokenizer.json"]
)
def test_a_tokenizer_folder_holds_files(tmp_path, name):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    os.mkfifo(folder / name)
    assert "is a named pipe" in str(
        quickly(lambda: load_tokenizer(TextConfig(tokenizer=str(folder)), 6, 4096))
    )


@pytest.mark.parametrize("name", ["dataset_info.json", "manifest.json", "features.json"])
def test_a_prepared_folder_holds_files(tmp_path, name):
    from vlp_jax import prepare

    prepare.main(["--source=synthetic:4?height=8&width=8", f"--output={tmp_path}/out"])
    (tmp_path / "out" / name).unlink()
    os.mkfifo(tmp_path / "out" / name)
    assert "is a named pipe" in str(
        quickly(lambda: open_source(f"arrayrecord:{tmp_path}/out/train"))
    )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{0..99999999}", "100,000,000"),
        ("{0..999}{0..999}{0..9}", "10,000,000"),
        ("{a,b}" * 30, "1,048,576"),
        ("{" + ",".join("abc" * 400_000) + "}", "1,200,000"),
        ("{0.." + "9" * 5000 + "}", "1,000,000,000,000,000"),
        ("{{0..99999999},a}", "100,000,000"),
        ("{000000000..999999999}", "1,000,000,000"),
    ],
)
def test_braces_of_too_many_names_are_refused_before_they_are_expanded(pattern, names):
    error = quickly(lambda: open_source(f"webdataset:/data/{pattern}.tar"))
    message = str(error)
    assert (
        f"its braces expand to at least {names} names, and at most 1,000,000 are expanded"
    ) in message and len(message) < 1000


def test_as_many_names_as_the_limit_allows_are_expanded(monkeypatch):
    monkeypatch.setattr(file_patterns, "MOST_NAMES", 1000)
    assert len(expand_braces("{0..9}{000..099}")) == 1000
    assert expand_braces("{a,{b,c}}{1..2}") == ["a1", "a2", "b1", "b2", "c1", "c2"]


def test_links_in_a_circle_are_missing_images_and_the_others_are_read(tmp_path):
    (tmp_path / "set/cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "set/cat/a.png")
    for name in ("set/cat/b.png", "set/cat/c.txt", "set/loop", "set/.hidden"):
        (tmp_path / name).symlink_to(tmp_path / name)
    (tmp_path / "x.jsonl").write_text(
        '{"image": "set/cat/a.png", "caption": "a"}\n{"image": "set/cat/b.png", "caption": "b"}\n'
    )
    for spec in (f"folder:{tmp_path}/set", f"jsonl:{tmp_path}/x.jsonl"):
        source = open_source(spec)
        assert len(source) == 2 and source[0].image
        with pytest.raises(SampleError) as caught:
            source[1]
        assert caught.value.reason == Reason.MISSING_IMAGE


PATTERNS = [
    "**/*.tar",
    "**",
    "**/",
    "*/**/*.tar",
    "**/b/*.tar",
    "a/**/c/**/*.tar",
    "a**/t.tar",
    "**/[q]/*.tar",
    "[[]q]/**/t.tar",
    "./**/t.tar",
    "nothing/**/*.tar",
    "**/**/t.tar",
    "**.tar",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("absolute", [False, True])
def test_two_stars_find_what_glob_finds_and_end_where_links_lead_in_a_circle(
    tmp_path, monkeypatch, pattern, absolute
):
    monkeypatch.chdir(tmp_path)
    for name in (
        "t.tar",
        "a/t.tar",
        "a/b/t.tar",
        "a/b/c/t.tar",
        "a/.h/t.tar",
        "x y/t.tar",
        "[q]/t.tar",
        ".t.tar",
        "[q]/b/u.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to("a/b")
    pattern = f"{tmp_path}/{pattern}" if absolute else pattern
    # the folder that is looked through
    itself = {f"{tmp_path}/"} if pattern.endswith("**") else set()
    expected = sorted({*glob.glob(pattern, recursive=True)} - itself)
    assert sorted(file_patterns._glob(pattern)) == expected
    (tmp_path / "a/b/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "nowhere").symlink_to("nowhere")
    assert {*expected} <= {*soon(lambda: file_patterns._glob(pattern))}


@pytest.mark.parametrize("thing", ["pipe", "device", "socket", "folder"])
def test_what_is_no_file_is_a_data_error(put, thing):
    with pytest.raises(UserError) as caught:
        open_source(f"webdataset:{put('x.tar', thing)}")
    assert str(caught.value).startswith("data error: ")
