"""What an evaluator may measure of a config."""

import pathlib

import pytest

from vlp_jax.config import load_config, load_stages
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.config import metric_names
from vlp_jax.evaluators.task import TaskConfig

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PROBES = {"linear_probe", "knn", "few_shot"}
EMBEDDINGS = {"retrieval", "zero_shot", "composition", "embedding_geometry", *PROBES}
POSSIBLE = {
    "clip_emoji": {*EMBEDDINGS, "segmentation", "grounding"},
    "albef": {*EMBEDDINGS, "matching", "rerank", "segmentation", "grounding"},
    "vilt": {"matching"},
    "coca_b16": {*EMBEDDINGS, "captions", "perplexity"},
    "vit_gpt2": {"captions", "perplexity"},
    "mae_b16": set(),
    "vqa_fusion": {"classification"},
    "vqa_generative": {"classification", "answers"},
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_a_task_for_which_nothing_is_trained_is_a_config_error_naming_the_possible_ones(name):
    config = load_config(f"{CONFIGS}/{name}.py:smoke")
    for kind, task in TaskConfig.kinds.items():
        messages = [*task().validate(f"evaluators.val.tasks.{kind}", config)]
        if kind in POSSIBLE[name]:
            assert not messages
            continue
        assert len(messages) == 1 and messages[0].startswith(
            f"evaluators.val.tasks: '{kind}' needs "
        )
        assert all(
            possible in messages[0].split("possible:")[1]
            for possible in POSSIBLE[name] or {"no task"}
        )


def test_embeddings_of_mixed_pictures_are_trained():
    config = load_config(
        f"{CONFIGS}/clip_emoji.py:smoke", [("objectives.contrastive.mixup", "0.2")]
    )
    assert config.evaluators["val_vendor"].tasks.keys() == {"retrieval", "zero_shot"}


def test_similar_negatives_need_embeddings_that_are_trained_and_do_not_train_them():
    with pytest.raises(ConfigError, match="objectives.matching.negatives: .*negatives='uniform'"):
        load_config(f"{CONFIGS}/vilt.py:smoke", [("objectives.matching.negatives", "similar")])
    with pytest.raises(ConfigError, match="evaluators.val_vendor.tasks: 'retrieval' needs"):
        load_config(f"{CONFIGS}/vilt.py:smoke", [("evaluators.val_vendor.tasks", "retrieval")])
    load_config(f"{CONFIGS}/albef.py:smoke")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("multimodal_classification:full", True),
        ("multimodal_classification:smoke", True),
        ("multimodal_classification:small", False),
        ("vqa_fusion:full", False),
        ("vqa_generative:full", False),
    ],
)
def test_how_well_labels_are_told_is_measured_where_a_sample_has_several(name, labels):
    file, _, variant = name.partition(":")
    config = load_config(f"{CONFIGS}/{file}.py:{variant}")
    names = metric_names(config.evaluators, config)
    told = {"f1_micro", "average_precision"}
    assert {name.rpartition("classification_")[2] for name in names} & told == (
        told if labels else set()
    )


def test_the_best_checkpoints_may_be_kept_by_labels_only_where_there_are_some():
    overrides = [
        ("checkpoint.best_metric", "val_vendor/classification_average_precision"),
        ("checkpoint.keep_best", "1"),
    ]
    load_config(f"{CONFIGS}/multimodal_classification.py:smoke", overrides)
    with pytest.raises(
        ConfigError,
        match="classification_average_precision' is not measured by the config's evaluators",
    ):
        load_config(f"{CONFIGS}/multimodal_classification.py:small", overrides)
    with pytest.raises(
        ConfigError,
        match="checkpoint.best_metric: None is not measured .*they "
        "measure val_vendor/answers_samples",
    ):
        load_config(f"{CONFIGS}/vqa_generative.py:smoke", [("checkpoint.keep_best", "1")])
    for metric in ("samples", "exact_match"):
        best = [
            ("checkpoint.keep_best", "1"),
            ("checkpoint.best_metric", f"val_vendor/answers_{metric}"),
        ]
        load_config(f"{CONFIGS}/vqa_generative.py:smoke", best)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.py")))
def test_every_config_evaluates_only_what_it_trains(name):
    """That is checked with each config."""
    for variant in ("full", "smoke", "small"):
        try:
            load_stages(f"{CONFIGS}/{name}.py:{variant}")
        except ConfigError as error:
            assert variant == "small" and "unknown variant" in str(error)
