"""Checkpoints in buckets: when they count, what a killed save leaves, and damage."""

import json
import os
import pathlib
import re

import jax
import numpy as np
import public_checkpoints
import pytest
from safetensors.numpy import load, load_file

import vlp_jax
from vlp_jax import convert, main
from vlp_jax.errors import PASSING, CheckpointError, ConfigError, StorageError
from vlp_jax.storage import bucket, files, orbax_buckets
from vlp_jax.training.checkpoints import read_errors
from vlp_jax.training.checkpoints.format import checkpoint_folder, finished_steps, names_in

ROOT = pathlib.Path(__file__).parents[2]
PLAN = (
    "data.train.source=synthetic:64?height=20&width=24&caption_words=3",
    "mesh.data=1",
    "checkpoint.every_steps=2",
    "checkpoint.keep=2",
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(read_errors, "PAUSES", ())


@pytest.fixture
def train(tiny):
    def run(workdir, *changes):
        arguments = [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={workdir}"]
        assert main.main([*arguments, "--accept-changes", *tiny(*PLAN, *changes)]) == 0

    return run


@pytest.fixture(scope="module")
def local(tmp_path_factory, tiny):
    """A run of six steps in a folder."""
    workdir = tmp_path_factory.mktemp("local") / "run"
    arguments = [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={workdir}"]
    assert main.main([*arguments, *tiny(*PLAN, "steps=6")]) == 0
    return str(workdir)


def rows(workdir):
    text = files.read_text(f"{workdir}/metrics.jsonl")
    return [(row["step"], row["train/loss"]) for row in map(json.loads, text.splitlines())]


def saved(workdir):
    return finished_steps(checkpoint_folder(workdir))


@pytest.mark.full
def test_a_run_in_a_bucket_has_the_numbers_of_one_in_a_folder(train, folder, local):
    train(folder, "steps=6")
    assert rows(folder) == rows(local)
    assert saved(folder) == saved(local) == [4, 6]
    assert files.read_text(f"{folder}/newest_checkpoint") == "6\n"
    assert any("tfevents" in key for key in bucket.keys_below(f"{folder}/tensorboard"))
    ours, theirs = vlp_jax.load(local)[1], vlp_jax.load(folder)[1]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    with pytest.raises(CheckpointError, match="no checkpoint of step 3; there are 4, 6"):
        vlp_jax.load(folder, step=3)


@pytest.mark.full
@pytest.mark.variants
def test_a_save_without_its_last_object_does_not_count_and_is_cleaned(train, folder, local, capsys):
    train(folder, "steps=4")
    bucket.delete(f"{folder}/checkpoints/4/commit_success.txt")
    half = [key for key in bucket.keys_below(f"{folder}/checkpoints") if key.startswith("4/")]
    assert half
    bucket.write(f"{folder}/checkpoints/4/left", b"by the save that was killed")
    assert saved(folder) == [2]
    train(folder, "steps=6")
    said = capsys.readouterr().out
    assert "resumed from step 2" in said
    assert "checkpoint 4 was saved" in said  # by newest_checkpoint, as nobody kills a finished save
    assert rows(folder) == rows(local)
    assert saved(folder) == [4, 6]
    assert not bucket.is_object(f"{folder}/checkpoints/4/left")


@pytest.mark.full
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(train, folder, local, capsys):
    train(folder, "steps=4")
    place = f"{folder}/checkpoints/4/params"
    largest = max(
        (key for key in bucket.keys_below(place) if "/d/" in f"/{key}"),
        key=lambda key: len(bucket.read(f"{place}/{key}")),
    )
    data = bytearray(bucket.read(f"{place}/{largest}"))
    data[len(data) // 2] ^= 8
    bucket.write(f"{place}/{largest}", bytes(data))
    train(folder, "steps=6")
    said = capsys.readouterr().out
    assert "checkpoint 4 is damaged (params" in said
    assert f"checkpoint 4 was moved to {folder}/damaged_checkpoints/4" in said
    assert bucket.is_object(f"{folder}/damaged_checkpoints/4/commit_success.txt")
    assert rows(folder) == rows(local)


@pytest.mark.full
def test_checkpoints_may_be_copied_from_a_folder_to_a_bucket_and_back(
    train, folder, local, tmp_path
):
    files.upload_folder(local, folder)
    train(folder, "steps=8")
    for key in bucket.keys_below(folder):
        path = tmp_path / "back" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.read(f"{folder}/{key}"))
    train(f"{tmp_path}/back", "steps=10")
    assert [step for step, _ in rows(f"{tmp_path}/back")] == list(range(1, 11))
    assert rows(f"{tmp_path}/back")[:6] == rows(local)


@pytest.mark.full
def test_a_run_begins_from_one_in_a_bucket(train, folder, local, tmp_path):
    files.upload_folder(local, f"{folder}/other")
    for name, place in (("a", local), ("b", f"{folder}/other")):
        train(f"{tmp_path}/{name}", "steps=2", f"pretrained={{'all': {{'workdir': '{place}'}}}}")
    assert rows(f"{tmp_path}/a") == rows(f"{tmp_path}/b")


def test_a_lost_checkpoint_a_fresh_start_and_another_config_are_noticed(folder, tiny):
    arguments = [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={folder}"]
    bucket.write(f"{folder}/newest_checkpoint", b"4\n")
    with pytest.raises(CheckpointError, match=f"holds no checkpoint, but {folder}/newest_check"):
        main.main([*arguments, *tiny(*PLAN, "steps=2")])
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        main.main([*arguments, *tiny(*PLAN, "steps=2", "seed=1")])
    bucket.write(f"{folder}/metrics.jsonl/x", b"")
    with pytest.raises(ConfigError, match=f"{folder}/metrics.jsonl is no file"):
        main.main([*arguments, *tiny(*PLAN, "steps=2")])


def test_storage_that_does_not_answer_on_reading_proves_no_damage(
    folder, local, faults, few_retries
):
    files.upload_folder(local, folder)
    # the arrays themselves, which TensorStore reads; gcsfs repeats its own requests for a minute
    arrays = re.compile("/ema/.*(manifest|/d/)")
    faults.at = lambda method, key: setattr(faults, "status", 503 if arrays.search(key) else None)
    with pytest.raises(StorageError, match="ema cannot be read, which proves no damage") as it:
        vlp_jax.load(folder)
    assert it.value.status == PASSING
    assert names_in(f"{folder}/checkpoints") == ["4", "6"]


@pytest.mark.full
@pytest.mark.parametrize(
    "failing", ["params/.*(manifest|/d/)", pytest.param("_CHECKPOINT", marks=pytest.mark.full)]
)
def test_storage_that_does_not_answer_during_a_save_is_named_and_its_save_does_not_count(
    folder, faults, few_retries, tiny, failing
):
    """In a request of TensorStore, and in one of gcsfs, which is repeated for half a minute."""

    def at(method, key):
        hit = method == "POST" and re.search(f"checkpoints/4/.*{failing}", key)
        faults.status = 503 if hit else None

    faults.at = at
    arguments = [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={folder}"]
    with pytest.raises(StorageError, match="storage does not answer") as it:
        main.main([*arguments, *tiny(*PLAN, "steps=6")])
    assert it.value.status == PASSING
    assert f"{folder}/checkpoints" in str(it.value)
    faults.at, faults.status = lambda method, key: None, None
    assert saved(folder) == [2]


def test_the_functions_of_orbax_that_are_replaced_are_there(monkeypatch):
    from orbax.checkpoint._src.path import gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils

    for name in ("_GCS_PATH_PREFIX", "is_hierarchical_namespace_enabled", "get_kvstore_for_gcs"):
        assert hasattr(gcs_utils, name)
    for name in ("_use_gcs_driver", "_normalize_path"):
        assert hasattr(tensorstore_utils, name)
    orbax_buckets.patch_orbax()
    monkeypatch.setitem(os.environ, "AWS_REGION", "there")
    for scheme, driver in (("gs", "gcs"), ("s3", "s3")):
        spec = tensorstore_utils.build_kvstore_tspec(f"{scheme}://bucket/run/3/params", "a/b")
        assert (spec["base"]["driver"], spec["base"]["bucket"]) == (driver, "bucket")
        assert spec["base"]["path"].rstrip("/") == "run/3/params"
    assert spec["base"]["aws_region"] == "there"
    local = tensorstore_utils.build_kvstore_tspec("/run/3/params", "a/b")
    assert local["base"]["driver"] == "file"


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"needs the package gcsfs: pip install 'vlp_jax\[gcs\]'"):
        orbax_buckets.prepare("gs://bucket/run")
    orbax_buckets.prepare("/a/folder")


@pytest.mark.full
@pytest.mark.variants
def test_a_model_is_converted_to_a_bucket_and_from_it(folder, tmp_path):
    small = public_checkpoints.openclip(
        width=32, depth=1, head_width=16, image=32, text_width=32, text_depth=1, text_heads=2
    )
    public = small.write(tmp_path / "public", np.random.default_rng(0))
    calls = [
        (public, f"{folder}/workdir"),
        (f"{folder}/workdir", f"openclip:{folder}/back"),
        (f"{folder}/workdir", f"openclip:{tmp_path}/back"),
    ]
    for origin, to in calls:
        assert convert.main([f"--from={origin}", f"--to={to}"]) == 0
    with pytest.raises(ConfigError, match=f"--to: {folder}/workdir exists"):
        convert.main([f"--from={public}", f"--to={folder}/workdir"])
    name = "open_clip_model.safetensors"
    there = bucket.read(f"{folder}/back/{name}")
    assert there == (tmp_path / "back" / name).read_bytes()
    ours, given = load(there), load_file(tmp_path / "public" / name)
    assert ours.keys() == given.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(ours[key], value)
