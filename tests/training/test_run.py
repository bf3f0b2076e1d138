"""The loop's saves, stops and words about its input, in this process, on small runs."""

import json
import os
import pathlib
import shutil
import signal
import time

import pytest
import webdataset

from vlp_jax import main
from vlp_jax.data.sources.registry import open_source
from vlp_jax.data.sources.synthetic import SyntheticSource
from vlp_jax.errors import CheckpointError, ConfigError, TrainingError
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.shares import Share
from vlp_jax.training import trainer
from vlp_jax.training.hooks.metric_writers import MetricsFile
from vlp_jax.training.hooks.watchdog import Watchdog

ROOT = pathlib.Path(__file__).parents[2]
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"


@pytest.fixture
def train(tmp_path, tiny):
    """`train("steps=3", ...)` trains in a workdir of this test, which must end well."""

    def run(*changes, flags=()):
        arguments = [
            f"--config={ROOT}/configs/clip_emoji.py:smoke",
            f"--workdir={tmp_path}/run",
            *tiny(*changes),
            *flags,
        ]
        assert main.main(arguments) == 0
        return tmp_path / "run"

    return run


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


@pytest.mark.full
def test_the_best_checkpoint_by_a_metric_is_kept_beside_the_newest(train):
    metric = "val/text_to_image_median_rank"
    workdir = train(
        "steps=4",
        "evaluators={'val': {'source': 'embedded:emoji/val_concept', 'every_steps': 1}}",
        "checkpoint.every_steps=1",
        "checkpoint.keep=1",
        "checkpoint.keep_best=1",
        f"checkpoint.best_metric={metric}",
        "checkpoint.best_mode=max",
        "optimizer.learning_rate=0.03",
    )
    values = {row["step"]: row[metric] for row in rows(workdir)}
    assert len(set(values.values())) > 1
    best = max(values.values())
    kept = set(saved(workdir))
    assert 4 in kept
    assert any(values[step] == best for step in kept)
    assert len(kept) <= 2


def test_best_metric_that_no_evaluator_measures_is_refused(train, tmp_path):
    with pytest.raises(ConfigError, match="best_metric.*val/text_to_image_recall@1"):
        train(
            "checkpoint.keep_best=1",
            "checkpoint.best_metric=val/text_to_image_recal@1",
            "evaluators={'val': {}}",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_a_checkpoint_is_due_by_minutes(train):
    assert saved(
        train(
            "steps=3",
            "checkpoint.every_steps=none",
            "checkpoint.every_minutes=0.0",
            "checkpoint.keep=9",
        )
    ) == [1, 2, 3]


@pytest.mark.full
def test_without_either_only_the_last_step_is_saved(train):
    assert saved(
        train("steps=3", "checkpoint.every_steps=none", "checkpoint.every_minutes=600")
    ) == [3]


@pytest.mark.full
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(train):
    with pytest.raises(
        TrainingError, match="at step 2; the last good checkpoint is .*checkpoints/1;"
    ):
        train(
            "steps=5",
            "optimizer.kind=sgd",
            "checkpoint.every_steps=1",
            "optimizer.clip_norm=none",
            "optimizer.weight_decay=0",
            "optimizer.learning_rate=1e30",
        )


@pytest.mark.full
def test_every_row_holds_the_names_that_the_readme_promises(train):
    for row in rows(train("steps=2")):
        assert {
            "step",
            "train/loss",
            "train/examples_per_second",
            "train/data_wait_fraction",
            "train/learning_rate",
            "wall_seconds",
            "cpu_seconds",
        } <= row.keys()
        assert 0 <= row["train/data_wait_fraction"] <= 1


@pytest.mark.full
def test_a_signal_during_an_evaluation_breaks_it_off_and_the_next_start_makes_up_for_it(
    train, tmp_path, monkeypatch
):
    """Seven batches of pictures and captions; the signal comes during the second.

    Everything is watched, and synced.
    """
    expect, sync, batches, awaited, synced = Watchdog.expect, MetricsFile.sync, [], [], []

    def counted(place):
        def placed(*arguments):
            batches.append(1)
            if len(batches) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return place(*arguments)

        return placed

    for kind in (Share, Predictor):  # of images, and of captions
        monkeypatch.setattr(kind, "place", counted(kind.place))
    monkeypatch.setattr(
        Watchdog, "expect", lambda dog, words: (awaited.append(words), expect(dog, words))
    )
    monkeypatch.setattr(MetricsFile, "sync", lambda file: (synced.append(1), sync(file)))
    plan = (
        "steps=2",
        SYNTHETIC,
        "checkpoint.every_steps=none",
        "evaluators={'val': {'source': 'synthetic:25?height=20&width=24', 'batch_size': 8}}",
    )
    with pytest.raises(AssertionError, match="143"):
        train(*plan)
    workdir = tmp_path / "run"
    assert len(batches) == 2 and saved(workdir) == [2] and len(synced) == 1
    before = rows(workdir)
    assert not [key for key in before[-1] if key.startswith("val/")]
    assert awaited == [
        "the start, a checkpoint's restoration included,",
        "step 1, its compilation included,",
        "step 2",
        "saving after step 2",
        *["a batch of the evaluation after step 2"] * 3,
        "step 3",
        "the end of the save after step 2",
    ]
    train(*plan)
    after = rows(workdir)
    assert (
        after[-1].items() >= before[-1].items()
        and 0 <= after[-1]["val/text_to_image_recall@1"] <= 1
    )
    assert len(after) == 2 and len(batches) > 8


# The input


@pytest.mark.full
def test_a_slow_first_batch_names_its_source(train, monkeypatch, capsys):
    read = SyntheticSource.__getitem__

    def slow(source, index):
        time.sleep(0.2)
        return read(source, index)

    monkeypatch.setattr(SyntheticSource, "__getitem__", slow)
    monkeypatch.setattr(trainer, "SLOW_FIRST_BATCH", 0.1)
    train("steps=2", SYNTHETIC)
    assert (
        1 <= capsys.readouterr().err.count("still waiting for the first batch of synthetic:64") <= 5
    )


@pytest.mark.full
def test_a_quick_first_batch_says_nothing(train, capsys):
    train("steps=2", SYNTHETIC)
    assert "waiting" not in capsys.readouterr().err


@pytest.mark.full
def test_a_source_smaller_than_a_batch_goes_on_into_the_next_epoch_with_a_warning(train, capsys):
    workdir = train("steps=2", "data.train.source=synthetic:3?height=20&width=24")
    assert "3 examples an epoch are less than one batch of 8" in capsys.readouterr().out
    assert rows(workdir)[-1]["train/epoch"] == 2 * 8 / 3


@pytest.mark.full
def test_a_mixture_trains_for_epochs_in_its_shares(train):
    """60 + 30 samples, a quarter of them from the first: an epoch holds 22.5 and 67.5, so 23 and
    67."""
    parts = {
        "first": {"source": "synthetic:60?height=20&width=24", "weight": 1.0},
        "second": {"source": "synthetic:30?height=24&width=20", "weight": 3.0},
    }
    last = rows(train("epochs=4", "data.train.source=none", f"data.train.mixture={parts}"))[-1]
    assert last["step"] == 45
    assert (last["train/examples/first"], last["train/examples/second"]) == (4 * 23, 4 * 67)


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed=7", "seed was 0, is 7"),
        ("data.batch_size=16", "data.batch_size was 8, is 16"),
        (
            "data.train.source=embedded:emoji/val_concept",
            "the samples of data.train or their number",
        ),
    ],
)
def test_a_changed_input_is_refused_on_resuming_and_the_change_named(train, change, words):
    before = [
        other for other in ("steps=2", SYNTHETIC) if not change.startswith(other.partition("=")[0])
    ]
    train("steps=2", SYNTHETIC)
    with pytest.raises(CheckpointError, match="was trained on other input") as caught:
        train(*before, change, flags=["--accept-changes"])
    assert words in str(caught.value)
    train("steps=2", SYNTHETIC)  # nothing was taken over from what was refused


