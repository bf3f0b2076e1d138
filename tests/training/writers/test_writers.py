"""Metric writers: what TensorBoard, Weights & Biases and MLflow hold afterwards, read by their own
means; errors of a service."""

import dataclasses
import math
import os
import pathlib
import sys

import pytest

from vlp_jax.config import load_config
from vlp_jax.errors import CheckpointError, ConfigError
from vlp_jax.training.writers.base import (
    Forgiving,
    MetricWriter,
    RunFacts,
    WriterConfig,
    kept_identifier,
    open_writer,
)

ROOT = pathlib.Path(__file__).parents[3]
ROWS = [
    {
        "step": step,
        "train/loss": 1.0 / step,
        "val/text_to_image_recall@1": 0.25,
        "train/skipped": math.nan,
    }
    for step in (1, 2)
]
TEXTS = {"val/captions": "1. a <smiling> face\n"}


def written(workdir, kind, **fields):
    """A run of two rows and a text, resumed for a third row."""
    spec = WriterConfig.of(kind, **fields)
    for resumed, rows in ((0, ROWS), (2, [{"step": 3, "train/loss": 0.2}])):
        writer = spec.open(
            RunFacts(kind, str(workdir), resumed, {"seed": 7, "data": {"batch_size": 64}})
        )
        for row in rows:
            writer.write(row)
        if not resumed:
            writer.write_texts(2, TEXTS)
        writer.close()


def test_tensorboard_has_the_numbers_and_texts(tmp_path):
    written(tmp_path, "tensorboard", folder="events")
    events = b"".join(path.read_bytes() for path in sorted((tmp_path / "events").iterdir()))
    assert (
        events.count(b"train/loss") == 3
        and b"val/text_to_image_recall_1" in events
        and b"a <smiling> face" in events
    )


@pytest.mark.full
def test_a_run_of_weights_and_biases_is_one_run_with_the_config_and_all_rows(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    written(tmp_path, "wandb", mode="offline", project="tests", tags=["one"])
    identifier = (tmp_path / "wandb_wandb.txt").read_text().strip()
    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{identifier}.wandb"))
    assert len(files) == 2  # each session's part of the same run, which `wandb sync` joins
    first, second = (file.read_bytes() for file in files)
    assert b"batch_size" in first and first.count(b"train/loss") >= 2 and b"train/loss" in second
    assert any("a &lt;smiling&gt; face" in page.read_text() for page in tmp_path.rglob("*.html"))


@pytest.mark.full
def test_a_run_of_mlflow_has_the_config_and_all_rows(tmp_path):
    tracking = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    written(tmp_path, "mlflow", experiment="tests")
    client = tracking.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    run = client.get_run((tmp_path / "mlflow_mlflow.txt").read_text().strip())
    assert run.data.params["data.batch_size"] == "64" and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 0.2)]
    assert (
        run.data.metrics["val/text_to_image_recall-1"] == 0.25
        and "train/skipped" not in run.data.metrics
    )
    assert [path.read_text() for path in tmp_path.rglob("captions-000002.txt")] == list(
        TEXTS.values()
    )


@pytest.mark.parametrize(("kind", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_missing_package_is_one_message(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError,
        match=rf"writers.mine: needs the package {package}: pip "
        rf"install 'vlp_jax\[{kind}\]'",
    ):
        WriterConfig.of(kind).check("writers.mine")


class Broken(MetricWriter):
    """A service that is down."""

    def __init__(self):
        self.tries = 0

    def write(self, row):
        self.tries += 1
        raise TimeoutError("no answer")


def test_a_service_that_fails_is_reported_once_and_ends_no_run(capsys):
    broken = Broken()
    writer = Forgiving(broken, "far")
    for row in ROWS:
        writer.write(row)
    writer.close()
    assert broken.tries == 2
    assert capsys.readouterr().out == (
        "warning: writers.far: TimeoutError: no answer; metrics.jsonl has all rows\n"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refuses(WriterConfig):
    """A writer that cannot be opened."""

    def open(self, run):
        raise TimeoutError("no answer")


def test_a_writer_that_cannot_be_opened_stops_a_fresh_run_and_not_a_resumed_one(tmp_path, capsys):
    with pytest.raises(
        ConfigError,
        match="writers.far: cannot be opened: TimeoutError: no answer; leave it out with --config.",
    ):
        open_writer(Refuses(), RunFacts("far", str(tmp_path), 0, {}))
    open_writer(Refuses(), RunFacts("far", str(tmp_path), 7, {})).write(ROWS[0])
    said = capsys.readouterr().out
    assert said == (
        "warning: writers.far: cannot be opened: TimeoutError: no answer; "
        "metrics.jsonl has all rows\n"
    )


def test_a_workdir_that_cannot_be_written_is_refused_as_such_also_on_resuming(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    for step in (0, 7):
        with pytest.raises(NotADirectoryError):
            open_writer(
                WriterConfig.of("tensorboard", folder="tensorboard/inside"),
                RunFacts("board", str(tmp_path), step, {}),
            )


def test_a_full_disk_under_the_workdir_is_no_service(tmp_path):
    class Full(MetricWriter):
        def write(self, row):
            raise CheckpointError("disk full")

    with pytest.raises(CheckpointError):
        Forgiving(Full(), "board").write(ROWS[0])


def test_a_resumed_run_keeps_its_identifier(tmp_path):
    facts, fresh = RunFacts("a", str(tmp_path), 0, {}), iter("xyz")
    assert [kept_identifier(facts, "here", lambda: next(fresh)) for _ in range(2)] == ["x", "x"]
    assert kept_identifier(facts, "there", lambda: next(fresh)) == "y"


def test_writers_are_chosen_in_the_config():
    config = f"{ROOT}/configs/clip_emoji.py"
    assert [spec.kind for spec in load_config(config).writers.values()] == ["tensorboard"]
    assert load_config(config, [("writers.tensorboard", "none")]).writers == {}
    chosen = load_config(
        config, [("writers.mine.kind", "wandb"), ("writers.mine.mode", "offline")]
    ).writers
    assert {name: spec.kind for name, spec in chosen.items()} == {
        "tensorboard": "tensorboard",
        "mine": "wandb",
    }
    with pytest.raises(
        ConfigError, match="writers.mine.kind: must be one of 'tensorboard', 'wandb', 'mlflow'"
    ):
        load_config(config, [("writers.mine.kind", "tensorbord")])
