"""Control characters of others' keys, captions, paths and values never reach the terminal."""

import ast
import io
import json
import pathlib
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vlp_jax import evaluate, inspect, main, prepare
from vlp_jax.data.notifications import notice
from vlp_jax.errors import DataError, UserError
from vlp_jax.printing import printable, safe_print

ROOT = pathlib.Path(__file__).parents[1]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202egnp\u2066"


def assert_harmless(text):
    """By Unicode's own categories: no control character but tab and line feed, none that turns
    text, no half of a character."""
    for character in text:
        assert character in "\t\n" or unicodedata.category(character) not in (
            "Cc",
            "Cs",
            "Zl",
            "Zp",
        ), repr(text)
        turns = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
        assert unicodedata.bidirectional(character) not in turns, repr(text)


def test_exactly_the_characters_that_a_terminal_obeys_are_escaped():
    everything = "".join(map(chr, range(0x110000)))
    assert_harmless(printable(everything))
    changed = {
        character for character in map(chr, range(0x3000)) if printable(character) != character
    }
    assert {ord(character) for character in changed} == {
        *range(9),
        *range(0x0B, 0x20),
        *range(0x7F, 0xA0),
        0x061C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    }
    assert printable("é 猫 🐈 👩‍👩‍👧 \t\n") == "é 猫 🐈 👩‍👩‍👧 \t\n"
    assert json.loads(printable(json.dumps("\x7f\x1b"))) == "\x7f\x1b"


def test_errors_notices_and_lines_are_harmless(capsys):
    for text in (str(UserError(f"{EVIL}: no such file")), str(DataError(EVIL))):
        assert_harmless(text)
        assert "\\u001b]0;owned\\u0007" in text
    notice(f"a {EVIL} b")
    safe_print("a", EVIL, end="")
    heard = capsys.readouterr()
    assert_harmless(heard.err), assert_harmless(heard.out)
    assert heard.out.startswith("a \\u001b]0;owned")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "vlp_jax").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_module_that_prints_does_so_through_the_one_place(path):
    tree = ast.parse(path.read_text())
    prints = any(
        isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        for node in ast.walk(tree)
    )
    safe = any(
        isinstance(node, ast.ImportFrom)
        and any((name.name, name.asname) == ("safe_print", "print") for name in node.names)
        for node in tree.body
    )
    assert safe or not prints or "printable" in path.read_text(), (
        f"{path}: from vlp_jax.printing import safe_print as print"
    )


@pytest.fixture(scope="module")
def evil_tar(tmp_path_factory):
    """Good samples, and a bad one, whose keys, captions, classes and file name have control
    characters."""
    path = tmp_path_factory.mktemp("evil") / f"x{EVIL}.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(6):
            file = io.BytesIO()
            Image.fromarray(
                np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            ).save(file, "PNG")
            picture = file.getvalue() if number else b"no image"
            fields = json.dumps(
                {"caption": f"{EVIL} {number}", "group": f"{EVIL}{number % 2}"}
            ).encode()
            for ending, data in (("png", picture), ("json", fields)):
                info = tarfile.TarInfo(f"{EVIL}{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.full
def test_training_evaluating_inspecting_and_preparing_print_no_control_characters(
    evil_tar, tiny, tmp_path, capfd
):
    source = f"webdataset:{evil_tar}"
    evaluators = {
        "val": {"source": source, "tasks": {"retrieval": {}, "zero_shot": {"class_field": "group"}}}
    }
    flags = tiny(
        f"data.train.source={source}",
        "steps=2",
        "data.max_bad_fraction=0.9",
        f"evaluators={evaluators}",
    )
    workdir = tmp_path / f"run{EVIL}"
    assert (
        main.main([f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={workdir}", *flags])
        == 0
    )
    assert (
        evaluate.main(
            [
                f"--workdir={workdir}",
                f"--source={source}",
                "--evaluators=retrieval,zero_shot",
                "--class-field=group",
            ]
        )
        == 0
    )
    assert inspect.main([f"--workdir={workdir}"]) == 0
    assert prepare.main([f"--source={source}", f"--output={tmp_path}/out{EVIL}", "--name=x"]) == 0
    heard = capfd.readouterr()
    assert "\\u001b]0;owned" in heard.out and "\\u001b]0;owned" in heard.err
    assert_harmless(heard.out), assert_harmless(heard.err)


@pytest.mark.parametrize(
    "arguments",
    [
        (main, ["--config=" + EVIL, "--workdir=x"]),
        (main, [f"--{EVIL}=3"]),
        (evaluate, [f"--workdir={EVIL}", "--source=x"]),
        (inspect, [f"--workdir={EVIL}"]),
        (prepare, [f"--source=webdataset:{EVIL}", "--output=x"]),
        (prepare, [f"--source={EVIL}:x", "--output=x"]),
        (
            main,
            [
                f"--config={ROOT}/configs/clip_emoji.py:smoke",
                "--workdir=x",
                f"--config.data.train.source={EVIL}",
            ],
        ),
    ],
)
def test_refusals_of_values_with_control_characters_are_harmless(arguments):
    door, given = arguments
    with pytest.raises(UserError) as caught:
        door.main(given)
    assert_harmless(str(caught.value))
