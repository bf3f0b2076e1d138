"""What a run in a bucket writes besides its checkpoints and rows."""

import jax
import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.storage import bucket
from vlp_jax.storage.newest import main as print_newest
from vlp_jax.training.hooks import watchdog
from vlp_jax.training.hooks.hook import Update
from vlp_jax.training.hooks.metric_writers import write_texts
from vlp_jax.training.hooks.profiler import ProfileConfig, ProfilerWindow
from vlp_jax.training.hooks.watchdog import Watchdog, WatchdogConfig
from vlp_jax.training.writers.base import RunFacts, kept_identifier, open_writer
from vlp_jax.training.writers.mlflow_tracking import MlflowConfig


def test_a_hang_is_reported_to_the_bucket(folder, capsys):
    hook = Watchdog(WatchdogConfig(seconds=1.0), folder)
    line = hook.report()
    place = f"{folder}/hang_step_1_host_0.txt"
    assert line.endswith(f"it lies in {place}")
    text = bucket.read(place).decode()
    assert "has taken more than 1 s" in text
    assert "test_hooks.py" in text  # the stack
    capsys.readouterr()


def test_a_bucket_that_hangs_itself_does_not_hold_up_the_report(
    folder, faults, few_retries, capfd, monkeypatch
):
    monkeypatch.setattr(watchdog, "UPLOAD_SECONDS", 0.1)
    faults.status = 503
    Watchdog(WatchdogConfig(seconds=1.0), folder).report()
    assert f"storage error: {folder}/hang_step_1_host_0.txt: its" in capfd.readouterr().err


def test_a_profile_is_uploaded_at_its_end(folder):
    window = ProfilerWindow(ProfileConfig(start=1, steps=1), folder)
    window.before(1)
    value = jax.numpy.ones(3) + 1
    window.after(Update(1, {}, {"loss": value}, 0.0, 0.0))
    assert any(key.endswith(".xplane.pb") for key in bucket.keys_below(f"{folder}/profile"))


def test_texts_of_evaluations_are_objects(folder):
    write_texts(folder, 7, {"val/captions": "a cat\n", "val/answers.json": "{}"})
    assert bucket.read(f"{folder}/captions/val-000007.txt") == b"a cat\n"
    assert bucket.keys_below(folder) == ["answers/val-000007.json", "captions/val-000007.txt"]


def test_a_database_of_mlflow_is_refused_in_a_bucket(tmp_path):
    facts = RunFacts("mine", str(tmp_path), 0, {}, uploaded=True)
    with pytest.raises(ConfigError, match="writers.mine.tracking_uri: a database cannot be in a"):
        open_writer(MlflowConfig(), facts)


def test_an_identifier_of_a_service_is_kept_in_the_folder_that_is_uploaded(tmp_path):
    facts = RunFacts("mine", str(tmp_path), 0, {}, uploaded=True)
    assert kept_identifier(facts, "wandb", lambda: "abc") == "abc"
    assert kept_identifier(facts, "wandb", lambda: "another") == "abc"


def test_launchers_are_told_the_step_of_the_newest_finished_checkpoint(
    folder, served, capsys, few_retries
):
    assert print_newest([folder]) == 0
    assert capsys.readouterr().out == "-1\n"
    for key in ("4/commit_success.txt", "12/commit_success.txt", "20/params/d"):
        bucket.write(f"{folder}/checkpoints/{key}", b"")
    assert print_newest([folder]) == 0
    assert capsys.readouterr().out == "12\n"
    if served[1]:
        served[1].status = 503
        assert print_newest([folder]) == 75
        served[1].status = None
        assert "does not answer" in capsys.readouterr().err
