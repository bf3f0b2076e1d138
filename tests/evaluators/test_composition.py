"""Compositional choice against Winoground's and CLIP_benchmark's rules, written again."""

import itertools
import types

import numpy as np
import pytest

from vlp_jax.data.samples import Sample
from vlp_jax.errors import DataError
from vlp_jax.evaluators import composition
from vlp_jax.evaluators.composition import (
    CHOICE_METRICS,
    PAIR_METRICS,
    CompositionTaskConfig,
    choices,
    false_captions,
    winoground,
)
from vlp_jax.evaluators.evaluation_set import EvaluationSet


class Memory:
    spec = "memory:x"

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        caption, metadata = self.samples[index]
        return Sample(f"sample {index}", b"%d" % index, (caption,), metadata)


PAIRS = EvaluationSet(
    Memory(
        ("a dog on a mat", {"id": 4, "tag": "object"}),
        ("one", {"id": 7, "tag": "relation"}),
        ("a mat on a dog", {"id": 4, "tag": "object"}),
        ("two", {"id": 7, "tag": "relation"}),
    )
)


@pytest.mark.parametrize("seed", range(20))
def test_scores_of_pairs_are_winogrounds(seed):
    """`text_correct` and `image_correct` of the paper's notebook, on scores with ties."""
    table = np.random.default_rng(seed).integers(0, 3, (4, 4)).astype(float)
    numbers = np.array([[0, 2], [1, 3]])

    def score(pairs):
        return np.array([table[image, PAIRS.captions.index(text)] for image, text in pairs])

    text, image, group = winoground(PAIRS, numbers, score)
    for pair, (first, second) in enumerate(numbers):
        c0_i0, c1_i0 = table[first, first], table[first, second]
        c0_i1, c1_i1 = table[second, first], table[second, second]
        text_correct = c0_i0 > c1_i0 and c1_i1 > c0_i1
        image_correct = c0_i0 > c0_i1 and c1_i1 > c1_i0
        assert [text[pair], image[pair], group[pair]] == [
            text_correct,
            image_correct,
            text_correct and image_correct,
        ]


CHOICES = EvaluationSet(
    Memory(
        ("a red cat", {"negative": "a blue cat", "kind": "swap"}),
        ("a dog", {"negative": ["a cat", "a cow"], "kind": "replace"}),
    )
)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_true_caption_must_score_higher_than_every_false_one(order):
    value = dict(zip(("a dog", "a cat", "a cow"), order, strict=True))
    right, chance = choices(
        CHOICES,
        false_captions(CHOICES, "negative"),
        lambda pairs: np.array([value.get(text, 0.0) for _, text in pairs]),
    )
    assert right.tolist() == [False, order[0] == 2]  # the first is a tie
    assert chance.tolist() == [1 / 2, 1 / 3]


@pytest.mark.parametrize(
    ("data", "task", "names", "value"),
    [
        (CHOICES, CompositionTaskConfig(subset="kind"), CHOICE_METRICS, "swap"),
        (PAIRS, CompositionTaskConfig(pairs="id", subset="tag"), PAIR_METRICS, "relation"),
    ],
    ids=["choices", "pairs"],
)
def test_metrics_are_also_of_each_subset(data, task, names, value, monkeypatch):
    context = types.SimpleNamespace(data=data)
    monkeypatch.setattr(
        composition,
        "embedding_scorer",
        lambda context, data: (
            lambda pairs: np.array(
                [float(text == data.captions[data.captions_of_image[i][0]]) for i, text in pairs]
            )
        ),
    )
    task.check(context)
    found = task.run(context)
    assert {*found} > {*task.metric_names(None)} == {*names}
    assert found[names[0]] == 2 and found[f"{names[0]}/{value}"] == 1
    assert found[names[1]] == found[f"{names[1]}/{value}"] == 1.0


@pytest.mark.parametrize(
    ("sample", "task", "words"),
    [
        (("a", {"x": "b"}), {}, "needs one or several false captions in the metadata field 'neg"),
        (("a", {"negative": 3}), {}, "which holds 3"),
        (("a", {"negative": ["b", "a"]}), {}, "is the caption itself: 'a'"),
        (("a", {"id": 1}), {"pairs": "id"}, "1 samples have '1' in the metadata field 'id'"),
        (("a", {"negative": "b"}), {"pairs": "id"}, "an evaluation needs text or a whole number"),
        (("a", {"negative": "b"}), {"subset": "kind"}, r"'kind' \(here.subset\)"),
    ],
)
def test_what_a_set_lacks_is_named(sample, task, words):
    context = types.SimpleNamespace(data=EvaluationSet(Memory(sample)))
    with pytest.raises(DataError, match=words):
        CompositionTaskConfig(**task).check(context, "here.")
