"""Zero-shot classification on embeddings made by hand."""

import numpy as np

from vlp_jax.evaluators.zero_shot import ZERO_SHOT_METRICS, class_means, zero_shot

PLACES = {
    "a red apple": [1.0, 0.0, 0.0],
    "a green apple": [0.0, 1.0, 0.0],
    "a pear": [0.0, 0.0, 1.0],
}


def embed(texts):
    return np.array([PLACES[text] for text in texts], np.float32)


def test_a_class_is_the_unit_mean_of_its_texts():
    means = class_means({"apple": ["a red apple", "a green apple"], "pear": ["a pear"]}, embed)
    np.testing.assert_allclose(means, [[0.5**0.5, 0.5**0.5, 0.0], [0.0, 0.0, 1.0]])


def test_prompts_use_the_better_name_and_descriptions_are_scored_beside_them():
    images, labels = (
        np.array([[1.0, 0.2, 0.0], [0.0, 0.1, 1.0], [0.0, 1.0, 0.1]], np.float32),
        np.array([0, 1, 0]),
    )
    arguments = dict(templates=("a {}",), class_names={"apple": ("red apple",)})
    results = zero_shot(
        images,
        labels,
        ["apple", "pear"],
        embed,
        **arguments,
        descriptions={"apple": ["a red apple", "a green apple"], "pear": ["a pear"]},
    )
    assert set(results) == set(ZERO_SHOT_METRICS)
    assert results == {
        "classes": 2,
        "majority": 2 / 3,
        "zero_shot_accuracy": 2 / 3,
        "zero_shot_top_5": 1.0,
        "zero_shot_mean_per_class_recall": 3 / 4,
        "zero_shot_f1_macro": 2 / 3,
        "zero_shot_accuracy_descriptions": 1.0,
    }
    assert "zero_shot_accuracy_descriptions" not in zero_shot(
        images,
        labels,
        ["apple", "pear"],
        embed,
        **arguments,
        descriptions={"apple": ["a red apple"]},
    )


def test_a_collapsed_model_gets_nothing_right_however_many_texts_a_class_has():
    vector = np.random.default_rng(0).normal(size=192).astype(np.float32)
    vector /= np.linalg.norm(vector)
    names = [str(i) for i in range(100)]
    results = zero_shot(
        np.tile(vector, (50, 1)),
        np.arange(50),
        names,
        lambda texts: np.tile(vector, (len(texts), 1)),
        ("{}", "a {}", "one {}"),
        {},
        {name: ["x"] * (1 + int(name) % 7) for name in names},
    )
    assert results["zero_shot_accuracy"] == results["zero_shot_accuracy_descriptions"] == 0.0


def test_a_class_may_have_several_words():
    images, labels = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.1]], np.float32), np.array([1, 0])
    arguments = dict(
        images=images,
        labels=labels,
        names=["apple", "pear"],
        embed_texts=embed,
        templates=("a {}",),
        descriptions={},
    )
    one_word = zero_shot(**arguments, class_names={"apple": ("red apple",)})
    two_words = zero_shot(**arguments, class_names={"apple": ("red apple", "green apple")})
    assert (one_word["zero_shot_accuracy"], two_words["zero_shot_accuracy"]) == (0.0, 1.0)
