"""What the system refuses and what cannot be: one line and status 2, no traceback, and before
anything is allocated or written where that can be known.
"""

import copy
import dataclasses
import errno
import io
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
import typing

import jax
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from stderr_lines import own_lines

from vlp_jax import command_line, main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config
from vlp_jax.config.overrides import apply_overrides
from vlp_jax.config.parse import to_config
from vlp_jax.config.tree import to_tree
from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.target_kinds import ClassTargetConfig
from vlp_jax.data.targets import find_targets
from vlp_jax.errors import REFUSALS, ConfigError, DataError, UserError, user_error_of
from vlp_jax.training.build import build_run
from vlp_jax.training.cost import memory
from vlp_jax.training.hooks.compilations import WatchedStep
from vlp_jax.training.hooks.metric_writers import MetricsFile

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"{ROOT}/configs/clip_emoji.py:smoke"
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"


def leave(door, arguments, monkeypatch, capsys):
    """(status, stderr) of `python -m vlp_jax.DOOR ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["door", *map(str, arguments)])
    monkeypatch.setattr(command_line, "leave_at_once", sys.exit)
    with pytest.raises(SystemExit) as left:
        command_line.run_entry_point(door)
    return left.value.code, capsys.readouterr().err


# Numbers that cannot be


def float_keys(section, path=""):
    """The dotted key of every single number of a config, those of its named entries too."""
    for name, hint in typing.get_type_hints(type(section)).items():
        value = getattr(section, name)
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for entry, inner in entries:
            key = f"{path}{name}.{entry}" if entry else f"{path}{name}"
            if dataclasses.is_dataclass(inner):
                yield from float_keys(inner, f"{key}.")
        if float in (hint, *typing.get_args(hint)) and typing.get_origin(hint) not in (dict, tuple):
            yield f"{path}{name}"


@pytest.mark.variants
@pytest.mark.parametrize("recipe", ["clip_emoji", "albef"])
@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e999"])
def test_no_number_of_a_config_may_be_infinite_or_no_number(recipe, number):
    spec = f"{ROOT}/configs/{recipe}.py:smoke"
    keys, tree = list(float_keys(load_config(spec))), to_tree(load_config(spec))
    assert {
        "epochs",
        "ema",
        "optimizer.learning_rate",
        "optimizer.schedule.warmup",
        "data.augmentation.hue",
    } <= {*keys}
    assert len(keys) > 50
    for key in keys:
        with pytest.raises(
            ConfigError,
            match=f"{key}: expected a finite number, got {number.replace('1e999', 'inf')}",
        ):
            to_config(apply_overrides(copy.deepcopy(tree), [(key, number)]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.images.std=(0,1,1)", "data.images.std: must be at least 1e-06"),
        ("data.images.std=(1,1,-1)", "data.images.std"),
        (
            "data.images.mean=(1e999,1,1)",
            r"data.images.mean\[0\]: expected a finite "
            r"number",
        ),
        ("epochs=0", "epochs: must be above 0"),
        ("epochs=inf", "epochs: expected a finite number, got inf"),
        ("ema=1", "ema: an EMA with decay 1 never changes"),
        ("optimizer.clip_norm=0", "optimizer.clip_norm: must be above 0"),
        ("optimizer.epsilon=0", "optimizer.epsilon: must be above 0"),
        (
            "optimizer.lr_multipliers=(('kernel',1e999),)",
            r"optimizer.lr_multipliers\[0\]\[1\]: "
            r"expected a finite number",
        ),
        ("steps=99999999999999999999", "steps: must be at most"),
    ],
)
def test_a_number_that_cannot_work_is_named(override, words):
    with pytest.raises(ConfigError, match=words):
        load_config(CONFIG, [tuple(override.split("=", 1))])


@pytest.mark.parametrize(
    "duration", ["epochs=1e30", "steps=2147483648", "examples=9007199254740992"]
)
def test_a_run_longer_than_steps_can_be_counted_is_refused(tiny, duration):
    with pytest.raises(
        ConfigError, match=f"{duration.split('=')[0]}: .* a run has at most 2147483647"
    ):
        build_run(load_config(CONFIG, split_overrides(tiny(SYNTHETIC, duration))[1]))


# Memory


@pytest.mark.full
def test_a_model_too_large_is_refused_with_its_bytes_before_any_is_allocated(
    tiny, tmp_path, monkeypatch, capsys
):
    large = tiny(
        SYNTHETIC,
        "steps=1",
        "mesh.data=1",
        "model.text.width=8192",
        "model.text.mlp_dim=32768",
        "model.text.depth=48",
    )
    status, said = leave(
        main.main, [f"--config={CONFIG}", f"--workdir={tmp_path}/run", *large], monkeypatch, capsys
    )
    assert status == 2 and len(said.splitlines()) == 1 and not (tmp_path / "run").exists()
    # kernels of attention and MLP; biases and norms are a ten thousandth of them
    layer = 4 * 8192**2 + 2 * 8192 * 32768
    parameters = 4 * 48 * layer
    stated = float(said.partition("parameters ")[2].partition(" GB")[0].replace(",", ""))
    assert stated == pytest.approx(parameters / 1e9, rel=0.01)
    assert "is too large: parameters" in said and "optimizer state" in said and "gradients" in said


def test_what_is_stated_is_what_the_state_takes(tiny):
    run = build_run(
        load_config(
            CONFIG, split_overrides(tiny(SYNTHETIC, "steps=1", "mesh.data=1", "ema=0.9"))[1]
        )
    )
    state, cost = run.initial_state(), memory.state_memory(run.shapes, run.shardings)
    for name, tree in (
        ("parameters", state.params),
        ("optimizer state", state.optimizer),
        ("ema", state.ema),
    ):
        assert cost[name] == sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 134938738832 bytes."
        ),
        MemoryError(),
    ],
    ids=["XLA", "Python"],
)
def test_out_of_memory_in_the_step_gives_the_cost_and_what_would_help(
    tiny, tmp_path, monkeypatch, capsys, error
):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(WatchedStep, "__call__", exhausted)
    arguments = [
        f"--config={CONFIG}",
        f"--workdir={tmp_path}/run",
        *tiny(SYNTHETIC, "steps=1", "mesh.data=1"),
    ]
    status, said = leave(main.main, arguments, monkeypatch, capsys)
    assert status == 2 and len(said.splitlines()) == 1
    assert (
        said.startswith("training error: out of memory: parameters ") and "data.batch_size" in said
    )


# The system


@pytest.mark.parametrize("number", sorted(REFUSALS), ids=lambda number: errno.errorcode[number])
def test_what_the_system_refuses_is_one_line_that_names_the_file(monkeypatch, capsys, number):
    def refused(arguments):
        raise OSError(number, os.strerror(number), "/data/there")

    status, said = leave(refused, [], monkeypatch, capsys)
    assert (status, len(said.splitlines())) == (2, 1) and (
        f"/data/there: {os.strerror(number)}"
    ) in said


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["door"])
    for error in (
        ValueError("a bug"),
        OSError(errno.EBADF, "a bug"),
        jax.errors.JaxRuntimeError("INTERNAL: a bug"),
    ):
        assert user_error_of(error) is None
    with pytest.raises(ZeroDivisionError):
        command_line.run_entry_point(lambda arguments: 1 // 0)


@pytest.mark.variants
@pytest.mark.parametrize("written", ["lock", "config.json", "metrics.jsonl"])
def test_a_disk_without_a_free_byte_at_the_start_is_one_line(
    tiny, tmp_path, monkeypatch, capsys, written
):
    fsync, opened = os.fsync, open

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.StringIO):
        flush = full

    if written == "lock":
        monkeypatch.setattr(
            "builtins.open",
            lambda path, *rest, **named: (
                Full() if str(path).endswith("/lock") else opened(path, *rest, **named)
            ),
        )
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
    else:
        monkeypatch.setattr(
            os,
            "fsync",
            lambda number: (
                full()
                if os.readlink(f"/proc/self/fd/{number}").endswith(f"{written}.partial")
                else fsync(number)
            ),
        )
    arguments = [
        f"--config={CONFIG}",
        f"--workdir={tmp_path}/run",
        *tiny(SYNTHETIC, "steps=1", "mesh.data=1"),
    ]
    status, said = leave(main.main, arguments, monkeypatch, capsys)
    assert (status, len(said.splitlines())) == (2, 1) and "No space left on device" in said
    assert str(tmp_path / "run") in said
    assert not list((tmp_path / "run").glob("*.partial"))


WITHOUT_OVERRIDE = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)


@pytest.mark.slow
@pytest.mark.skipif(
    bool(WITHOUT_OVERRIDE) and not shutil.which("setpriv"),
    reason="root reads everything, and there is no setpriv",
)
@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (".", 0o000),
        (".", 0o555),
        ("config.json", 0o000),
        ("lock", 0o000),
        ("metrics.jsonl", 0o000),
        ("tensorboard", 0o000),
        ("tensorboard", 0o555),
        ("checkpoints", 0o000),
        ("checkpoints", 0o555),
        ("checkpoints/2", 0o000),
        ("checkpoints/2/params", 0o000),
        ("checkpoints/2/params/_METADATA", 0o000),
        ("checkpoints/2/metadata/metadata", 0o000),
    ],
)
def test_a_permission_that_is_missing_is_one_line_and_nothing_is_moved(tiny, tmp_path, path, mode):
    workdir, plan = (
        tmp_path / "run",
        tiny(SYNTHETIC, "steps=2", "mesh.data=1", "checkpoint.every_steps=1"),
    )
    assert main.main([f"--config={CONFIG}", f"--workdir={workdir}", *plan]) == 0
    (workdir / path).chmod(mode)
    longer = [
        flag.replace("steps=2", "steps=3") if flag == "--config.steps=2" else flag for flag in plan
    ]
    command = [
        *WITHOUT_OVERRIDE,
        sys.executable,
        "-m",
        "vlp_jax.main",
        f"--config={CONFIG}",
        f"--workdir={workdir}",
        *longer,
        "--accept-changes",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    (workdir / path).chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert len(own_lines(done.stderr)) == 1 and "ermission" in done.stderr
    assert not (workdir / "damaged_checkpoints").exists()


@pytest.mark.parametrize(
    "name",
    ["checkpoints", "tensorboard", "config.json", "metrics.jsonl", "lock", "newest_checkpoint"],
)
def test_a_name_of_the_workdir_that_is_of_another_kind_is_refused(
    tiny, tmp_path, monkeypatch, capsys, name
):
    path = tmp_path / "run" / name
    path.parent.mkdir()
    path.mkdir() if "." in name or name in ("lock", "newest_checkpoint") else path.write_text(
        "mine"
    )
    arguments = [
        f"--config={CONFIG}",
        f"--workdir={tmp_path}/run",
        *tiny(SYNTHETIC, "steps=1", "mesh.data=1"),
    ]
    status, said = leave(main.main, arguments, monkeypatch, capsys)
    assert (status, len(said.splitlines())) == (2, 1) and f"{path} is no fi" in said.replace(
        "no folder", "no fi"
    )
    assert [child.name for child in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[1]", b"3", b"", b"{"])
def test_a_config_json_that_is_none_is_named(tiny, tmp_path, monkeypatch, capsys, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(content)
    arguments = [
        f"--config={CONFIG}",
        f"--workdir={tmp_path}/run",
        *tiny(SYNTHETIC, "steps=1", "mesh.data=1"),
    ]
    status, said = leave(main.main, arguments, monkeypatch, capsys)
    assert (status, len(said.splitlines())) == (2, 1) and (
        "config.json: cannot be read as JSON"
    ) in said


# Files that hold something else

GOOD = [{"step": step, "train/loss": float(step)} for step in range(1, 6)]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (b'{"step": 3, "train/lo\x00ss": \xff}\n', [1, 2, 4, 5]),
        (b"[3]\n", [1, 2, 4, 5]),
        (b'{"stap": 3}\n', [1, 2, 4, 5]),
        (b'{"step": "3"}\n', [1, 2, 4, 5]),
        (b'{"step": 1}\n', [1, 2, 4, 5]),
        (b"\n", [1, 2, 4, 5]),
        (b"\xef\xbb\xbf{\n", [1, 2, 4, 5]),
        (b'{"step": 3.0}\n', [1, 2, 4, 5]),
        (b'{"step": 99}\n', [1, 2]),
    ],
)
def test_damaged_rows_are_left_out_with_a_line_and_the_file_as_it_was_is_kept(
    tmp_path, capsys, damage, left
):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row).encode() + b"\n" for row in GOOD]
    lines[2] = damage
    path.write_bytes(b"".join(lines) + b'{"step": 6, "tra')
    MetricsFile(str(path), keep_up_to=5).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == left
    said = capsys.readouterr().out
    assert f"{path}: " in said and " damaged rows were left out, the first in line " in said
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == b"".join(
        lines
    ) + b'{"step": 6, "tra'


def test_a_torn_last_row_needs_no_words(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2')
    MetricsFile(str(path), keep_up_to=5).close()
    assert (
        path.read_text() == '{"step": 1}\n'
        and not capsys.readouterr().out
        and len(list(tmp_path.iterdir())) == 1
    )


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def read_all(spec):
    """The captions of a source; damage that its samples name is theirs."""
    source = open_source(spec)
    for index in range(len(source)):
        try:
            source[index]
        except SampleError as error:
            assert error.key


def flipped(data, low, high, draws):
    changed = bytearray(data)
    changed[draws.randrange(low, high)] ^= 1 << draws.randrange(8)
    return bytes(changed)


def test_flipped_bits_in_parquet_footers_are_data_errors_by_name(tmp_path):
    path, draws, noticed = tmp_path / "a.parquet", random.Random(0), 0
    parquet.write_table(pyarrow.table({"image": [png(0), png(1)], "caption": ["one", "two"]}), path)
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    for number in range(150):
        damaged = tmp_path / f"{number}.parquet"
        damaged.write_bytes(flipped(data, len(data) - 8 - footer, len(data), draws))
        try:
            read_all(f"parquet:{damaged}")
        except DataError as error:
            assert damaged.name in str(error)
            noticed += 1
    assert noticed > 30


def test_flipped_bits_in_pax_headers_are_data_errors_by_name(tmp_path):
    buffer, draws, noticed = io.BytesIO(), random.Random(0), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for ending, content in (("png", png(0)), ("txt", b"a caption")):
            member = tarfile.TarInfo(f"{'n' * 120}é.{ending}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for number in range(150):
        damaged = tmp_path / f"{number}.tar"
        damaged.write_bytes(flipped(buffer.getvalue(), 0, 1536, draws))
        try:
            read_all(f"webdataset:{damaged}")
        except DataError as error:
            assert damaged.name in str(error)
            noticed += 1
    assert noticed > 30


@pytest.mark.parametrize(
    "content",
    [
        b"# caf\xe9\nX = '\xe9'\n",
        "def get_config(): pass".encode("utf-16"),
        b"\x00\x01",
        b"\x7fELF",
    ],
)
def test_a_config_that_is_no_text_is_named(tmp_path, content):
    (tmp_path / "mine.py").write_bytes(content)
    with pytest.raises(ConfigError, match="mine.py"):
        load_config(f"{tmp_path}/mine.py")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"image": "a.png", "caption": "caf\xe9"}\n'),
        ("a.csv", b"image,caption\na.png,caf\xe9\n"),
        ("h.csv", b"image,capti\xe9on\na.png,good\n"),
        ("u.csv", "image,caption\na.png,good\n".encode("utf-16")),
        ("u.jsonl", '{"image": "a.png", "caption": "good"}\n'.encode("utf-16")),
    ],
)
def test_data_that_are_not_utf8_are_named(tmp_path, name, content):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / name).write_bytes(content)
    with pytest.raises((SampleError, DataError), match="UTF-8"):
        open_source(f"{name.rpartition('.')[2]}:{tmp_path}/{name}")[0]


def test_a_class_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"one\ncaf\xe9\n")
    spec = ClassTargetConfig(field="x", file=f"{tmp_path}/classes.txt", classes=2)
    with pytest.raises(UserError, match="data.targets.x.file: .*classes.txt: is not UTF-8"):
        find_targets({"x": spec}, [open_source("synthetic:8")])
