"""The answers evaluator: which written answers count as the true one, and what is shown of them."""

import types

import jax
import numpy as np
import pytest

from vlp_jax.config import load_config
from vlp_jax.config.parse import to_config
from vlp_jax.config.recipes import base
from vlp_jax.data.samples import Sample
from vlp_jax.data.sources.embedded_vqa import QuestionSource
from vlp_jax.data.target_kinds import TextTargetConfig
from vlp_jax.data.targets import Targets, rows_of_texts
from vlp_jax.data.text.tokenizer import TextConfig, Tokenizer, load_tokenizer
from vlp_jax.data.text.tokenizer_models import word_piece
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.answers import ANSWER_METRICS, AnswersTaskConfig, answers
from vlp_jax.evaluators.classification import ClassificationTaskConfig
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.suite import evaluate_set
from vlp_jax.evaluators.supervised import SupervisedHead
from vlp_jax.models.decoder.generation import BeamSearch
from vlp_jax.sharding.mesh import MeshConfig, build_mesh

PLAIN = types.SimpleNamespace(preprocessor=types.SimpleNamespace(boxes=None, dependencies=None))
TOKENIZER = load_tokenizer(TextConfig(), 12, 4096)
# Question, true answer, what is written, and whether that is the true one: after the tokenizer,
# which knows no upper case.
ROWS = [
    ("what  is shown?", "red heart", "red heart", True),
    ("which country?", "Japan", "japan", True),
    ("where?", "right", "left", False),
    ("how many?", "2", "", False),
    ("what is it?", "a dog face", "a dog", False),
    ("is it a dog?", "yes", "yes yes", False),
    ("is it a cat?", "No.", "no", None),
]


class Pictures(list):
    spec = "pictures"

    def fingerprint(self):
        return "x"


def questions(rows=ROWS):
    pictures = Pictures([Sample("a", b"a", ("a",), {})])
    told = [
        dict(image="a", type="x", question=question, answer=answer) for question, answer, *_ in rows
    ]
    return EvaluationSet(QuestionSource(pictures, told, "questions"))


def head_of(canonicalize=(), tokenizer=TOKENIZER, **changes):
    spec = TextTargetConfig(
        field="answer", names=("yes", "no"), length=8, canonicalize=canonicalize
    )
    predictor = types.SimpleNamespace(preprocessor=types.SimpleNamespace(tokenizer=tokenizer))
    return SupervisedHead(
        ("classification", "answers"),
        predictor,
        "x",
        Targets({"x": spec}, {"x": spec.names}),
        **changes,
    )


def writing(texts, asked=None, tokenizer=TOKENIZER):
    """A model that writes these, in tokens up to an end token, other words behind it."""
    padding = tokenizer.special_ids[2]
    rows = rows_of_texts([text or "?" for text in texts], tokenizer, 8)[:, 1:]
    rows = np.where(rows < 0, 4, rows)
    rows[[not text for text in texts]] = padding

    def write(pairs):
        (asked if asked is not None else []).extend(pairs)
        return rows

    return write


@pytest.mark.parametrize(("canonicalize", "last"), [((), False), (("punctuation",), True)])
def test_an_answer_counts_where_it_is_the_true_one_as_tokens_and_normalization_give_it(
    canonicalize, last
):
    asked, right = [], [last if row[3] is None else row[3] for row in ROWS]
    results = answers(writing([row[2] for row in ROWS], asked), questions(), head_of(canonicalize))
    assert asked == [(number, row[0]) for number, row in enumerate(ROWS)]
    assert set(results) == {*ANSWER_METRICS, "answers"}
    assert results["answers_samples"] == 7 and results["answers_exact_match"] == pytest.approx(
        sum(right) / 7
    )
    assert results["answers"].startswith(
        "1. what is shown?\n   written: red heart\n   true: red "
        "heart\n2. which country?\n"
        "   written: japan\n   true: Japan\n3. where?\n   "
        "written: left\n"
    )
    assert results["answers"].count("true: ") == 5 and results["answers"].endswith(
        "5. what is it?\n   written: a dog\n   true: a dog face\n"
    )


def test_written_answers_are_scored_by_all_annotators_as_vqa_s_official_evaluation_does():
    rows = [
        ("a?", ["yes"] * 3 + ["no"] * 7, "yes"),
        ("b?", ["Red"] + ["blue"] * 9, "red"),
        ("c?", ["two"] * 2 + ["2"] * 3 + ["one"] * 5, "2"),
        ("d?", ["yes"] * 10, "no"),
        ("e?", ["no"], "no"),
        ("f?", ["dog"] * 10, ""),
    ]
    data = questions([(question, answers[0], None) for question, answers, _ in rows])
    for metadata, (_, given, _) in zip(data.metadata, rows, strict=True):
        metadata["answer"] = given
    results = answers(writing([said for *_, said in rows]), data, head_of(("vqa_answer",)))
    assert results["answers_vqa_accuracy"] == pytest.approx((0.9 + 0.3 + 1 + 0 + 1 + 0) / 6)


