"""Metrics of classes and curves against those of scikit-learn (`make_classification_metrics.py`),
and calibration against its definition."""

import json
import pathlib

import numpy as np
import pytest

from vlp_jax.metrics.calibration import expected_calibration_error
from vlp_jax.metrics.classification import mean_average_precision, top_k_accuracy
from vlp_jax.metrics.curves import mean_roc_auc, precision_recall_curve
from vlp_jax.metrics.per_class import class_scores, confusion_matrix, predicted_classes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/classification_metrics.json"
CASES = json.loads(GOLDEN.read_text())


@pytest.fixture(params=CASES, ids=range(len(CASES)))
def case(request):
    found = dict(request.param)
    found["scores"], found["labels"] = np.array(found["scores"]), np.array(found["labels"])
    return found


def test_counts_and_scores_of_each_class_are_those_of_scikit_learn(case):
    scores, labels = case["scores"], case["labels"]
    predicted = predicted_classes(scores, labels)
    confusion = confusion_matrix(predicted, labels, scores.shape[1])
    np.testing.assert_array_equal(confusion, case["confusion"])
    found = class_scores(confusion)
    for name in ("precision", "recall", "f1", "support"):
        np.testing.assert_allclose(getattr(found, name), case[name], rtol=0, atol=1e-12)
    for name in ("f1_micro", "f1_macro", "f1_weighted"):
        assert getattr(found, name) == pytest.approx(case[name], abs=1e-12), name
    assert found.mean_per_class_recall == pytest.approx(case["balanced"], abs=1e-12)


def test_curves_and_their_areas_are_those_of_scikit_learn(case):
    scores, labels = case["scores"], case["labels"]
    truth = labels[:, None] == np.arange(scores.shape[1])
    assert mean_roc_auc(scores, truth) == pytest.approx(case["roc_auc"], abs=1e-12)
    precision = mean_average_precision(scores, truth)
    assert precision == pytest.approx(case["average_precision"], abs=1e-12)
    curve = precision_recall_curve(scores[:, labels[0]], truth[:, labels[0]])
    theirs = case["curve"]  # with a last point, precision 1 and recall 0
    for ours, other in zip(curve, (theirs[0][:-1], theirs[1][:-1], theirs[2]), strict=True):
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("number", [0, 1, 3])  # the others have ties, which scikit-learn orders
def test_the_five_highest_are_those_of_scikit_learn(number):
    case = CASES[number]
    found = top_k_accuracy(np.array(case["scores"]), np.array(case["labels"]), 5)
    assert found == pytest.approx(case["top_5"])


def test_of_equal_scores_the_true_class_is_not_predicted():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(predicted_classes(scores, np.array([0, 1, 2])), [1, 0, 0])
    assert top_k_accuracy(scores, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_that_of_its_definition(bins):
    rng = np.random.default_rng(bins)
    confidence = np.append(rng.random(200), [0.0, 1.0, 1 / 15, 0.25])
    right = rng.random(204) < confidence**2
    expected = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence <= high) & ((confidence > low) | ((number == 0) & (confidence == 0)))
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert expected_calibration_error(confidence, right, bins) == pytest.approx(expected, abs=1e-12)
