"""Checkpoints by their names on the Hugging Face hub; a stand-in delivers them."""

import os

import pytest

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.formats.hub import local_folder

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`hub(cached=(file, ...), there=(file, ...))`: what the cache has, and what a download adds;
    the calls are in `hub.calls`."""
    calls = []

    def prepare(*, cached=(), there=()):
        def download(name, revision=None, allow_patterns=(), local_files_only=False, **options):
            calls.append((name, revision, local_files_only))
            if local_files_only and not cached:
                raise OSError("not cached")
            for file in cached if local_files_only else (*cached, *there):
                assert any(file.endswith(pattern.lstrip("*")) for pattern in allow_patterns)
                (tmp_path / file).write_text("")
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    prepare.calls = calls
    return prepare


def test_a_cached_copy_with_weights_is_taken_without_asking(hub, tmp_path):
    hub(cached=("config.json", "model.safetensors"))
    assert local_folder("owner/name") == str(tmp_path)
    assert hub.calls == [("owner/name", None, True)]


@pytest.mark.parametrize("cached", [(), ("tokenizer.json",)])
def test_a_copy_of_the_tokenizer_alone_is_completed(hub, tmp_path, cached):
    hub(cached=cached, there=("config.json", "model.safetensors"))
    assert "model.safetensors" in os.listdir(local_folder("owner/name"))
    assert hub.calls[1:] == [("owner/name", None, False)]


def test_a_revision_is_passed_on(hub):
    hub(there=("model.safetensors",))
    local_folder("owner/name@refs/pr/21")
    assert {call[:2] for call in hub.calls} == {("owner/name", "refs/pr/21")}


@pytest.mark.parametrize("place", ["owner/name", "owner/name@v1"])
def test_a_repository_with_pickles_alone_is_refused_with_a_way_out(hub, place):
    hub(there=("config.json",))
    with pytest.raises(CheckpointError, match=f"{place}: .* owner/name@refs/pr/NUMBER"):
        local_folder(place)


def test_what_is_neither_a_folder_nor_a_name_is_one_line(hub):
    with pytest.raises(CheckpointError, match="a/b/c: is no folder, and not OWNER/NAME"):
        local_folder("a/b/c")
