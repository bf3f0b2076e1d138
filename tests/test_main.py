"""The doors, end to end, in processes of their own as a user starts them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from stderr_lines import own_lines

import vlp_jax
from vlp_jax import inspect
from vlp_jax.command_line import give_devices_threads
from vlp_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
SMALL = [
    "--config.steps=12",
    "--config.log_every=1",
    "--config.checkpoint.every_steps=3",
    "--config.data.batch_size=16",
    "--config.evaluators={}",
    # what compiles in seconds; test_stops.py takes the experiment as it is
    "--config.model.image.stem=patch",
    "--config.model.image.stem_channels=()",
    "--config.model.image.stem_strides=()",
    "--config.optimizer.kind=adamw",
]


def command(workdir, *overrides):
    return [
        sys.executable,
        "-m",
        "vlp_jax.main",
        f"--config={ROOT}/configs/clip_emoji.py:smoke",
        f"--workdir={workdir}",
        *SMALL,
        *overrides,
    ]


def environment(devices=1):
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def run(*arguments, devices=1):
    return subprocess.run(
        arguments, capture_output=True, text=True, cwd=ROOT, env=environment(devices)
    )


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return {row["step"]: row["train/loss"] for row in rows(workdir)}


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    result = run(*command(workdir))
    assert result.returncode == 0, result.stderr
    return workdir, fingerprint(result.stdout)


def fingerprint(stdout):
    return next(line for line in stdout.splitlines() if line.startswith("parameter fingerprint"))


def test_every_step_has_one_row(unbroken):
    assert [row["step"] for row in rows(unbroken[0])] == list(range(1, 13))


@pytest.mark.variants
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_bit_for_bit(unbroken, tmp_path, number):
    process = subprocess.Popen(
        command(tmp_path / "run"), cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment()
    )
    while process.poll() is None and not (tmp_path / "run/checkpoints/3").exists():
        time.sleep(0.02)
    process.send_signal(number)
    process.wait()
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    result = run(*command(tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    assert "resumed from step" in result.stdout
    assert losses(tmp_path / "run") == losses(unbroken[0])
    assert len(rows(tmp_path / "run")) == 12
    assert fingerprint(result.stdout) == unbroken[1]


@pytest.mark.full
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(unbroken, tmp_path):
    workdir = tmp_path / "run"
    assert run("cp", "-r", str(unbroken[0]), str(workdir)).returncode == 0
    largest = max(
        (workdir / "checkpoints/12").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else -1,
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    result = run(*command(workdir))
    assert result.returncode == 0, result.stderr
    assert "checkpoint 12 is damaged" in result.stdout
    assert "resumed from step 9" in result.stdout
    assert fingerprint(result.stdout) == unbroken[1]


@pytest.mark.full
def test_a_run_goes_on_with_other_workers_bit_for_bit(unbroken, tmp_path):
    workdir = tmp_path / "run"
    assert run("cp", "-r", str(unbroken[0]), str(workdir)).returncode == 0
    assert run("rm", "-r", str(workdir / "checkpoints/12")).returncode == 0
    result = run(
        *command(
            workdir,
            "--config.data.workers=2",
            "--config.data.threads=1",
            "--config.data.prefetch=1",
        )
    )
    assert result.returncode == 0, result.stderr
    assert "resumed from step 9" in result.stdout
    assert losses(workdir) == losses(unbroken[0])
    assert fingerprint(result.stdout) == unbroken[1]


@pytest.mark.slow
def test_one_device_and_eight_give_the_same_first_losses(unbroken, tmp_path):
    result = run(*command(tmp_path / "run"), devices=8)
    assert result.returncode == 0, result.stderr
    one, eight = losses(unbroken[0]), losses(tmp_path / "run")
    np.testing.assert_allclose(
        [eight[step] for step in range(1, 6)], [one[step] for step in range(1, 6)], rtol=1e-5
    )


@pytest.mark.full
def test_a_changed_config_is_refused_and_named(unbroken):
    result = run(*command(unbroken[0], "--config.optimizer.learning_rate=5e-4"))
    assert result.returncode == 2
    assert "optimizer.learning_rate: 0.005 -> 0.0005" in result.stderr


@pytest.mark.variants
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.data.batch_size=12", "is given twice"),
        ("--config.data.train.source=webdataset:/nowhere/{0..3}.tar", "data error"),
        ("--config.data.text.tokenizer=/nowhere", "'/nowhere' is not there"),
        ("--config.mesh.data=3", "mesh error"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_2(tmp_path, override, message):
    result = run(*command(tmp_path / "run", override))
    assert result.returncode == 2
    assert message in result.stderr
    assert len(own_lines(result.stderr)) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_a_trained_model_embeds_pictures_and_captions(unbroken):
    model, params, preprocess = vlp_jax.load(str(unbroken[0]))
    picture = np.zeros((40, 30, 3), np.uint8)
    arrays = preprocess(images=[picture], texts=["red apple", ""])
    image, text = model.embed(params, **arrays)
    np.testing.assert_allclose(
        np.linalg.norm(np.concatenate([image, text]), axis=1), 1.0, rtol=1e-5
    )
    np.testing.assert_array_equal(model.embed(params, text=arrays["text"])[1], text)


@pytest.mark.full
def test_evaluate_and_inspect_read_a_run(unbroken, tmp_path):
    output = tmp_path / "metrics.json"
    result = run(
        sys.executable,
        "-m",
        "vlp_jax.evaluate",
        f"--workdir={unbroken[0]}",
        "--source=embedded:emoji/val_concept",
        f"--output={output}",
        devices=2,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(output.read_text())["images"] == 1494
    result = run(sys.executable, "-m", "vlp_jax.inspect", f"--workdir={unbroken[0]}")
    assert result.stdout.splitlines()[-1].startswith("total")


@pytest.mark.parametrize(
    "flags, given, threads",
    [
        ("--xla_a=b --xla_force_host_platform_device_count=8", None, str(64 + os.cpu_count())),
        (
            "--xla_force_host_platform_device_count=4 --xla_force_host_platform_device_count=2",
            None,
            str(16 + os.cpu_count()),
        ),
        ("--xla_force_host_platform_device_count=8", "12", "12"),
        ("--xla_force_host_platform_device_count=1", None, None),
        ("", None, None),
    ],
)
def test_devices_of_one_cpu_have_threads_to_wait_in(monkeypatch, flags, given, threads):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("PJRT_NPROC", given or "")
    if given is None:
        monkeypatch.delenv("PJRT_NPROC")
    give_devices_threads()
    assert os.environ.get("PJRT_NPROC") == threads


@pytest.mark.slow
def test_the_smoke_run_learns_something(tmp_path):
    """As README states: of its 42 steps remains a recall@10 of over twice chance, on a vendor that
    was never trained on."""
    done = run(
        sys.executable,
        "-m",
        "vlp_jax.main",
        "--config=clip_emoji:smoke",
        f"--workdir={tmp_path}/run",
    )
    assert done.returncode == 0, done.stderr
    measured = rows(tmp_path / "run")[-1]
    chance = 10 / measured["val_vendor/images"]
    assert measured["val_vendor/text_to_image_recall@10"] > 2 * chance
    assert measured["val_vendor/image_to_text_recall@10"] > 2 * chance


@pytest.mark.parametrize(
    ("pattern", "found", "absent"),
    [
        (
            "optimizer.learning*",
            ["  optimizer.learning_rate: float; default 0.001; at least 0"],
            ["optimizer.frozen"],
        ),
        (
            "decay_coupling",
            [
                "optimizer.decay_coupling: one of 'learning_rate', 'schedule'; default "
                "'learning_rate'",
                "      The factor of weight decay.",
            ],
            ["clip_norm"],
        ),
        (
            "data.text.*",
            [
                "data.text: Conversion of a caption to token ids.",
                "  data.text.start_token: str or None; default '<start>'",
            ],
            [],
        ),
    ],
)
def test_inspect_prints_the_keys_that_match(capsys, pattern, found, absent):
    assert inspect.main(["--keys", pattern]) == 0
    text = capsys.readouterr().out
    assert all(line in text for line in found) and not any(line in text for line in absent)


def test_inspect_prints_all_keys_and_names_a_pattern_without_any(capsys):
    assert inspect.main(["--keys"]) == 0
    text = capsys.readouterr().out
    assert (
        "model.image, kind vgg: " in text
        and "objectives.NAME, kind siglip: " in text
        and "the config itself: " in text
    )
    with pytest.raises(ConfigError, match="--keys: no key matches 'learning_rat_'"):
        inspect.main(["--keys", "learning_rat_"])


def test_a_closed_pipe_ends_a_command_without_a_traceback():
    command = f"{sys.executable} -m vlp_jax.inspect --keys | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.startswith("the config itself") and result.stderr == ""
