"""What a user gets wrong: one clear line, status 2, and nothing lost.

In one process, through the doors' own exit.
"""

import io
import json
import pathlib
import shutil
import sys
import tarfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from vlp_jax import command_line, evaluate, main
from vlp_jax.command_line import run_entry_point
from vlp_jax.config import load_config
from vlp_jax.training.checkpoints.workdir import config_changes, write_config

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={ROOT}/configs/clip_emoji.py:smoke"


def leave(door, arguments, monkeypatch, capsys):
    """(status, stdout, stderr) of `python -m vlp_jax.DOOR ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["door", *map(str, arguments)])
    monkeypatch.setattr(command_line, "leave_at_once", sys.exit)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_of:
        run_entry_point(door)
    captured = capsys.readouterr()
    return exit_of.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def small(tiny):
    return tiny("steps=3", "checkpoint.every_steps=1")


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs a door that must refuse: returns its one line."""

    def run(door, *arguments):
        status, _, error = leave(door, arguments, monkeypatch, capsys)
        assert status == 2, error
        assert len(error.strip().splitlines()) == 1, error
        assert "Traceback" not in error
        return error

    return run


@pytest.fixture
def accepted(monkeypatch, capsys):
    def run(door, *arguments):
        status, output, error = leave(door, arguments, monkeypatch, capsys)
        assert status == 0, error
        return output

    return run


def png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for key, (image, caption) in samples.items():
            for extension, data in (("png", image), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def tar_of(tmp_path):
    good = {f"good{i}": (png(i), f"picture {i}") for i in range(6)}
    return lambda **bad: write_tar(tmp_path / "set.tar", good | bad)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.optimiser.learning_rate=1", ["optimiser", "optimizer", "clip_emoji.py"]),
        (
            "--config.optimizer.learning_rat=1",
            ["optimizer.learning_rat", "'learning_rate'", "clip_emoji.py"],
        ),
        ("--config.data.batch_size=many", ["data.batch_size", "many"]),
        ("--config.ema=1.5", ["ema", "1.5", "between 0.0 and 1.0"]),
        (
            "--config.data.train.source=webdataset:/nowhere/{00..03}.tar",
            ["/nowhere", "00.tar is missing"],
        ),
        ("--config.data.train.source=floppy:/a", ["floppy", "webdataset"]),
        ("--config.mesh.data=3", ["mesh", "3"]),
        ("--config.data.batch_size=12", ["12", "8"]),
        (
            "--config.data.augmentation.area=(0.5,1.0)",
            ["data.augmentation.area", "scale, aspect, shift"],
        ),
        ("--config.data.text.tokenizer=/nowhere", ["/nowhere"]),
        (
            "--config.objectives.contrastive.weight_start=1000000",
            ["objectives.contrastive.weight_start", "never reached"],
        ),
        (
            "--config.objectives={'words':{'kind':'masked_language','with_image':False,'mask_id':99999}}",
            ["objectives.words.mask_id", "99999", "vocab_size"],
        ),
        ("--config.data.text.tokenizer=embedded:animals", ["embedded:animals", "embedded:emoji"]),
    ],
)
def test_a_value_that_cannot_work_is_named_and_nothing_is_written(
    refused, tmp_path, override, words, small
):
    flags = [flag for flag in small if flag.partition("=")[0] != override.partition("=")[0]]
    message = refused(main.main, CONFIG, f"--workdir={tmp_path}/run", *flags, override)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


def test_a_flag_given_twice_says_to_quote_braces(refused, tmp_path):
    twice = [
        "--config.data.train.source=webdataset:/a/0.tar",
        "--config.data.train.source=webdataset:/a/1.tar",
    ]
    message = refused(main.main, CONFIG, f"--workdir={tmp_path}/run", *twice)
    assert "--config.data.train.source is given twice" in message
    assert "quote" in message


