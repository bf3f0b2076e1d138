"""Tasks of evaluators: how a config names them, and what they have to do with one another."""

import types

import pytest

from vlp_jax.config import load_config, to_config, to_tree
from vlp_jax.config.recipes import base
from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.captioning import CaptionsTaskConfig
from vlp_jax.evaluators.classification import ClassificationTaskConfig
from vlp_jax.evaluators.config import EvaluatorConfig, metric_names
from vlp_jax.evaluators.retrieval import RetrievalTaskConfig
from vlp_jax.evaluators.suite import evaluate_set
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig

BOTH = {"retrieval": RetrievalTaskConfig(), "zero_shot": ZeroShotTaskConfig()}


def evaluator(tasks=None, overrides=()):
    """That of a config of clip_emoji with these tasks."""
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.evaluators = dict(val={} if tasks is None else dict(tasks=tasks))
    if not overrides:
        return to_config(config.to_dict()).evaluators["val"]
    changes = [(f"evaluators.val_vendor.{key}", text) for key, text in overrides]
    return load_config("configs/clip_emoji.py", changes).evaluators["val_vendor"]


def test_retrieval_is_measured_by_default():
    assert evaluator().tasks == EvaluatorConfig().tasks == {"retrieval": RetrievalTaskConfig()}


@pytest.mark.parametrize(
    "tasks",
    [
        ("retrieval", "zero_shot"),
        dict(retrieval={}, zero_shot={}),
        dict(retrieval=dict(kind="retrieval"), zero_shot=ZeroShotTaskConfig()),
    ],
)
def test_a_task_is_of_the_kind_of_its_name_and_a_sequence_of_kinds_has_their_defaults(tasks):
    assert evaluator(tasks).tasks == EvaluatorConfig(tasks=tasks).tasks == BOTH
    assert (
        to_config(
            dict(
                steps=1,
                objectives=dict(a=dict(kind="clip")),
                evaluators=dict(val=to_tree(EvaluatorConfig(tasks=tasks))),
            )
        )
        .evaluators["val"]
        .tasks
        == BOTH
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([("tasks", "retrieval,zero_shot")], BOTH),
        ([("tasks", "zero_shot")], {"zero_shot": ZeroShotTaskConfig()}),
        ([("tasks", "('retrieval', 'zero_shot')")], BOTH),
        ([("tasks", "{'zero_shot': {}, 'retrieval': {}}")], BOTH),
        (
            [("tasks", "retrieval"), ("tasks.zero_shot.templates", "imagenet")],
            {
                "retrieval": RetrievalTaskConfig(),
                "zero_shot": ZeroShotTaskConfig(templates=("imagenet",)),
            },
        ),
        (
            [("tasks.zero_shot", "none"), ("tasks.retrieval.merge_equal_captions", "true")],
            {"retrieval": RetrievalTaskConfig(merge_equal_captions=True)},
        ),
        (
            [("tasks", "zero_shot"), ("tasks.prompts", "{'kind': 'retrieval'}")],
            {"zero_shot": ZeroShotTaskConfig(), "prompts": RetrievalTaskConfig()},
        ),
    ],
)
def test_tasks_may_be_named_on_the_command_line(overrides, expected):
    assert evaluator(overrides=overrides).tasks == expected


def test_a_key_below_a_sequence_of_kinds_in_a_file_is_one_of_the_task():
    config = load_config(
        "configs/coca_b16.py:smoke", [("evaluators.val_vendor.tasks.captions.num_beams", "3")]
    )
    expected = {"retrieval": RetrievalTaskConfig(), "captions": CaptionsTaskConfig(num_beams=3)}
    assert config.evaluators["val_vendor"].tasks == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            [("tasks", "retrieval,zeroshot")],
            "evaluators.val_vendor.tasks: must be one of 'retrieval', .*did you mean 'zero_shot'",
        ),
        (
            [("tasks.prompts.templates", "a {}")],
            "evaluators.val_vendor.tasks.prompts: expected a section with a key 'kind'",
        ),
        (
            [("tasks.retrieval.templates", "a {}")],
            "tasks.retrieval.templates: is for kind='zero_shot'.*, not for 'retrieval'",
        ),
        (
            [("tasks.again.kind", "zero_shot")],
            "evaluators.val_vendor.tasks: 2 are of kind 'zero_shot', whose metrics have the same",
        ),
        (
            [("tasks.matching.kind", "matching")],
            "evaluators.val_vendor.tasks: 'matching' needs an objective of kind 'matching'",
        ),
        *(
            (
                [(key, "3")],
                rf"evaluators.val_vendor.{key}: unknown key .did you mean "
                rf"'evaluators.val_vendor.tasks.{meant}'",
            )
            for key, meant in (
                ("templates", "zero_shot.templates"),
                ("class_field", "zero_shot.class_field"),
                ("by", "classification.by"),
                ("prompts", "zero_shot.templates"),
                ("beam_size", "captions.num_beams"),
                ("objective", "classification.objective"),
                ("merge_equal_captions", "retrieval.merge_equal_captions"),
            )
        ),
    ],
)
def test_mistaken_tasks_and_settings_are_named_with_the_way_out(overrides, words):
    with pytest.raises(ConfigError, match=words):
        evaluator(overrides=overrides)


@pytest.mark.parametrize("kind", TaskConfig.kinds)
def test_every_task_can_be_built_in_python_with_the_defaults_of_a_config(kind):
    task = TaskConfig.of(kind)
    assert task.kind == kind and TaskConfig.kinds[kind]() == task
    assert EvaluatorConfig(tasks=(kind,)).tasks == {kind: task}
    assert not [*task.problems(str, load_config("configs/clip_emoji.py"))]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: ZeroShotTaskConfig(captions_per_class=-1),
            "captions_per_class: must be at least 0",
        ),
        (lambda: CaptionsTaskConfig(num_beams=0), "num_beams: must be at least 1"),
        (lambda: CaptionsTaskConfig(early_stopping="ever"), "early_stopping: must be one of"),
        (lambda: ClassificationTaskConfig(by=3), "by: expected text"),
        (lambda: EvaluatorConfig(tasks=("recall",)), "tasks: must be one of"),
    ],
)
def test_values_are_checked_by_the_constructor(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


def test_metrics_are_named_by_the_evaluator_and_its_tasks():
    config = load_config("configs/coca_b16.py:smoke")
    names = metric_names(config.evaluators, config)
    assert {
        "val_vendor/text_to_image_recall@1",
        "val_vendor/caption_loss",
        "val_vendor/bad_examples",
    } < {*names}
    assert metric_names({"x": EvaluatorConfig(tasks=("captions",))}, config) == [
        "x/caption_loss",
        "x/bad_examples",
    ]


OWN_TASK = """
import dataclasses
from vlp_jax.evaluators.task import TaskConfig

@dataclasses.dataclass(frozen=True, kw_only=True)
class Norms(TaskConfig):
    scale: float = 1.0

    def lacks(self, experiment):
        return None

    def metric_names(self, experiment):
        return ("mean_norm",)

    def run(self, context):
        return {"mean_norm": self.scale * sum(context.images) / len(context.images)}
"""


def test_a_task_may_be_a_class_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = evaluator(overrides=[("tasks", "{'norms': {'kind': 'own_task:Norms', 'scale': 2.0}}")])
    assert spec.tasks["norms"].kind == "own_task:Norms" and metric_names({"a": spec}, None) == [
        "a/mean_norm",
        "a/bad_examples",
    ]
    context = types.SimpleNamespace(images=[1.0, 2.0], data=None)
    assert evaluate_set(spec, context) == {"mean_norm": 3.0}
