"""Probes against those of scikit-learn (`tests/golden/make_probes.py`), and the sets they read."""

import json
import pathlib

import jax
import numpy as np
import pytest

from vlp_jax.config import load_config
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.few_shot import FewShotTaskConfig, few_shot, ridge_scores
from vlp_jax.evaluators.linear_probe import LinearProbeTaskConfig, linear_probe, split_off
from vlp_jax.evaluators.logistic_regression import PENALTIES, best_penalty, fit
from vlp_jax.evaluators.nearest_neighbours import (
    NearestNeighboursTaskConfig,
    nearest_neighbours,
    unit,
    votes,
)
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.probe import Labelled
from vlp_jax.sharding.mesh import MeshConfig, build_mesh

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden/probes.json").read_text())


@pytest.fixture(params=CASES, ids=lambda case: str(case["classes"]))
def case(request):
    features, labels = np.array(request.param["features"]), np.array(request.param["labels"])
    return request.param | {
        "train": Labelled(features[:-15], labels[:-15]),
        "test": Labelled(features[-15:], labels[-15:]),
    }


def test_logistic_regression_is_scikit_learns_at_the_same_penalty(case):
    for penalty, expected in case["logistic"].items():
        arguments = case["train"].features, case["train"].labels, case["classes"], float(penalty)
        exact = np.exp(fit(*arguments, tolerance=1e-9).scores(case["test"].features))
        np.testing.assert_allclose(exact, expected, rtol=0, atol=2e-6)


def test_votes_of_neighbours_are_scikit_learns(case):
    train, test = case["train"], case["test"]
    numbers = [int(k) for k in case["neighbours"]]
    found = votes(
        unit(train.features), train.labels, unit(test.features), case["classes"], numbers, 0.07
    )
    for k, own in zip(numbers, found, strict=True):
        expected = np.array(case["neighbours"][str(k)])
        # cosines are rounded to float32
        np.testing.assert_allclose(
            own / own.sum(axis=1, keepdims=True), expected, rtol=0, atol=1e-5
        )
        accuracy = nearest_neighbours(train, test, case["classes"], [k], 0.07)[f"knn_{k}_accuracy"]
        assert accuracy == (expected.argmax(axis=1) == test.labels).mean()


