"""Ranged reads of remote files: a storage that sends other bytes than it was asked for is asked
again, then refused by name."""

import http.server
import io
import json
import re
import socket
import tarfile
import threading

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vlp_jax.data.sources import index, ranges
from vlp_jax.data.sources.filesystem import open_file, read_range
from vlp_jax.data.sources.ranges import RemoteFile, WrongAnswerError, check_answer
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError

CONTENT = bytes(range(256)) * 64


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch, tmp_path):
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setenv("VLP_JAX_CACHE", str(tmp_path / "cache"))


class Unreliable(MemoryFileSystem):
    """Gives ranges through `answers`, one for each call: functions of the bytes that are right and
    all bytes of the file."""

    protocol = "unreliable"
    store, pseudo_dirs = {}, [""]
    answers: list = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("unreliable://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        data = super().cat_file(path, start=start, end=end)
        return self.answers.pop(0)(data, super().cat_file(path)) if self.answers else data


fsspec.register_implementation("unreliable", Unreliable, clobber=True)


def fails(data, everything):
    raise ConnectionResetError("connection reset by peer")


ANSWERS = {
    "short": lambda data, everything: data[:-1],
    "all": lambda data, everything: everything,
    "empty": lambda *_: b"",
    "long": lambda data, everything: data + b"x",
    "fails": fails,
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("times", [1, ranges.TRIES - 1, ranges.TRIES])
def test_wrong_answers_are_asked_for_again_and_refused_by_name(monkeypatch, answer, times):
    fsspec.filesystem("unreliable").pipe_file("/x.bin", CONTENT)
    monkeypatch.setattr(Unreliable, "answers", [ANSWERS[answer]] * times)
    if times < ranges.TRIES:
        assert read_range("unreliable://x.bin", 100, 50) == CONTENT[100:150]
        return
    words = r"(sent \d+ bytes for the 50 from byte 100 on|cannot be read: connection reset)"
    with pytest.raises(DataError, match=f"^data error: unreliable://x.bin: {words}"):
        read_range("unreliable://x.bin", 100, 50)


def test_a_file_read_from_start_to_end_is_made_of_checked_ranges(monkeypatch):
    fsspec.filesystem("unreliable").pipe_file("/x.bin", CONTENT)
    monkeypatch.setattr(Unreliable, "answers", [lambda data, everything: data[:-1]] * ranges.TRIES)
    with (
        pytest.raises(DataError, match="unreliable://x.bin: sent"),
        open_file("unreliable://x.bin") as file,
    ):
        file.read()
    with open_file("unreliable://x.bin") as file:
        assert file.read() == CONTENT


def test_a_remote_file_reads_and_seeks_as_a_file_does():
    theirs, rng = io.BytesIO(CONTENT), np.random.default_rng(0)
    ours = io.BufferedReader(
        RemoteFile(lambda start, size: CONTENT[start : start + size], len(CONTENT)), 100
    )
    for _ in range(500):
        offset, whence, size = (
            int(rng.integers(0, 900)),
            int(rng.integers(0, 3)),
            int(rng.integers(0, 1000)),
        )
        offset = -offset if whence == 2 else offset
        assert ours.seek(offset, whence) == theirs.seek(offset, whence)
        assert ours.read(size) == theirs.read(size) and ours.tell() == theirs.tell()


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (206, {"Content-Range": "bytes 10-19/100"}, None),
        (206, {"Content-Range": "bytes 10-19/*", "Content-Length": "10"}, None),
        (206, {"Content-Range": "bytes 0-9/100"}, "with the range 'bytes 0-9/100'"),
        (206, {"Content-Range": "bytes 10-99/100"}, "with the range"),
        (206, {}, "with the range None"),
        (
            206,
            {"Content-Range": "bytes 10-19/100", "Content-Length": "4"},
            "sends 4 bytes for the 10",
        ),
        (206, {"Content-Range": "bytes 10-19/120"}, "has 120 bytes now, and had 100"),
        (200, {"Content-Length": "100"}, "ignores Range"),
        (200, {}, "ignores Range"),
        (416, {}, "status 416"),
        (503, {}, "status 503"),
        (204, {}, "status 204"),
        (302, {}, "status 302"),
    ],
)
def test_the_answer_of_a_web_server_is_checked_as_http_defines_it(status, headers, words):
    """RFC 9110, 14.4 and 15.3.7."""
    if words is None:
        check_answer(status, headers, 10, 10, 100)
        return
    with pytest.raises(WrongAnswerError, match=re.escape(words)):
        check_answer(status, headers, 10, 10, 100)