def test_a_workdir_under_a_regular_file(refused, tmp_path, small):
    (tmp_path / "notes.txt").write_text("mine")
    message = refused(main.main, CONFIG, f"--workdir={tmp_path}/notes.txt/run", *small)
    assert f"{tmp_path}/notes.txt is a file" in message
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.full
@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ((b"no picture at all", "a caption"), "damaged_image"),
        pytest.param((png(9)[:200], "a caption"), "damaged_image", marks=pytest.mark.slow),
        pytest.param((png(9), "  "), "empty_caption", marks=pytest.mark.slow),
    ],
)
def test_a_bad_sample_stops_training_only_above_the_bad_fraction(
    refused, accepted, tar_of, tmp_path, sample, reason, small
):
    source = f"--config.data.train.source=webdataset:{tar_of(spoilt=sample)}"
    message = refused(main.main, CONFIG, f"--workdir={tmp_path}/strict", *small, source)
    assert "data.max_bad_fraction=0.05" in message
    assert reason in message
    assert "spoilt" in message
    output = accepted(
        main.main,
        CONFIG,
        f"--workdir={tmp_path}/loose",
        *small,
        source,
        "--config.data.max_bad_fraction=0.5",
    )
    assert "bad sample replaced: spoilt" in output


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert main.main([CONFIG, f"--workdir={workdir}", *small]) == 0
    return workdir


@pytest.mark.full
@pytest.mark.parametrize("sample", [(b"no picture at all", "a caption"), (png(9), "")])
def test_a_bad_sample_is_left_out_of_an_evaluation_counted_and_named(
    trained, tar_of, tmp_path, sample, capsys
):
    """A score over part of a set is another score, and says so."""
    output = tmp_path / "scores.json"
    assert (
        evaluate.main(
            [
                f"--workdir={trained}",
                f"--source=webdataset:{tar_of(spoilt=sample)}",
                f"--output={output}",
            ]
        )
        == 0
    )
    assert "left out of the evaluation: spoilt: " in capsys.readouterr().err
    assert json.loads(output.read_text())["bad_examples"] == 1


def test_a_checkpoint_of_another_model_is_not_taken(refused, trained, tmp_path, small):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    message = refused(
        main.main,
        CONFIG,
        f"--workdir={workdir}",
        *small,
        "--config.model.embedding_dim=32",
        "--accept-changes",
    )
    assert "is of another model" in message
    assert sorted(
        path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    ) == ["2", "3"]


def test_too_little_disk_names_the_last_good_checkpoint(
    refused, trained, tmp_path, monkeypatch, small
):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    longer = [flag for flag in small if flag != "--config.steps=3"]
    message = refused(
        main.main, CONFIG, f"--workdir={workdir}", *longer, "--config.steps=6", "--accept-changes"
    )
    assert "not enough disk" in message
    assert f"{workdir}/checkpoints/3" in message
    assert sorted(
        path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    ) == ["2", "3"]


def test_a_workdir_without_checkpoints_cannot_be_evaluated(refused, tmp_path):
    assert str(tmp_path) in refused(
        evaluate.main, f"--workdir={tmp_path}", "--source=embedded:emoji/val_vendor"
    )


def test_two_configs_do_not_mix_in_one_workdir(refused, trained, small):
    message = refused(
        main.main, CONFIG, f"--workdir={trained}", *small, "--config.optimizer.learning_rate=0.5"
    )
    assert "optimizer.learning_rate" in message
    assert "--accept-changes" in message


def test_a_config_of_before_a_key_was_there_is_no_other_config(tmp_path):
    config = load_config("configs/clip_emoji.py:smoke")
    write_config(str(tmp_path), config)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del (
        stored["pretrained"],
        stored["data"]["targets"],
        stored["evaluators"]["val_vendor"]["tasks"]["zero_shot"]["class_field"],
    )
    path.write_text(json.dumps(stored))
    assert not config_changes(str(tmp_path), config)
    stored["optimizer"]["learning_rate"] = 0.5
    path.write_text(json.dumps(stored))
    assert config_changes(str(tmp_path), config) == [
        f"optimizer.learning_rate: 0.5 -> {config.optimizer.learning_rate}"
    ]
    stored["optimizer"]["momentun"] = 0.9  # what no config may say: compared as it stands
    path.write_text(json.dumps(stored))
    assert "optimizer.momentun: 0.9 -> '(absent)'" in config_changes(str(tmp_path), config)