@pytest.mark.full
def test_a_run_with_one_percent_of_damaged_samples_ends_with_the_right_counts(
    train, tmp_path, capsys
):
    """300 samples, three of them bad, for two epochs; a stop and a resumption in the middle lose no
    count."""
    source = open_source("synthetic:300?height=20&width=24")
    damaged = {
        7: (source[7].image[:300], "cut off"),
        70: (source[70].image, " "),
        177: (b"GIF89a or so", "no image"),
    }
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as tar:
        for number, sample in enumerate(source):
            image, caption = damaged.get(number, (sample.image, sample.captions[0]))
            tar.write({"__key__": f"s{number}", "jpg": image, "txt": caption})
    workdir = train(
        "epochs=2",
        f"data.train.source=webdataset:{tmp_path}/x.tar",
        "checkpoint.every_steps=40",
        "log_every=25",
    )
    said = capsys.readouterr().out
    expected = {
        "train/bad_examples": 6,
        "train/bad_examples/damaged_image": 4,
        "train/bad_examples/empty_caption": 2,
    }
    assert expected.items() <= rows(workdir)[-1].items()
    assert said.count("bad sample replaced: ") == 2  # the first of each kind
    assert (
        "of 600 examples so far: 6 bad samples replaced (damaged_image 4, empty_caption 2)"
    ) in said
    shutil.rmtree(workdir / "checkpoints/75")
    train(
        "epochs=2",
        f"data.train.source=webdataset:{tmp_path}/x.tar",
        "checkpoint.every_steps=40",
        "log_every=25",
    )
    assert "resumed from step 40" in capsys.readouterr().out
    assert expected.items() <= rows(workdir)[-1].items()


@pytest.mark.full
def test_an_accepted_change_is_written_down_and_goes_on(train):
    train("steps=2", SYNTHETIC)
    workdir = train("steps=3", SYNTHETIC, flags=["--accept-changes"])
    assert [row["step"] for row in rows(workdir)] == [1, 2, 3]
    assert json.loads((workdir / "config.json").read_text())["steps"] == 3
