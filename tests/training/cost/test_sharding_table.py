"""`python -m vlp_jax.inspect --sharding`: where parameters would lie, against bytes counted by
hand."""

import os
import pathlib
import subprocess
import sys

import pytest

from vlp_jax import inspect
from vlp_jax.errors import ConfigError, MeshError

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = f"--config={ROOT}/configs/clip_b16.py"
PARAMETERS = 149_620_737  # of OpenAI's ViT-B/16, as its release counts them


@pytest.fixture
def table(capsys):
    """`table("--devices=8")`: the first line, and the other rows as {path: the cells behind it}."""

    def show(*flags):
        assert inspect.main(["--sharding", CONFIG, *flags]) == 0
        first, _, *rows = capsys.readouterr().out.splitlines()
        return first, {
            cells[0]: cells[1:]
            for cells in ([cell.strip() for cell in row.split("  ") if cell] for row in rows)
        }

    return show


def total(rows, name):
    return int(rows[f"{name}, bytes a device"][-1].replace(",", ""))


def test_one_device_holds_everything(table):
    first, rows = table("--config.ema=0.99")
    assert first == "mesh data=1 x fsdp=1 x tensor=1: 1 device"
    assert total(rows, "parameters") == total(rows, "ema") == 4 * PARAMETERS
    assert total(rows, "optimizer state") == 2 * 4 * PARAMETERS + 2 * 4  # two moments, two counters
    assert total(rows, "all of these") == 4 * 4 * PARAMETERS + 8


def test_fsdp_and_tensor_on_64_devices_that_are_not_here(table):
    first, rows = table("--config.mesh.fsdp=8", "--config.mesh.tensor=4", "--devices=64")
    assert first == "mesh data=2 x fsdp=8 x tensor=4: 64 devices"
    layers = "model/image/transformer/layers"
    assert rows[f"{layers}/attention/query/kernel"] == [
        "(12, 768, 12, 64)",
        "layers embed heads head_dim",
        "- fsdp tensor -",
        f"{12 * 768 * 12 * 64 * 4 // 32:,}",
    ]
    assert rows[f"{layers}/mlp/out/kernel"] == [
        "(12, 3072, 768)",
        "layers mlp embed",
        "- tensor fsdp",
        f"{12 * 3072 * 768 * 4 // 32:,}",
    ]
    assert rows[f"{layers}/mlp/in/bias"][-2:] == ["- tensor", f"{12 * 3072 * 4 // 4:,}"]
    assert rows[f"{layers}/mlp_norm/scale"][-2:] == ["- -", f"{12 * 768 * 4:,}"]
    assert rows["model/image/position"][-2:] == ["- - fsdp", f"{196 * 768 * 4 // 8:,}"]
    # 39,424 elements, below mesh.replicate_below
    assert rows["model/text/position"][-2:] == ["- - -", f"{77 * 512 * 4:,}"]
    assert rows["model/text/tokens/embedding"][-2:] == [
        "tensor fsdp",
        f"{49_408 * 512 * 4 // 32:,}",
    ]


def test_the_parts_of_all_devices_make_the_whole(table):
    """fsdp=8: an eighth of what is divided and all of the rest, moments the same."""
    _, rows = table("--config.mesh.fsdp=8")
    small = 4 * sum(
        elements(cells[0])
        for path, cells in rows.items()
        if path.startswith(("model/", "objectives")) and "fsdp" not in cells[-2]
    )
    assert total(rows, "parameters") == small + (4 * PARAMETERS - small) // 8
    assert total(rows, "optimizer state") == 2 * total(rows, "parameters") + 8


@pytest.mark.full
def test_no_device_is_needed():
    """Where JAX is told to use a TPU that is not there, whatever touched a device would fail."""
    result = subprocess.run(
        [sys.executable, "-m", "vlp_jax.inspect", "--sharding", CONFIG, "--devices=64"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "JAX_PLATFORMS": "tpu"},
    )
    assert result.returncode == 0 and result.stdout.startswith(
        "mesh data=64 x fsdp=1 x tensor=1: 64 devices"
    ), result.stderr


def elements(words):
    """The number of elements of "(12, 768)"."""
    count = 1
    for size in words.strip("()").split(","):
        count *= int(size) if size.strip() else 1
    return count


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (["--sharding"], ConfigError, "--config is missing"),
        ([], ConfigError, "--workdir is missing"),
        (["--sharding", CONFIG, "--workdir=x"], ConfigError, "--workdir: goes without --sharding"),
        (["--workdir=x", "--devices=4"], ConfigError, "--devices: goes with --sharding"),
        (
            ["--workdir=x", "--config.mesh.fsdp=2"],
            ConfigError,
            "--config.mesh.fsdp: goes with --sharding",
        ),
        (["--sharding", CONFIG, "--devices=0"], ConfigError, "--devices: must be at least 1"),
        (
            ["--sharding", CONFIG, "--config.mesh.fsdp=8", "--devices=12"],
            MeshError,
            "12 devices do not divide by 8: nearest",
        ),
        (
            ["--sharding", CONFIG, "--config.mesh.tensor=5"],
            MeshError,
            "attention/key/bias .*12 heads do not divide over tensor=5: nearest are 10 and 15",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(flags, kind, words):
    with pytest.raises(kind, match=words):
        inspect.main(flags)
