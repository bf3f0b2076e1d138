"""Results under the names of CLIP_benchmark 1.6.2, as its `cli.py` and metrics write them."""

import pytest

from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.clip_benchmark import NAMES, check_known, clip_benchmark_results
from vlp_jax.evaluators.task import TaskConfig


def test_each_task_is_an_object_with_the_keys_and_metrics_of_clip_benchmark():
    results = {"zero_shot_accuracy": 0.5, "zero_shot_top_5": 0.75, "text_to_image_recall@5": 0.25}
    found = clip_benchmark_results(
        results | {"image_to_text_recall@5": 0.3, "zero_shot_mean_per_class_recall": 0.4},
        ("zero_shot", "retrieval"),
        dataset="embedded:emoji/val_vendor",
        model="clip_emoji",
        pretrained="runs/clip_emoji",
    )
    shared = dict(
        dataset="embedded:emoji/val_vendor",
        model="clip_emoji",
        pretrained="runs/clip_emoji",
        language="en",
    )
    classification = {"acc1": 0.5, "acc5": 0.75, "mean_per_class_recall": 0.4}
    retrieval = {"image_retrieval_recall@5": 0.25, "text_retrieval_recall@5": 0.3}
    assert found == [
        {**shared, "task": "zeroshot_classification", "metrics": classification},
        {**shared, "task": "zeroshot_retrieval", "metrics": retrieval},
    ]


def test_the_metrics_exist_and_other_tasks_are_refused():
    config = load_config("configs/clip_emoji.py")
    for kind, (_, metrics) in NAMES.items():
        own = {*TaskConfig.of(kind).metric_names(config)}
        assert {*metrics} & own
    with pytest.raises(ConfigError, match="--format: CLIP_benchmark has no task like 'knn'"):
        check_known(("retrieval", "knn"), "--format")
