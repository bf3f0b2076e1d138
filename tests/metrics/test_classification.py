"""Accuracy against a slow rewriting of its definition, and on cases worked out by hand."""

import numpy as np
import pytest

from vlp_jax.metrics.classification import (
    accuracy,
    average_precision,
    credits_won,
    f1_of_labels,
    majority,
    mean_average_precision,
    precision_recall_f1,
)


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_what_the_definition_says_with_many_ties(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 4, (60, 5)).astype(np.float32), rng.integers(0, 5, 60)
    won = [
        all(row[label] > row[other] for other in range(5) if other != label)
        for row, label in zip(scores, labels, strict=True)
    ]
    assert 0 < sum(won) < 60
    assert accuracy(scores, labels) == pytest.approx(sum(won) / 60)


def test_accuracy_needs_a_strict_winner():
    scores, labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), np.array([0, 0, 1])
    assert accuracy(scores, labels) == pytest.approx(2 / 3)


def test_a_model_that_scores_everything_alike_gets_nothing_right():
    assert accuracy(np.full((8, 3), 0.5), np.arange(8) % 3) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_an_error(value):
    scores = np.zeros((3, 2))
    scores[2, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        accuracy(scores, np.zeros(3, int))


def test_majority_is_the_share_of_the_most_frequent_class():
    assert majority(np.array([2, 0, 2, 1, 2])) == 0.6


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_and_f1_are_those_of_the_four_counts(seed):
    rng = np.random.default_rng(seed)
    answers, truth = rng.random(50) < 0.6, rng.random(50) < 0.3
    pairs = list(zip(answers.tolist(), truth.tolist(), strict=True))
    true_yes, false_yes, false_no = (
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
    assert min(true_yes, false_yes, false_no) > 0
    f1 = 2 * true_yes / (2 * true_yes + false_yes + false_no)
    expected = true_yes / (true_yes + false_yes), true_yes / (true_yes + false_no), f1
    assert precision_recall_f1(answers, truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "truth", "expected"),
    [
        ([False, False], [True, False], (0.0, 0.0, 0.0)),
        ([True, True], [False, False], (0.0, 0.0, 0.0)),
        ([True, True, True, True], [True, False, False, False], (0.25, 1.0, 0.4)),
        ([True], [True], (1.0, 1.0, 1.0)),
    ],
)
def test_precision_and_recall_of_constant_answers(answers, truth, expected):
    assert precision_recall_f1(np.array(answers), np.array(truth)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_credit_won_is_the_least_among_the_highest_and_of_a_true_class_it_is_accuracy(seed):
    rng = np.random.default_rng(seed)
    scores, credit = rng.integers(0, 4, (60, 5)).astype(np.float32), rng.random((60, 5))
    expected = [
        min(credit[i][j] for j in range(5) if row[j] == max(row)) for i, row in enumerate(scores)
    ]
    np.testing.assert_allclose(credits_won(scores, credit), expected)
    labels = rng.integers(0, 5, 60)
    assert credits_won(scores, np.eye(5)[labels]).mean() == pytest.approx(accuracy(scores, labels))
    with pytest.raises(ValueError, match="not finite"):
        credits_won(np.full((3, 2), np.nan), np.ones((3, 2)))


@pytest.mark.parametrize("seed", range(5))
def test_f1_of_labels_is_that_of_all_counts_together_and_the_mean_of_each_class_by_itself(seed):
    rng = np.random.default_rng(seed)
    answers, truth = rng.random((30, 6)) < 0.4, rng.random((30, 6)) < 0.3
    answers[:, 4], truth[:, 4:] = False, False  # a class without any, answered and not
    pairs = [list(zip(answers[:, c].tolist(), truth[:, c].tolist(), strict=True)) for c in range(6)]
    counts = [
        [of_class.count(kind) for of_class in pairs]
        for kind in ((True, True), (True, False), (False, True))
    ]
    each = [
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
        for tp, fp, fn in zip(*counts, strict=True)
    ]
    assert 0 < each[0] < 1 and each[4:] == [0.0, 0.0]
    tp, fp, fn = map(sum, counts)
    assert f1_of_labels(answers, truth) == pytest.approx(
        (2 * tp / (2 * tp + fp + fn), np.mean(each))
    )
    assert f1_of_labels(truth, truth) == pytest.approx((1.0, 4 / 6))


def test_f1_of_labels_of_which_none_is_true_and_none_answered_is_0():
    nothing = np.zeros((3, 2), bool)
    assert (
        f1_of_labels(nothing, nothing)
        == f1_of_labels(~nothing, nothing)
        == f1_of_labels(nothing, ~nothing)
        == (0.0, 0.0)
    )
    assert f1_of_labels(
        np.array([[1, 0], [1, 0]], bool), np.array([[1, 0], [0, 0]], bool)
    ) == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_sum_over_thresholds_of_its_definition_with_many_ties(seed):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 6, 40).astype(np.float32), rng.random(40) < 0.3
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        answered = scores >= threshold
        precision, reached = (
            (answered & truth).sum() / answered.sum(),
            (answered & truth).sum() / truth.sum(),
        )
        total, recall = total + (reached - recall) * precision, reached
    assert average_precision(scores, truth) == pytest.approx(total)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 1 / 2 + 1 / 2 * 2 / 3),
        ([3, 2, 1], [1, 1, 0], 1.0),
        ([3, 2, 1], [0, 0, 1], 1 / 3),
        ([1, 1, 1, 1], [1, 0, 0, 0], 1 / 4),
    ],
)
def test_average_precision_of_cases_worked_out_by_hand(scores, truth, expected):
    assert average_precision(np.array(scores, np.float32), np.array(truth, bool)) == pytest.approx(
        expected
    )


def test_the_mean_average_precision_passes_over_classes_that_nothing_is():
    scores, truth = (
        np.array([[0.9, 0.9, 1.0], [0.8, 0.1, 3.0]]),
        np.array([[0, 0, 1], [1, 0, 0]], bool),
    )
    assert mean_average_precision(scores, truth) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert mean_average_precision(scores, np.zeros_like(truth)) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        mean_average_precision(np.full((2, 3), np.nan), truth)
