"""Single bits of a checkpoint flipped, anywhere in its folder: each flip is noticed and the
checkpoint before is used, or it changes nothing. A run that continues has the losses and the
parameters of one that was never touched.
"""

import functools
import hashlib
import json
import pathlib
import random
import re
import shutil

import jax
import numpy as np
import pytest

import vlp_jax
from vlp_jax import evaluate, inspect, main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config
from vlp_jax.distributed.processes import HostsConfig
from vlp_jax.errors import CheckpointError
from vlp_jax.training.build import build_run
from vlp_jax.training.checkpoints import read_errors
from vlp_jax.training.checkpoints.manager import Checkpoints
from vlp_jax.training.checkpoints.save_schedule import CheckpointConfig
from vlp_jax.training.run import train_alone

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = f"{ROOT}/configs/clip_emoji.py:smoke"
PLAN = (
    "data.train.source=synthetic:64?height=20&width=24&caption_words=3",
    "mesh.data=1",
    "checkpoint.every_steps=2",
    "checkpoint.keep=5",
    "ema=0.9",
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(read_errors, "PAUSES", ())


@pytest.fixture(scope="module")
def assembled(tiny):
    return functools.cache(
        lambda *changes: build_run(load_config(CONFIG, split_overrides(tiny(*PLAN, *changes))[1]))
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, assembled):
    """A run of 4 steps with checkpoints 2 and 4, which is not to be changed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    workdir.mkdir()
    train_alone(assembled("steps=4"), str(workdir), [])
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    """`copied()` gives a fresh copy of the finished run, always in the same place."""

    def copy():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))

    return copy


def files_of(workdir):
    return sorted(
        path.relative_to(workdir)
        for path in (workdir / "checkpoints/4").rglob("*")
        if path.is_file()
    )


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def bits_of(path):
    return 8 * path.stat().st_size


def restored(run, workdir):
    checkpoints = Checkpoints(str(workdir), CheckpointConfig(), HostsConfig())
    found = checkpoints.restore_newest(run.shapes, run.shardings)
    checkpoints.close()
    return found


def same(one, other):
    return all(
        jax.tree.leaves(
            jax.tree.map(lambda a, b: np.array_equal(a, b), *map(jax.device_get, (one, other)))
        )
    )


def outcome_of(run, workdir):
    """Every logged loss in order, and the parameters' fingerprint, of the run trained to its
    end."""
    done = train_alone(run, str(workdir), ["steps"])
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["train/loss"]) for row in rows], done.parameter_fingerprint


def check_flip(run, expected, workdir, file, bit, capsys):
    """The flip is noticed by name, or changes nothing."""
    flip(workdir / file, bit)
    found = restored(run, workdir)
    output = capsys.readouterr()
    where = f"bit {bit} of {file}"
    assert "Traceback" not in output.err + output.out, where
    if found.step == 2:
        assert re.search(
            r"^warning: checkpoint 4 is damaged \(\w+(/\S+)?: "
            r".+\)$",
            output.out,
            re.MULTILINE,
        ), where
        assert (workdir / "damaged_checkpoints/4").is_dir(), where
    else:
        assert same(found.state, expected.state) and found.metadata == expected.metadata, where


@pytest.mark.full
def test_a_flipped_bit_in_a_file_of_each_kind_is_noticed_or_harmless(
    finished, copied, assembled, capsys
):
    run, draws, kinds = assembled("steps=4"), random.Random(1), {}
    for file in files_of(finished):
        kinds.setdefault("data" if file.parent.name == "d" else file.name, []).append(file)
    assert {
        "metadata",
        "_METADATA",
        "_sharding",
        "process_0",
        "manifest.ocdbt",
        "data",
        "_CHECKPOINT_METADATA",
    } <= kinds.keys()
    expected = restored(run, copied())
    for files in kinds.values():
        for file in [draws.choice(files) for _ in range(3)]:
            check_flip(
                run, expected, copied(), file, draws.randrange(bits_of(finished / file)), capsys
            )


@pytest.mark.slow
def test_two_hundred_flipped_bits_anywhere_end_in_the_same_losses_and_parameters(
    finished, copied, assembled, capsys
):
    run, draws, silent = assembled("steps=5"), random.Random(0), []
    expected = outcome_of(run, copied())
    files = files_of(finished)
    for _ in range(200):
        workdir, file = copied(), draws.choice(files)
        bit = draws.randrange(bits_of(workdir / file))
        flip(workdir / file, bit)
        capsys.readouterr()
        found = outcome_of(run, workdir)
        output = capsys.readouterr()
        if found != expected or "Traceback" in output.err + output.out:
            silent.append((str(file), bit, output.err))
        if (
            workdir / "damaged_checkpoints"
        ).exists() and "checkpoint 4 is damaged (" not in output.out:
            silent.append((str(file), bit, output.out))
    assert not silent


@pytest.mark.slow
def test_load_refuses_what_a_flipped_bit_has_changed(finished, copied, capsys):
    """Of 100, concentrated on what `load` reads."""
    draws, expected = random.Random(2), vlp_jax.load(str(finished))[1]
    files = [file for file in files_of(finished) if file.parts[2] in ("metadata", "ema")]
    for _ in range(100):
        workdir, file = copied(), draws.choice(files)
        bit = draws.randrange(bits_of(workdir / file))
        flip(workdir / file, bit)
        try:
            assert same(vlp_jax.load(str(workdir))[1], expected), (file, bit)
        except CheckpointError as error:
            said = (
                "checkpoints/4: is (damaged: .*; the newest of the others is of step 2|of "
                "checkpoint format)"
            )
            assert re.search(said, str(error)), (file, bit)
        assert "Traceback" not in capsys.readouterr().err


# What of the metadata decides what a run trains on


def edited(workdir, change, seal=False):
    path = workdir / "checkpoints/4/metadata/metadata"
    metadata = json.loads(path.read_text())
    change(metadata)
    if seal:  # written here by the rule that checksums.py states
        rest = {key: value for key, value in metadata.items() if key != "sha256"}
        metadata["sha256"] = hashlib.sha256(
            json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
    path.write_text(json.dumps(metadata))
    return workdir


@pytest.mark.full
@pytest.mark.parametrize(
    "key",
    [
        "position",
        "step",
        "clock",
        "config",
        "preprocessor",
        "input_counts",
        "targets",
        "class_descriptions",
        "input_fingerprint",
        "parameters",
        "fingerprints",
        "sha256",
    ],
)
def test_a_changed_entry_of_the_metadata_is_noticed(copied, assembled, capsys, key):
    workdir = edited(copied(), lambda metadata: metadata.update({key: 5}))
    assert restored(assembled("steps=4"), workdir).step == 2
    assert (
        "checkpoint 4 is damaged (metadata/metadata: its contents changed after it was written)"
    ) in capsys.readouterr().out


@pytest.mark.full
def test_the_position_is_that_of_the_step(copied, assembled, capsys):
    workdir = edited(copied(), lambda metadata: metadata.update(position=5), seal=True)
    assert restored(assembled("steps=4"), workdir).step == 2
    assert "its position is 5, not 4" in capsys.readouterr().out
    workdir = copied()
    (workdir / "checkpoints/4").rename(workdir / "checkpoints/9")
    assert restored(assembled("steps=4"), workdir).step == 2
    assert (
        "checkpoint 9 is damaged (metadata/metadata: its step is 4, not 9: was the folder renamed?)"
    ) in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.parametrize("version", [1, 2, 3, 99])
def test_a_checkpoint_of_another_format_is_refused_and_stays(copied, assembled, version):
    def older(metadata):
        metadata.update(format=version)
        if version == 1:  # which had neither
            del metadata["format"], metadata["sha256"]

    workdir = edited(copied(), older)
    with pytest.raises(
        CheckpointError,
        match=f"checkpoints/4: is of checkpoint format {version}, .* reads format 4; use the",
    ):
        restored(assembled("steps=4"), workdir)
    assert (workdir / "checkpoints/4").is_dir() and not (workdir / "damaged_checkpoints").exists()


@pytest.mark.full
def test_a_deleted_newest_checkpoint_is_mentioned(copied, assembled, capsys):
    workdir = copied()
    shutil.rmtree(workdir / "checkpoints/4")
    vlp_jax.load(str(workdir))
    line = (
        f"checkpoint 4 was saved ({workdir}/newest_checkpoint) and is gone from "
        f"{workdir}/checkpoints; the newest there is 2"
    )
    assert f"warning: {line}" in capsys.readouterr().err
    assert restored(assembled("steps=4"), workdir).step == 2
    assert f"warning: {line}" in capsys.readouterr().out


@pytest.mark.full
def test_other_names_among_the_checkpoints_are_named_and_ignored(copied, assembled, capsys):
    workdir = copied()
    folder = workdir / "checkpoints"
    for name in ("7.bak", "-3", "011", "²", "5 (copy)"):
        (folder / name).mkdir()
    (folder / "9").write_text("a file")
    (folder / "latest").symlink_to("4")
    run = assembled("steps=4")
    assert restored(run, workdir).step == 4
    assert (
        "ignored what is no checkpoint: '-3', '011', '5 (copy)', '7.bak', '9' and 2 more"
    ) in capsys.readouterr().out
    vlp_jax.load(str(workdir))
    assert len(list(folder.iterdir())) == 9


@pytest.mark.full
@pytest.mark.parametrize("read", ["evaluate", "inspect", "load", "pretrained"])
@pytest.mark.parametrize(
    "lose", ["metadata/metadata", "ema", "ema/_METADATA", "everything", "checkpoints is a file"]
)
def test_damaged_folders_are_refused_in_one_line(copied, monkeypatch, tiny, read, lose):
    workdir = copied()
    folder = workdir / "checkpoints"
    if lose.startswith("checkpoints"):
        shutil.rmtree(folder)
        folder.write_text("a file")
    elif lose == "everything":
        for path in (folder / "4").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif (folder / "4" / lose).is_dir():
        shutil.rmtree(folder / "4" / lose)
    else:
        flip(folder / "4" / lose, 7)
    doors = {
        "evaluate": lambda: evaluate.main(
            [f"--workdir={workdir}", "--source=embedded:emoji/val_vendor"]
        ),
        "inspect": lambda: inspect.main([f"--workdir={workdir}"]),
        "load": lambda: vlp_jax.load(str(workdir)),
        "pretrained": lambda: main.main(
            [
                f"--config={CONFIG}",
                f"--workdir={workdir}/new",
                *tiny(*PLAN, "steps=1"),
                f"--config.pretrained={{'a':{{'workdir':'{workdir}'}}}}",
            ]
        ),
    }
    with pytest.raises(vlp_jax.errors.UserError, match="checkpoints") as raised:
        doors[read]()
    assert raised.value.status == 2 and "\n" not in str(raised.value)
