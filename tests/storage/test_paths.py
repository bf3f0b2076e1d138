"""Paths of local folders and of buckets."""

import os
import pathlib

import pytest

from vlp_jax.errors import ConfigError
from vlp_jax.storage.paths import absolute, check_place, is_bucket, name_of, parent, split_url
from vlp_jax.training.checkpoints.format import checkpoint_folder
from vlp_jax.training.checkpoints.workdir import compare_workdir
from vlp_jax.training.initialize_from import folder_of
from vlp_jax.training.pretrained import PretrainedConfig
from vlp_jax.training.restore import find_step


def test_urls_of_buckets_are_kept_and_local_paths_made_absolute():
    assert absolute("gs://bucket//a/b/") == "gs://bucket/a/b"
    assert absolute("s3://bucket/a") == "s3://bucket/a"
    assert absolute("a/../b") == os.path.abspath("b")
    assert parent("gs://bucket/a/b/") == "gs://bucket/a"
    assert name_of("s3://bucket/a/b/") == "b"
    assert split_url("gs://bucket/a//b/") == ("gs", "bucket", "a/b")
    assert is_bucket("gs://b/x")
    assert not is_bucket(pathlib.Path("gs:/b/x"))
    assert checkpoint_folder("gs://bucket/run") == "gs://bucket/run/checkpoints"


def test_a_stage_of_a_run_in_a_bucket_is_next_to_it():
    assert folder_of(PretrainedConfig(stage="first"), "gs://b/run/second") == "gs://b/run/first"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("https://host/x", "gs://BUCKET/PATH, s3://BUCKET/PATH, or a folder"),
        ("az://container/x", "az://container/x is a URL"),
        ("gs://bucket", "expected gs://BUCKET/PATH"),
        ("gs://Bucket/x", "expected gs://BUCKET/PATH"),
        ("s3://b/x", "expected s3://BUCKET/PATH"),
        ("gs://bucket/run*", "a character of patterns"),
        (pathlib.Path("gs://bucket/run"), "gs:/bucket/run is of pathlib"),
    ],
)
def test_other_urls_are_refused_with_what_is_possible(place, message):
    with pytest.raises(ConfigError) as refusal:
        check_place("--workdir", place)
    assert str(refusal.value).startswith("config error: --workdir: ")
    assert message in str(refusal.value)


def test_entry_points_refuse_other_urls():
    with pytest.raises(ConfigError, match="is a URL"):
        find_step("az://container/run", None)
    with pytest.raises(ConfigError, match="is a URL"):
        compare_workdir("https://host/run", None, False)
