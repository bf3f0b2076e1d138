"""Classification and regression evaluators: many questions about one picture, majorities, groups,
what is none of the classes."""

import dataclasses
import tracemalloc
import types

import numpy as np
import pytest

from vlp_jax.config import load_config
from vlp_jax.data.samples import Sample
from vlp_jax.data.sources.embedded_vqa import QuestionSource
from vlp_jax.data.target_kinds import ClassTargetConfig, NumberTargetConfig, ScoresTargetConfig
from vlp_jax.data.targets import Targets
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.classification import (
    CLASS_METRICS,
    CLASSIFICATION_METRICS,
    LABEL_METRICS,
    POSITIVE_METRICS,
    ClassificationTaskConfig,
    classification,
)
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.regression import REGRESSION_METRICS, RegressionTaskConfig, regression
from vlp_jax.evaluators.supervised import SupervisedHead

NAMES = ("yes", "no", "red", "two")
# Two pictures; the same question is asked about both, and several about the first.
ROWS = [
    ("a", "colour", "what colour?", "red"),
    ("a", "yesno", "is it a dog?", "no"),
    ("b", "yesno", "is it a dog?", "yes"),
    ("a", "yesno", "is it a cat?", "yes"),
    ("b", "colour", "what colour?", "green"),
    ("b", "count", "how many?", "two"),
    ("a", "yesno", "is it an owl?", "yes"),
]


PLAIN = types.SimpleNamespace(preprocessor=types.SimpleNamespace(boxes=None, dependencies=None))


class Pictures(list):
    spec = "pictures"

    def fingerprint(self):
        return "x"


def questions():
    metadata = [
        {
            "year": 2000 + number,
            "season": float(number),
            "of": {"vendor": f"v{number}"},
            "size": 0.5,
        }
        for number in (0, 1)
    ]
    pictures = Pictures(
        Sample(key, key.encode(), (key,), its) for key, its in zip("ab", metadata, strict=True)
    )
    rows = [dict(zip(("image", "type", "question", "answer"), row, strict=True)) for row in ROWS]
    return EvaluationSet(QuestionSource(pictures, rows, "questions"))


def context(**heads):
    return TaskContext(questions(), PLAIN, heads=heads)


def head_of(kind="class", **changes):
    if kind == "number":
        return SupervisedHead(
            ("regression",), None, "x", Targets({"x": NumberTargetConfig(**changes)}, {})
        )
    spec = {"class": ClassTargetConfig, "scores": ScoresTargetConfig}[kind](
        field="answer", names=NAMES, **changes
    )
    return SupervisedHead(("classification",), None, "x", Targets({"x": spec}, {"x": NAMES}))


def answering(answers, asked=None):
    """A model whose highest scores are at these answers; `asked` is filled with what it was
    asked."""

    def predict(pairs):
        (asked if asked is not None else []).extend(pairs)
        return np.eye(len(NAMES))[[NAMES.index(answer) for answer in answers]]

    return predict


def test_every_question_is_asked_once_about_its_own_picture_and_counts_by_its_type():
    asked, answers = [], ["red", "yes", "yes", "yes", "red", "two", "no"]
    data = questions()
    results = classification(answering(answers, asked), data, head_of(), "type")
    assert asked == [(number, row[2]) for number, row in enumerate(ROWS)]
    right = [answer == row[3] for answer, row in zip(answers, ROWS, strict=True)]
    assert (
        results["classification_accuracy"] == pytest.approx(np.mean(right)) == pytest.approx(4 / 7)
    )
    # green is none of the answers, and wrong
    assert results["classification_known"] == pytest.approx(6 / 7)
    assert results["classification_majority"] == pytest.approx(3 / 7)  # yes
    assert {
        key.split("/")[1]: value
        for key, value in results.items()
        if key.startswith("classification_accuracy/")
    } == {"colour": 0.5, "yesno": 0.5, "count": 1.0}
    assert [
        results[f"classification_majority/{kind}"] for kind in ("colour", "yesno", "count")
    ] == [0.5, 0.75, 1.0]
    assert [results[f"classification_samples/{kind}"] for kind in ("colour", "yesno", "count")] == [
        2,
        4,
        1,
    ]
    assert results["classification_majority_by_type"] == pytest.approx((1 + 3 + 1) / 7)
    found = classification(answering(answers), data, head_of())
    assert {*found} == {*CLASSIFICATION_METRICS, *CLASS_METRICS}