def test_all_of_a_file_may_come_without_a_range():
    check_answer(200, {"Content-Length": "10"}, 0, 10, 10)
    with pytest.raises(FileNotFoundError):
        check_answer(404, {}, 0, 10, 10)
    with pytest.raises(PermissionError):
        check_answer(403, {}, 0, 10, 10)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, ranges as `way` says: as they should be, never, cut short, moved, or at the
    second try."""

    files: dict = {}
    way = "right"
    asked: list = []
    statuses: list = []  # of the first answers

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        data, asked = self.files[self.path], self.headers.get("Range")
        self.asked.append(asked)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            self.reply(status, b"", {}, body)
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        ignored = self.way == "ignored" or self.way == "second try" and self.asked.count(asked) < 2
        if span is None or ignored:
            self.reply(200, data, {}, body)
            return
        start, end = int(span[1]), min(int(span[2]) + 1, len(data))
        start, end = (start + 7, end + 7) if self.way == "moved" else (start, end)
        part = data[start:end]
        part = part[:-3] if self.way == "short" else part
        # RFC 9110, 14.1: names of units are case-insensitive
        unit = "Bytes" if self.way == "capital" else "bytes"
        self.reply(206, part, {"Content-Range": f"{unit} {start}-{end - 1}/{len(data)}"}, body)

    def reply(self, status, data, headers, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("aiohttp")
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    monkeypatch.setattr(Server, "asked", [])
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def tar_of(count):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(count):
            for name, data in (
                (f"k{number}.jpg", bytes([number]) * 900),
                (f"k{number}.txt", b"caption %d" % number),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


LINES = "".join(
    json.dumps({"image": "a.png", "caption": f"caption {number}"}) + "\n" for number in range(30)
).encode()


@pytest.mark.variants
@pytest.mark.parametrize("way", ["right", "capital", "ignored", "short", "moved", "second try"])
@pytest.mark.parametrize("kind", ["webdataset", "jsonl"])
def test_samples_behind_a_web_server_are_right_or_refused_by_name(server, monkeypatch, kind, way):
    monkeypatch.setattr(
        Server, "files", {"/x": tar_of(8) if kind == "webdataset" else LINES, "/a.png": b"image"}
    )
    monkeypatch.setattr(Server, "way", way)
    right = way in ("right", "capital", "second try")
    try:
        source = open_source(f"{kind}:{server}/x")
        captions = [source[number].captions for number in range(len(source))]
    except DataError as error:
        assert not right and str(error).startswith(f"data error: {server}/x: "), error
        return
    assert right and captions == [
        (f"caption {number}",) for number in range(8 if kind == "webdataset" else 30)
    ]


def test_a_file_that_grew_on_its_server_is_noticed(server, monkeypatch):
    monkeypatch.setattr(Server, "way", "right")
    monkeypatch.setattr(Server, "files", {"/x": tar_of(8)})
    source = open_source(f"webdataset:{server}/x")
    Server.files["/x"] = tar_of(30)
    with pytest.raises(DataError, match="bytes now, and had"):
        source[0]


def test_an_index_of_a_web_file_is_that_of_its_version(server, monkeypatch):
    monkeypatch.setattr(index, "SMALL", -1)
    monkeypatch.setattr(Server, "way", "right")
    monkeypatch.setattr(Server, "files", {"/x": LINES, "/a.png": b"image"})
    assert open_source(f"jsonl:{server}/x")[3].captions == ("caption 3",)
    Server.files["/x"] = LINES.replace(b"caption", b"sentenc")  # as many bytes
    with pytest.raises(DataError, match="x:4: .*has another row in its place"):
        open_source(f"jsonl:{server}/x")[3]  # this server names no version: each row is checked


@pytest.mark.variants
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "no such file"),
        (410, "no such file"),
        (403, "the server answered with status 403"),
        (401, "the server answered with status 401"),
        (429, "its server answered with status 429"),
        (500, "its server answered with status 500"),
        (503, "its server answered with status 503"),
    ],
)
def test_a_server_that_does_not_answer_is_not_taken_for_a_missing_file(
    server, monkeypatch, status, words
):
    monkeypatch.setattr(Server, "way", "right")
    monkeypatch.setattr(Server, "files", {"/x": LINES, "/a.png": b"image"})
    monkeypatch.setattr(Server, "statuses", [status] * 50)
    with pytest.raises(DataError) as caught:
        open_source(f"jsonl:{server}/x")
    assert words in str(caught.value)
    assert "no such file" in words or "no such file" not in str(caught.value)


@pytest.mark.parametrize("times", [2, 3, 6])
def test_a_server_that_is_busy_is_asked_again(server, monkeypatch, times):
    monkeypatch.setattr(Server, "way", "right")
    monkeypatch.setattr(Server, "files", {"/x": LINES, "/a.png": b"image"})
    monkeypatch.setattr(Server, "statuses", [503] * times)
    assert open_source(f"jsonl:{server}/x")[3].captions == ("caption 3",)


def test_a_server_that_is_not_there_is_named_as_such():
    pytest.importorskip("aiohttp")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match="its server cannot be reached"):
            open_source(f"jsonl:http://127.0.0.1:{closed.getsockname()[1]}/x")
