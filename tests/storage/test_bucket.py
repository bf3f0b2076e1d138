"""Small files in buckets."""

import json

import pytest

from vlp_jax.errors import PASSING, CheckpointError, ConfigError, StorageError
from vlp_jax.storage import bucket, files
from vlp_jax.storage.spool import Spool
from vlp_jax.training.hooks.metric_writers import MetricsFile, parsed_rows


def test_objects_are_written_whole_read_listed_and_deleted(folder):
    bucket.write(f"{folder}/a.txt", b"one")
    bucket.write(f"{folder}/a.txt", "zwei ä".encode())
    bucket.write(f"{folder}/below/b", b"")
    bucket.write(f"{folder}2/c", b"of a folder with a longer name")
    assert files.read_text(f"{folder}/a.txt") == "zwei ä"
    assert files.read_bytes(f"{folder}/below/b") == b""
    assert bucket.keys_below(folder) == ["a.txt", "below/b"]
    assert files.names_in(folder) == ["a.txt", "below"]
    assert files.is_file(f"{folder}/a.txt")
    assert not files.is_file(f"{folder}/a.tx")
    assert not files.is_file(f"{folder}/below")
    assert files.exists(f"{folder}/below")
    assert not files.exists(f"{folder}/belo")
    files.delete_folder(folder)
    assert bucket.keys_below(folder) == []
    assert bucket.keys_below(f"{folder}2") == ["c"]
    with pytest.raises(FileNotFoundError):
        files.read_text(f"{folder}/a.txt")


def test_a_precondition_holds_back_a_write(folder):
    url = f"{folder}/x"
    first = bucket.write_if(url, b"1", None)
    assert first
    assert bucket.write_if(url, b"2", None) is None
    second = bucket.write_if(url, b"3", first)
    assert second
    assert bucket.write_if(url, b"4", first) is None
    assert bucket.read_with_generation(url) == (b"3", second)
    bucket.delete(url)
    assert bucket.write_if(url, b"5", second) is None


def test_a_folder_is_moved_with_its_commit_last_to_appear_and_first_to_go(folder, served):
    for name in ("params/d", "metadata/metadata", "commit_success.txt"):
        bucket.write(f"{folder}/checkpoints/4/{name}", name.encode())
    if served[1]:
        del served[1].requests[:]
    files.move_folder(f"{folder}/checkpoints/4", f"{folder}/damaged/4")
    moved = ["commit_success.txt", "metadata/metadata", "params/d"]
    assert bucket.keys_below(f"{folder}/damaged/4") == moved
    assert bucket.keys_below(f"{folder}/checkpoints") == []
    if served[1]:
        changes = [line for line in served[1].requests if line.startswith(("POST", "DELETE"))]
        assert changes[2].endswith("damaged/4/commit_success.txt")
        assert changes[3].endswith("checkpoints/4/commit_success.txt")


def test_a_local_folder_is_uploaded_with_its_commit_last(folder, served, tmp_path):
    for name in ("checkpoints/0/commit_success.txt", "checkpoints/0/params/d", "z.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files.upload_folder(str(tmp_path), folder)
    expected = ["checkpoints/0/commit_success.txt", "checkpoints/0/params/d", "z.json"]
    assert bucket.keys_below(folder) == expected
    if served[1]:
        uploads = [line for line in served[1].requests if line.startswith("POST")]
        assert uploads[-1].endswith("checkpoints/0/commit_success.txt")


def test_a_bucket_that_is_not_there_is_named(served):
    place = served[0].replace("a-bucket", "another-bucket") + "/run"
    with pytest.raises(ConfigError, match="another-bucket/run.*: there is no such bucket"):
        bucket.keys_below(place)
        bucket.write(f"{place}/lock", b"")


def test_a_short_outage_is_waited_for(folder, faults, few_retries):
    left = [2]

    def at(method, key):
        faults.status = 503 if left[0] > 0 else None
        left[0] -= 1

    faults.at = at
    bucket.write(f"{folder}/a", b"1")
    left[0] = 2
    assert bucket.read(f"{folder}/a") == b"1"


@pytest.mark.parametrize("status", [503, 429, 0])
def test_a_long_outage_is_one_error_that_a_restart_may_cure(folder, faults, few_retries, status):
    faults.status = status
    for action in (bucket.read, bucket.is_object, bucket.keys_below, bucket.delete):
        with pytest.raises(StorageError, match=f"{folder}.*does not answer") as error:
            action(folder)
        assert error.value.status == PASSING
        assert "\n" not in str(error.value)
        assert "http_response" not in str(error.value)


def test_a_refusal_is_another_error(folder, faults, few_retries):
    faults.status = 403
    with pytest.raises(CheckpointError, match="refuses.*permission") as error:
        bucket.write(f"{folder}/a", b"")
    assert not isinstance(error.value, StorageError)


def test_rows_of_a_bucket_are_read_as_those_of_a_file(folder, tmp_path):
    lines = '{"step": 1}\n{"step": 3}\nnonsense\n{"step": 4'
    (tmp_path / "metrics.jsonl").write_text(lines)
    bucket.write(f"{folder}/metrics.jsonl", lines.encode())
    there = parsed_rows(f"{folder}/metrics.jsonl")
    assert (
        there == parsed_rows(str(tmp_path / "metrics.jsonl")) == ([{"step": 1}, {"step": 3}], [3])
    )
    assert parsed_rows(f"{folder}/absent.jsonl") == ([], [])


def test_a_spool_uploads_what_has_changed_and_a_resumed_run_goes_on_with_it(folder, served):
    bucket.write(f"{folder}/checkpoints/3/x", b"is not fetched")
    first = Spool(folder)
    rows = MetricsFile(f"{first.folder}/metrics.jsonl", keep_up_to=0)
    for step in (1, 2, 3):
        rows.write({"step": step})
        if step == 2:
            first.sync()
    # killed here: row 3 belongs to an update after the last save
    assert [row["step"] for row in parsed_rows(f"{folder}/metrics.jsonl")[0]] == [1, 2]
    second = Spool(folder)
    assert not (second.folder and files.exists(f"{second.folder}/checkpoints"))
    rows = MetricsFile(f"{second.folder}/metrics.jsonl", keep_up_to=1)
    rows.write({"step": 2, "again": True})
    rows.close()
    before = len(served[1].requests) if served[1] else 0
    second.sync()
    second.sync()
    if served[1]:
        assert len(served[1].requests) == before + 1
    second.close()
    text = bucket.read(f"{folder}/metrics.jsonl").decode()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 1},
        {"step": 2, "again": True},
    ]
    assert not files.exists(second.folder)
    first.close(upload=False)