def test_precision_recall_and_f1_of_one_class_are_those_of_counts():
    answers = ["red", "yes", "yes", "yes", "yes", "two", "no"]
    results = classification(answering(answers), questions(), head_of(), positive="yes")
    assert {*results} == {*CLASSIFICATION_METRICS, *CLASS_METRICS, *POSITIVE_METRICS}
    # green is none of the answers, so that one of the four yes does not count
    true, predicted, right = 3, 3, 2
    assert [results[name] for name in POSITIVE_METRICS] == pytest.approx(
        [right / predicted, right / true, 2 * right / (true + predicted)]
    )
    held = context(one=head_of())
    ClassificationTaskConfig(positive="no").check(held)
    with pytest.raises(ConfigError, match=r"a\.positive: 'maybe' is no class of the target 'x'"):
        ClassificationTaskConfig(positive="maybe").check(held, "a.")
    with pytest.raises(ConfigError, match="a target with one class a sample, and 'x' has several"):
        ClassificationTaskConfig(positive="no").check(context(one=head_of("scores")))


def test_ties_count_against_the_model_and_scores_that_are_not_finite_are_an_error():
    data = questions()
    assert (
        classification(lambda pairs: np.zeros((len(pairs), 4)), data, head_of())[
            "classification_accuracy"
        ]
        == 0.0
    )
    with pytest.raises(ValueError, match="not finite"):
        classification(lambda pairs: np.full((len(pairs), 4), np.nan), data, head_of())


def test_of_scores_the_answer_gets_what_annotators_gave_it():
    data = questions()
    for metadata, answers in zip(
        data.metadata,
        (["red"] * 10, ["no", "yes"], ["yes"] * 2, ["yes"] * 5, ["green"], ["two"] * 2, ["yes"]),
        strict=True,
    ):
        metadata["answer"] = answers
    results = classification(
        answering(["red", "yes", "no", "yes", "red", "two", "yes"]), data, head_of("scores")
    )
    assert results["classification_accuracy"] == pytest.approx(
        (1 + 1 / 6 + 0 + 1 + 0 + 1 / 3 + 1) / 7
    )
    assert results["classification_majority"] == pytest.approx((1 / 6 + 1 / 3 + 1 + 1) / 7)


def test_of_several_labels_each_is_also_told_by_itself():
    data = questions()
    labels = (["red", "two"], ["no"], ["yes"], ["yes", "yes"], ["green"], ["two", "yes"], ["yes"])
    for metadata, answers in zip(data.metadata, labels, strict=True):
        metadata["answer"] = answers
    logits = np.full((7, 4), -1.0)  # columns: yes, no, red, two
    logits[[1, 2, 3, 6], 0], logits[0, 2], logits[[0, 5], 3] = (0.5, 3.0, 2.0, 0.1), 2.0, (0.0, 1.0)
    results = classification(lambda pairs: logits, data, head_of("scores", agreeing=1), "type")
    plain = {name for name in results if "/" not in name and not name.endswith("by_type")}
    assert plain == {*CLASSIFICATION_METRICS, *LABEL_METRICS}
    # yes: 3 right, 1 wrong, 1 missed; no: 1 missed; red: 1 right; two: 1 right, 1 missed (a
    # probability of half says no).
    assert results["classification_f1_micro"] == pytest.approx(2 * 5 / (2 * 5 + 1 + 3))
    assert results["classification_f1_macro"] == pytest.approx(
        (2 * 3 / (2 * 3 + 1 + 1) + 0 + 1 + 2 / 3) / 4
    )
    # yes: 3.0, 2.0, (0.5), 0.1 and one of three at -1; no: one of seven alike; red and two: first.
    yes = (1 + 1 + 3 / 4 + 4 / 7) / 4
    assert results["classification_average_precision"] == pytest.approx((yes + 1 / 7 + 1 + 1) / 4)
    assert not {*LABEL_METRICS} & set(classification(lambda pairs: logits, data, head_of("scores")))