def test_what_the_tokenizer_cannot_say_is_never_right_nor_is_what_was_cut():
    vocabulary = {
        token: number
        for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog"))
    }
    spec = TextConfig(
        tokenizer="words", start_token="[CLS]", end_token="[SEP]", padding_token="[PAD]"
    )
    tokenizer = Tokenizer(word_piece(vocabulary, lower_case=True).to_str(), spec, 12)
    for text, expected in (
        ("a dog", 1.0),
        ("Dog", 1.0),
        ("xyz", 0.0),
        ("a dog a dog a dog a dog", 0.0),
    ):
        write = writing([text], tokenizer=tokenizer)
        assert (
            answers(write, questions([("what?", text)]), head_of(tokenizer=tokenizer))[
                "answers_exact_match"
            ]
            == expected
        )


def test_a_set_asks_the_objective_that_the_evaluator_names_by_its_beam_search():
    asked = []

    class Writer:
        preprocessor = types.SimpleNamespace(
            boxes=None, dependencies=None, picture_of=lambda sample, key: {}
        )
        mesh = build_mesh(MeshConfig(), jax.devices()[:1])

        def shared_pairs(self, variables, rows, share):
            return writing([row[2] for row in ROWS])([])

    def writer(name):
        return lambda search: asked.append((name, search)) or Writer()

    data, heads = questions(), {name: head_of(writer=writer(name)) for name in ("first", "second")}
    for changes, expected in (
        ({}, ("first", BeamSearch())),
        (
            dict(num_beams=3, length_penalty=0.5, early_stopping="never", objective="second"),
            ("second", BeamSearch(num_beams=3, length_penalty=0.5, early_stopping="never")),
        ),
    ):
        spec = EvaluatorConfig(tasks={"answers": AnswersTaskConfig(**changes)})
        results = evaluate_set(spec, TaskContext(data, Writer(), {}, heads=heads))
        assert asked[-1] == expected and results["answers_exact_match"] == pytest.approx(2 / 7)


def test_a_sample_without_an_answer_is_named_before_the_first_update():
    with pytest.raises(
        DataError,
        match=r"a\?1: an evaluation needs a text in the metadata field "
        r"'answer' .data.targets.x",
    ):
        AnswersTaskConfig().check(
            TaskContext(questions([ROWS[0], ("what?", " ")]), PLAIN, heads={"a": head_of()})
        )
    AnswersTaskConfig().check(TaskContext(questions(), PLAIN, heads={"a": head_of()}))


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (
            dict(num_beams=2),
            "evaluators.val.num_beams: unknown key .did you mean "
            "'evaluators.val.tasks.captions.num_beams'",
        ),
        (
            dict(tasks=dict(captions=dict(length_penalty=2.0))),
            "evaluators.val.tasks.captions.length_penalty: has no effect with num_beams=1",
        ),
        (
            dict(tasks=dict(answers=dict(early_stopping=True))),
            "evaluators.val.tasks.answers.early_stopping: has no effect with num_beams=1",
        ),
        (
            dict(tasks=dict(captions=dict(num_beams=2, early_stopping="ever"))),
            "did you mean 'never'",
        ),
        (
            dict(tasks=dict(captions=dict(objective="a"))),
            "evaluators.val.tasks.captions.objective: is for kind='classification' or 'regression' "
            "or 'answers', not for 'captions'",
        ),
        (
            dict(tasks=dict(captions=dict(num_beams=0))),
            "evaluators.val.tasks.captions.num_beams: must be at least 1",
        ),
        (dict(tasks=("answer",)), "did you mean 'answers'"),
    ],
)
def test_settings_that_do_nothing_or_cannot_be_are_named(evaluator, message):
    config = base()
    config.update(
        steps=1, objectives=dict(contrastive=dict(kind="clip")), evaluators=dict(val=evaluator)
    )
    with pytest.raises(ConfigError, match=message):
        to_config(config.to_dict())


def test_only_an_objective_that_writes_can_be_named_for_answers():
    objectives = {
        "written": load_config("configs/vqa_generative.py:smoke").objectives["answer"],
        "chosen": load_config("configs/vqa_fusion.py:smoke").objectives["answer"],
    }
    config = types.SimpleNamespace(objectives=objectives)
    for task in (
        AnswersTaskConfig(objective="written"),
        ClassificationTaskConfig(objective="written"),
        ClassificationTaskConfig(objective="chosen"),
    ):
        assert not [*task.problems(str, config)]
    assert [*AnswersTaskConfig(objective="chosen").problems(str, config)] == [
        "objective: 'chosen' is no objective of kind 'answering' (there are: written)"
    ]
