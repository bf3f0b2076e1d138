"""Answers and accuracies of VQA against the official evaluation (`make_vqa_answers.py`)."""

import itertools
import json
import pathlib

import pytest

from vlp_jax.data.text.vqa_answers import vqa_answer, vqa_score

GOLDEN = json.loads((pathlib.Path(__file__).parents[2] / "golden/vqa_answers.json").read_text())


def test_answers_are_normalised_as_in_the_official_evaluation():
    for text, expected in GOLDEN["texts"]:
        assert vqa_answer(text) == expected, text


def test_accuracies_are_those_of_the_official_evaluation():
    rows = zip(GOLDEN["answers"], GOLDEN["said"], GOLDEN["accuracies"], strict=True)
    for answers, said, expected in rows:
        count = [vqa_answer(answer) for answer in answers].count(vqa_answer(said))
        assert vqa_score(count, len(answers)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", range(11))
def test_the_score_is_the_mean_over_the_sets_that_leave_out_one_annotator(count):
    answers = [True] * count + [False] * (10 - count)
    nine = list(itertools.combinations(answers, 9))
    expected = sum(min(sum(several) / 3, 1) for several in nine) / len(nine)
    assert vqa_score(count, 10) == pytest.approx(expected, abs=1e-12)