def test_of_many_samples_and_classes_few_copies_are_in_memory():
    """VQA v2 has 214,354 questions for validation, and 3,129 answers: 2.7 GB a copy."""
    names = tuple(map(str, range(1000)))
    target = Targets({"x": ClassTargetConfig(field="answer", names=names)}, {"x": names})
    question = Sample("a", b"a", ("what number?",), {"answer": "7"})
    source = Pictures([question] * 4000)
    scores = np.zeros((4000, 1000), np.float32)
    scores[:, 7] = 1.0
    data = EvaluationSet(source)
    tracemalloc.start()
    results = classification(
        lambda pairs: scores, data, SupervisedHead(("classification",), None, "x", target)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert results["classification_accuracy"] == 1.0 and peak < 2.6 * scores.nbytes


def test_a_sample_without_the_field_is_named():
    message = (
        r"questions: a\?0: an evaluation needs a class in .* 'genre' .* answer, of, season, "
        r"size, type, year"
    )
    with pytest.raises(DataError, match=message):
        target = Targets({"x": ClassTargetConfig(field="genre", names=NAMES)}, {"x": NAMES})
        classification(
            answering(["yes"] * 7),
            questions(),
            SupervisedHead(("classification",), None, "x", target),
        )
    with pytest.raises(
        DataError,
        match=r"text or a whole number in the metadata field 'origin' "
        r"\(by\)",
    ):
        classification(answering(["yes"] * 7), questions(), head_of(), "origin")
    with pytest.raises(
        DataError,
        match=r"a\?0: an evaluation needs a number in the metadata "
        r"field 'weight'",
    ):
        regression(None, questions(), head_of("number", field="weight"))


@pytest.mark.parametrize(
    ("by", "values"),
    [("year", ("2000", "2001")), ("season", ("0", "1")), ("of.vendor", ("v0", "v1"))],
)
def test_groups_may_be_whole_numbers_and_lie_in_a_nested_field_as_targets_may(by, values):
    results = classification(
        answering(["red", "yes", "yes", "yes", "red", "two", "no"]), questions(), head_of(), by
    )
    assert [results[f"classification_samples/{value}"] for value in values] == [4, 3]
    assert [results[f"classification_accuracy/{value}"] for value in values] == [2 / 4, 2 / 3]


def test_what_an_evaluation_would_miss_is_found_before_the_first_update():
    with pytest.raises(
        DataError, match="text or a whole number in the metadata field 'size' .by., which holds 0.5"
    ):
        ClassificationTaskConfig(by="size").check(context(a=head_of()))
    with pytest.raises(
        DataError,
        match="field 'of.size' .evaluators.val.tasks.classification.by., there are: answer, of",
    ):
        ClassificationTaskConfig(by="of.size").check(
            context(a=head_of()), "evaluators.val.tasks.classification."
        )
    numbers = head_of("number", field="weight")
    with pytest.raises(DataError, match="needs a number"):
        RegressionTaskConfig().check(context(a=dataclasses.replace(numbers, tasks=("regression",))))
    ClassificationTaskConfig().check(context(a=head_of()))


def test_errors_of_numbers_stand_beside_the_variance():
    truth, answers = np.array([row[0] == "b" for row in ROWS], float), np.linspace(-1, 1, 7)
    results = regression(
        lambda pairs: answers[:, None], questions(), head_of("number", field="year", mean=2000.0)
    )
    assert set(results) == set(REGRESSION_METRICS)
    assert results["regression_squared_error"] == pytest.approx(np.square(answers - truth).mean())
    assert results["regression_absolute_error"] == pytest.approx(np.abs(answers - truth).mean())
    assert (
        results["regression_variance"] == pytest.approx(truth.var())
        and results["regression_samples"] == 7
    )


def test_the_objective_that_a_task_names_is_asked_or_the_first_of_its_kind():
    heads = {
        name: SupervisedHead((kind,), name, "x", head_of(target, **fields).targets)
        for name, kind, target, fields in (
            ("years", "regression", "number", dict(field="year")),
            ("first", "classification", "class", {}),
            ("second", "classification", "class", {}),
        )
    }
    asked = []

    class Asked(TaskContext):
        def ask(self, predictor, data):
            asked.append(predictor)
            return (
                (lambda pairs: np.zeros((len(pairs), 1)))
                if predictor == "years"
                else answering(["yes"] * 7)
            )

    shared = Asked(questions(), PLAIN, heads=heads)
    found = ClassificationTaskConfig().run(shared)
    assert {*found} == {*CLASSIFICATION_METRICS, *CLASS_METRICS}
    assert set(RegressionTaskConfig().run(shared)) == {*REGRESSION_METRICS}
    ClassificationTaskConfig(objective="second").run(shared)
    assert asked == ["first", "years", "second"]


@pytest.mark.parametrize(
    ("task", "objective", "words"),
    [
        (
            ClassificationTaskConfig,
            "nothing",
            "'nothing' is no objective of kind 'classification' or 'answering' (there are: answer)",
        ),
        (
            RegressionTaskConfig,
            "answer",
            "'answer' is no objective of kind 'regression' (there are: none)",
        ),
    ],
)
def test_a_task_that_names_an_objective_without_such_a_head_is_a_config_error(
    task, objective, words
):
    config = types.SimpleNamespace(objectives=load_config("configs/vqa_fusion.py:smoke").objectives)
    assert not [*ClassificationTaskConfig(objective="answer").problems(str, config)]
    assert [*task(objective=objective).problems(str, config)] == [f"objective: {words}"]
    with pytest.raises(
        ConfigError,
        match=f"evaluators.val_vendor.tasks.{task().kind}.objective: '{objective}' is no objective",
    ):
        load_config(
            "configs/vqa_fusion.py:smoke",
            [(f"evaluators.val_vendor.tasks.{task().kind}.objective", objective)],
        )