def test_ridge_regression_is_scikit_learns(case):
    found = ridge_scores(case["train"], case["test"].features, case["classes"], 1024.0)
    np.testing.assert_allclose(found, case["ridge"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("best", [0, 1, 40, 48, 77, 96])
def test_the_search_finds_the_peak_of_a_score_with_one_peak_in_at_most_15_fits(best):
    asked = []

    def score(penalty):
        asked.append(penalty)
        return -abs(np.log10(penalty) - np.log10(PENALTIES[best]))

    assert best_penalty(score) == PENALTIES[best]
    assert len(asked) == len({*asked}) <= 15
    assert best_penalty(lambda penalty: 0.5) == PENALTIES[0]


def test_a_linear_probe_chooses_its_penalty_on_held_out_images_and_fits_all():
    rng = np.random.default_rng(0)
    labels = np.resize(np.arange(3), 120)
    features = rng.standard_normal((120, 5)) + 3 * np.eye(5)[labels]
    train, test = (
        Labelled(features[rows], labels[rows]) for rows in (slice(0, 90), slice(90, 120))
    )
    fitted, held = split_off(train)
    assert (len(fitted.labels), len(held.labels)) == (72, 18)
    found = linear_probe(train, test, 3)
    assert found["linear_probe_accuracy"] > 0.9 > found["linear_probe_majority"]
    assert found["linear_probe_top_5"] == 1.0
    assert found["linear_probe_penalty"] in PENALTIES
    given = linear_probe(fitted, test, 3, validation=held)
    assert given["linear_probe_penalty"] == found["linear_probe_penalty"]
    assert given["linear_probe_accuracy"] == pytest.approx(found["linear_probe_accuracy"])


def test_few_shot_draws_are_those_of_big_vision():
    """Seed s is of draw s, and of each class the first of a permutation of its images."""
    rng = np.random.default_rng(5)
    labels, classes = np.resize(np.arange(4), 41), 4
    features = rng.standard_normal((41, 6)) + 2 * np.eye(6)[labels]
    train, test = Labelled(features[:30], labels[:30]), Labelled(features[30:], labels[30:])
    expected = []
    for seed in range(2):
        draw = np.random.default_rng(seed)
        chosen = np.concatenate(
            [draw.permutation(np.where(train.labels == c)[0])[:9] for c in range(classes)]
        )
        few = Labelled(train.features[chosen], train.labels[chosen])
        scores = ridge_scores(few, test.features, classes, 1024.0)
        expected.append((scores.argmax(axis=1) == test.labels).mean())
    found = few_shot(train, test, classes, (9,), 2, 1024.0)
    assert found["few_shot_9_accuracy"] == pytest.approx(np.mean(expected))
    assert found["few_shot_9_accuracy_deviation"] == pytest.approx(np.std(expected))


class Memory:
    """A source of images of one colour, with the classes `names`."""

    def __init__(self, names, field="class", spec="memory:x"):
        self.names, self.field, self.spec = names, field, spec

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        metadata = {self.field: self.names[index]}
        return Sample(str(index), b"%d" % index, (self.names[index],), metadata)


class Pixels(Preprocessor):
    """The number that an image's bytes spell, in each pixel."""

    def pixels(self, image, key):
        return np.full((4, 4, 3), int(image), np.uint8)


def context(test, train):
    preprocessor = Pixels(
        4, ImagesConfig(mean=(0.0,) * 3, std=(1.0,) * 3), load_tokenizer(TextConfig(), 8, 4096)
    )

    def embed(variables, image, text, mask):
        value = 255 * image.mean(axis=(1, 2))[:, :2]
        return value * jax.numpy.array([1.0, 0.0]) + jax.numpy.array([0.0, 1.0]), None

    predictor = Predictor(embed, preprocessor, build_mesh(MeshConfig(), jax.devices()[:1]))
    found = TaskContext(EvaluationSet(test), predictor, {}, batch_size=4)
    found.others["memory:train"] = EvaluationSet(train)
    return found


@pytest.mark.parametrize(
    "task",
    [
        LinearProbeTaskConfig(train="memory:train", penalty=1e-3),
        NearestNeighboursTaskConfig(train="memory:train", neighbours=(3,)),
        FewShotTaskConfig(train="memory:train", shots=(4,), draws=1, ridge=1.0),
    ],
    ids=lambda task: task.kind,
)
def test_probes_learn_the_classes_of_a_training_source_whose_images_are_embedded_once(task):
    names = ["low"] * 6 + ["high"] * 6
    found = context(Memory(names[1:] + ["high"] * 3), Memory(names))
    task.check(found)
    metrics = task.run(found)
    assert set(metrics) == set(task.metric_names(None))
    accuracy = next(value for name, value in metrics.items() if name.endswith("accuracy"))
    assert accuracy > 0.8
    held = dict(found.held)
    task.run(found)
    assert len(held) == 2 and all(found.held[key] is value for key, value in held.items())


def test_what_a_probe_lacks_is_named():
    task = NearestNeighboursTaskConfig(train="memory:train")
    with pytest.raises(DataError, match="class 'other' .* has no image in the training set"):
        task.check(context(Memory(["low", "other"]), Memory(["low", "high"])))
    with pytest.raises(DataError, match=r"name another one by x\.class_field \(there are: kind"):
        task.check(context(Memory(["low"], "kind"), Memory(["low"], "kind")), "x.")
    with pytest.raises(ConfigError, match="train: knn learns from a training set"):
        NearestNeighboursTaskConfig().check_files(str)
    config = load_config("configs/clip_emoji.py")
    unused = LinearProbeTaskConfig(validation="a:b", penalty=1.0)
    assert "has no effect with a given penalty" in [*unused.problems(str, config)][0]
