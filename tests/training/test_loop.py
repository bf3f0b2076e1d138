"""The loop's saves and stops, in this process, on the embedded data."""

import json
import pathlib

import pytest

from vlp_jax import main
from vlp_jax.errors import ConfigError, TrainingError

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [f"--config={ROOT}/configs/clip_emoji.py:smoke", "--config.data.batch_size=8", "--config.log_every=1"]
WITHOUT_EVALUATORS = "--config.evaluators={}"


@pytest.fixture(autouse=True)
def own_compilation_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compilation"))


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_the_best_checkpoint_by_a_metric_is_kept_beside_the_newest(tmp_path):
    metric = "val/text_to_image_median_rank"
    evaluator = "{'val': {'source': 'embedded:emoji/val_concept', 'every_steps': 1}}"
    assert main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.steps=4", f"--config.evaluators={evaluator}",
                      "--config.checkpoint.every_steps=1", "--config.checkpoint.keep=1", "--config.checkpoint.keep_best=1",
                      f"--config.checkpoint.best_metric={metric}", "--config.checkpoint.best_mode=max",
                      "--config.optimizer.rate=0.03"]) == 0
    values = {row["step"]: row[metric] for row in rows(tmp_path / "run")}
    assert len(set(values.values())) > 1
    best = max(values.values())
    kept = set(saved(tmp_path / "run"))
    assert 4 in kept
    assert any(values[step] == best for step in kept)
    assert len(kept) <= 2


def test_best_metric_that_no_evaluator_measures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="best_metric.*val_vendor/text_to_image_recall@1"):
        main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.checkpoint.keep_best=1",
                   "--config.checkpoint.best_metric=val_vendor/text_to_image_recal@1"])
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_due_by_minutes(tmp_path):
    assert main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.steps=3", WITHOUT_EVALUATORS,
                      "--config.checkpoint.every_steps=none", "--config.checkpoint.every_minutes=0.0",
                      "--config.checkpoint.keep=9"]) == 0
    assert saved(tmp_path / "run") == [1, 2, 3]


def test_without_either_only_the_last_step_is_saved(tmp_path):
    assert main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.steps=3", WITHOUT_EVALUATORS,
                      "--config.checkpoint.every_steps=none", "--config.checkpoint.every_minutes=600"]) == 0
    assert saved(tmp_path / "run") == [3]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match="at step 2; the last good checkpoint is .*checkpoints/1;"):
        main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.steps=5", WITHOUT_EVALUATORS, "--config.optimizer.kind=sgd",
                   "--config.checkpoint.every_steps=1", "--config.optimizer.schedule.kind=constant",
                   "--config.optimizer.schedule.warmup=0", "--config.optimizer.clip_norm=none",
                   "--config.optimizer.weight_decay=0", "--config.optimizer.rate=1e38"])


def test_every_row_holds_the_names_that_the_readme_promises(tmp_path):
    assert main.main([*SMALL, f"--workdir={tmp_path}/run", "--config.steps=2", WITHOUT_EVALUATORS]) == 0
    for row in rows(tmp_path / "run"):
        assert {"step", "train/loss", "train/examples_per_second", "train/data_wait_fraction", "train/learning_rate",
                "wall_seconds", "cpu_seconds"} <= row.keys()
        assert 0 <= row["train/data_wait_fraction"] <= 1
