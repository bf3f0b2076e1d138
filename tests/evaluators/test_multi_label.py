"""Zero-shot classification of images with several classes: CLIP_benchmark's rule, written again."""

import types

import numpy as np
import pytest

from vlp_jax.data.samples import Sample
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.multi_label import MULTI_LABEL_METRICS, multi_label, several_classes
from vlp_jax.evaluators.prompts import Classes
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig


def clip_benchmarks_rule(scores, truth):
    """The mean of `average_precision_per_class` in CLIP_benchmark's zeroshot_classification.py."""
    each = []
    for own, true in zip(scores.T, truth.T, strict=True):
        ordered = true[np.argsort(-own)]
        precision = ordered.cumsum() / np.arange(1, len(own) + 1)
        each.append(precision[ordered].sum() / max(ordered.sum(), 1))
    return np.mean(each)


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_is_over_all_classes_and_one_without_images_counts_0(seed):
    rng = np.random.default_rng(seed)
    scores, truth = rng.standard_normal((50, 6)).astype(np.float32), rng.random((50, 6)) < 0.3
    truth[:, 2] = False
    classes = Classes("c", [*"abcdef"], np.arange(0), {}, ("{}",))
    found = multi_label(scores, truth, classes, lambda prompts: np.eye(6))
    assert found["zero_shot_mean_average_precision"] == pytest.approx(
        clip_benchmarks_rule(scores, truth), abs=1e-12
    )


class Memory:
    spec = "memory:x"

    def __init__(self, *classes):
        self.classes = classes

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        return Sample(str(index), b"%d" % index, ("x",), {"things": self.classes[index]})


def test_classes_are_lists_of_names_or_numbers_and_prompts_are_those_of_the_task():
    data = EvaluationSet(Memory(["cat", "dog"], [], ["dog"]))
    task = ZeroShotTaskConfig(multi_label=True, class_field="things", templates=("a {}",))
    classes, truth = several_classes(data, task)
    assert classes.names == ["cat", "dog"]
    assert truth.tolist() == [[True, True], [False, False], [False, True]]
    vectors = {"a cat": [1.0, 0.0], "a dog": [0.0, 1.0]}
    context = types.SimpleNamespace(
        data=data,
        images=np.array([[1.0, 1.0], [0.9, 0.0], [0.0, 2.0]]),
        embed_texts=lambda texts: np.array([vectors[text] for text in texts]),
    )
    task.check(context)
    found = task.run(context)
    assert found == {"classes": 2, "zero_shot_mean_average_precision": 1.0}
    assert {*found} == {*MULTI_LABEL_METRICS} == {*task.metric_names(None)}
    numbered = ZeroShotTaskConfig(
        multi_label=True, class_field="things", class_names=("owl", "cat", "dog")
    )
    _, truth = several_classes(EvaluationSet(Memory([1, 2], [0])), numbered)
    assert truth.tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("changes", "classes", "words"),
    [
        ({}, ["cat"], r"name its metadata field by x\.class_field"),
        ({"class_field": "things"}, [], "no image has a class in the metadata field 'things'"),
        (
            {"class_field": "things", "class_names": ("cat", "dog")},
            ["owl"],
            "class 'owl' in the metadata field 'things' is none of the 2 that are listed",
        ),
    ],
)
def test_what_a_set_lacks_is_named(changes, classes, words):
    task = ZeroShotTaskConfig(multi_label=True, **changes)
    with pytest.raises(DataError, match=words):
        several_classes(EvaluationSet(Memory(classes)), task, "x.")
