"""Targets: what a sample's metadata say, by definitions written again here; which classes there
are; and rows without a target."""

import io
import itertools
import pickle

import numpy as np
import pytest
from PIL import Image

from vlp_jax.config.parse import read_section
from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.preprocessing import ImagesConfig
from vlp_jax.data.mixture import Mixture, Part
from vlp_jax.data.pipeline import Batches, TrainRows
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, Sample, SampleError
from vlp_jax.data.target import TargetConfig
from vlp_jax.data.target_kinds import (
    ClassTargetConfig,
    NumberTargetConfig,
    ScoresTargetConfig,
    TextTargetConfig,
)
from vlp_jax.data.targets import Targets, check_given, find_targets
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.captions import TextsConfig
from vlp_jax.data.text.tokenizer import TextConfig, load_tokenizer
from vlp_jax.errors import ConfigError, DataError

FILE = io.BytesIO()
Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(FILE, "PNG")


class Source:
    """Samples with the metadata it is given; None stands for a bad one."""

    spec = "made-up"

    def __init__(self, metadata):
        self.metadata = metadata

    def __len__(self):
        return len(self.metadata)

    def __getitem__(self, index):
        if self.metadata[index] is None:
            raise SampleError(Reason.MISSING_IMAGE, str(index), "has no image")
        return Sample(str(index), FILE.getvalue(), (f"caption {index}",), self.metadata[index])

    def fingerprint(self):
        return "made-up"


def class_of(value, **changes):
    targets = Targets(
        {"x": ClassTargetConfig(field="a.b", classes=3, **changes)}, {"x": ("red", "2", "blue sky")}
    )
    return targets.of("x", value)


def test_a_class_is_its_place_among_the_names_and_what_is_none_of_them_is_no_target():
    for value, expected in (
        ("red", 0),
        (2, 1),
        ("2", 1),
        (np.int64(2), 1),
        ("green", -1),
        ("", -1),
        (" ", -1),
        (None, -1),
        ("red \ud83d", -1),
        (["red", "\ud83d"], 0),
        (["red"], 0),
        (["red", "2"], -1),
        (2.0, 1),
        (2.5, -1),
        ({}, -1),
    ):
        found = class_of({"a": {"b": value}})
        assert found == expected and found.dtype == np.int32, value
    assert class_of({}) == class_of({"a": "red"}) == -1
    assert class_of({"a": {"b": "Blue  sky! "}}) == -1
    assert (
        class_of(
            {"a": {"b": "Blue  sky! "}}, canonicalize=("lower_case", "punctuation", "whitespace")
        )
        == 2
    )


def official_score(answer, answers, agreeing):
    """VQAEval's loop: each annotator is left out once, and the others are counted."""
    accuracies = []
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        accuracies.append(min(1.0, sum(other == answer for other in others) / agreeing))
    return sum(accuracies) / len(accuracies)


@pytest.mark.parametrize("agreeing", [2, 3])
def test_scores_are_those_of_vqa_s_official_evaluation(agreeing):
    rng, names = np.random.default_rng(0), ("yes", "no", "two", "red")
    spec = ScoresTargetConfig(field="answers.answer", classes=4, agreeing=agreeing)
    targets = Targets({"x": spec}, {"x": names})
    for _ in range(20):
        answers = [
            str(answer) for answer in rng.choice([*names, "other"], 10, p=[0.3, 0.3, 0.1, 0.1, 0.2])
        ]
        found = targets.of("x", {"answers": [{"answer": answer, "id": 1} for answer in answers]})
        np.testing.assert_allclose(
            found, [official_score(name, answers, agreeing) for name in names], rtol=1e-6
        )
        assert found.dtype == np.float32
    for metadata in ({}, {"answers": []}, {"answers": [{"answer": "other"}]}):
        np.testing.assert_array_equal(targets.of("x", metadata), np.zeros(4))
    # who is alone is right
    np.testing.assert_array_equal(targets.of("x", {"answers": {"answer": "two"}}), [0, 0, 1, 0])


def test_of_ten_annotators_one_to_four_make_an_answer_3_6_9_and_10_tenths_right():
    targets = Targets({"x": ScoresTargetConfig(field="v", classes=2)}, {"x": ("yes", "no")})
    found = [
        targets.of("x", {"v": ["yes"] * count + ["?"] * (10 - count)})[0] for count in range(6)
    ]
    np.testing.assert_allclose(found, [0, 0.3, 0.6, 0.9, 1, 1], rtol=1e-6)


def test_where_one_annotator_suffices_every_answer_that_is_given_is_right():
    targets = Targets(
        {"x": ScoresTargetConfig(field="v", names=("green", "red", "blue"), agreeing=1)},
        {"x": ("green", "red", "blue")},
    )
    np.testing.assert_array_equal(targets.of("x", {"v": ["red", "green", "red"]}), [1, 1, 0])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("two", "2"),
        ("None", "0"),
        ("a red, round ball", "red round ball"),
        ("the dog's", "dog's"),
        ("1,000", "1000"),
        ("dont know", "don't know"),
        ("t-shirt", "t shirt"),
        ("t - shirt", "t shirt"),
        ("5.5", "5.5"),
        ("p.m.", "pm"),
        ("youve", "you've"),
        ("black/white", "black white"),
        ("A", ""),
        (" \tten\n", "10"),
        ("what?", "what"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("[red]", "red"),
        ("ow's'at", "'ow's'at"),
    ],
)
def test_answers_are_normalised_as_vqa_s_official_evaluation_does(answer, expected):
    """Worked out by hand from the rules of vqaEval.py (GT-Vision-Lab/VQA): punctuation, then
    words."""
    assert canonicalize(answer, ("vqa_answer",)).strip() == expected


def test_numbers_are_standardised_and_what_is_no_number_is_nan():
    targets = Targets({"x": NumberTargetConfig(field="year", mean=2000.0, std=10.0)}, {})
    for value, expected in (
        (2005, 0.5),
        ("1990", -1.0),
        (2001.0, 0.1),
        ("old", np.nan),
        (None, np.nan),
        (float("inf"), np.nan),
        (1e300, np.nan),
    ):
        np.testing.assert_allclose(
            targets.of("x", {"year": value}), np.float32(expected), rtol=1e-6
        )
    assert np.isnan(targets.of("x", {}))


def test_classes_are_the_most_frequent_values_of_training_and_in_the_alphabet_among_equals():
    values = ["b", "a", "c", "c", "d", None, "a", "b", "", "e"]
    sources = [
        Source([None if value is None else {"v": value} for value in values[:4]]),
        Source([None if value is None else {"v": value} for value in values[4:]]),
    ]
    specs = {"x": ClassTargetConfig(field="v", classes=4), "y": NumberTargetConfig(field="v")}
    found = find_targets(specs, sources)
    assert found.classes == {"x": ("a", "b", "c", "d")} and found.specs == specs
    assert found.to_json()["x"]["classes"] == ["a", "b", "c", "d"]
    several = [Source([{"v": ["a", "b", "b"]}, {"v": ["c", "c", "c"]}])]
    assert find_targets({"x": ScoresTargetConfig(field="v", classes=2)}, several).classes == {
        "x": ("c", "b")
    }


def test_classes_of_a_checkpoint_are_taken_only_for_the_same_target():
    source, spec = Source([{"v": "a"}, {"v": "b"}]), ClassTargetConfig(field="v", classes=2)
    stored = Targets({"x": spec}, {"x": ("b", "a")}).to_json()
    assert find_targets({"x": spec}, [source], stored).classes == {"x": ("b", "a")}
    changed = ClassTargetConfig(field="v", classes=2, canonicalize=("lower_case",))
    assert find_targets({"x": changed}, [source], stored).classes == {"x": ("a", "b")}


def test_classes_may_be_named_or_stand_in_a_file(tmp_path):
    named = ClassTargetConfig(field="v", names=("Z", "a"), canonicalize=("lower_case",))
    assert find_targets({"x": named}, []).classes == {"x": ("z", "a")}
    (tmp_path / "names").write_text("first one\n\nsecond\nthird\n")
    file = str(tmp_path / "names")
    assert find_targets({"x": ScoresTargetConfig(field="v", classes=2, file=file)}, []).classes == {
        "x": ("first one", "second")
    }
    with pytest.raises(ConfigError, match="data.targets.x.classes: is 4, and .*names names 3"):
        find_targets({"x": ClassTargetConfig(field="v", classes=4, file=file)}, [])
    with pytest.raises(ConfigError, match="data.targets.x: names the class 'a' twice"):
        find_targets(
            {"x": ClassTargetConfig(field="v", names=("A", "a"), canonicalize=("lower_case",))}, []
        )


def test_training_data_with_too_few_values_or_without_the_field_are_named():
    source = Source([{"v": "a", "w": "b"}, {"v": "c"}])
    with pytest.raises(ConfigError, match="data.targets.x.classes: is 3, and 'v' has 2 values"):
        find_targets({"x": ClassTargetConfig(field="v", classes=3)}, [source])
    with pytest.raises(
        DataError,
        match=r"no sample has .* the field 'u' of data.targets.x.field; "
        r"fields: v, w",
    ):
        find_targets({"x": ClassTargetConfig(field="u", classes=2)}, [source])


UNGIVEN = {
    "number": (NumberTargetConfig(field="u"), "a number"),
    "text": (TextTargetConfig(field="u", names=("a",)), "a text"),
    "class": (ClassTargetConfig(field="u", names=("a", "b")), "one of the classes"),
    "scores": (ScoresTargetConfig(field="u", names=("a", "b")), "one of the classes"),
}


@pytest.mark.parametrize("kind", UNGIVEN)
def test_a_target_that_no_training_sample_has_is_named_and_of_many_samples_only_said(kind, capsys):
    (spec, what), told = (
        UNGIVEN[kind],
        {"number": 3, "text": "any", "class": "b", "scores": ["x", "a"]}[kind],
    )
    targets, message = (
        find_targets({"x": spec}, []),
        f"{what} in the field 'u' of data.targets.x.field; fields: v, w",
    )
    check_given(targets, [Source([{"v": "a"}, None, {"u": told}])])
    with pytest.raises(DataError, match=f"made-up: no sample has {message}"):
        check_given(targets, [Source([{"v": "a", "w": 1}, None])])
    check_given(targets, [Source([{"v": "a", "w": 1}] * 1001)])
    assert f"data warning: made-up: none of 1000 samples has {message}" in capsys.readouterr().err
    check_given(targets, [Source([None])])  # bad samples are counted elsewhere


def test_whole_numbers_are_classes_however_they_are_written():
    source = Source([{"v": 1.0}, {"v": 1}, {"v": "1"}, {"v": 2.0}, {"v": 0.5}])
    targets = find_targets({"x": ClassTargetConfig(field="v", classes=2)}, [source])
    assert targets.classes == {"x": ("1", "2")}
    assert [
        int(targets.of("x", {"v": value})) for value in (1.0, 1, "1", 2, 0.5, np.float32(2))
    ] == [0, 0, 0, 1, -1, 1]
    assert np.isnan(NumberTargetConfig(field="v").read({"v": 10**400}, {}))


METADATA = [{"v": ["red", "blue", "green"][i % 3], "n": i} for i in range(10)] + [
    None,
    {"v": "other"},
]


def rows_of(inputs=("target_number", "target_place", "target_scores")):
    specs = {
        "place": ClassTargetConfig(field="v", names=("blue", "red")),
        "number": NumberTargetConfig(field="n"),
        "scores": ScoresTargetConfig(field="v", names=("green", "red"), agreeing=1),
    }
    source = Source(METADATA)
    mixture = Mixture((Part("", source, TextsConfig(), len(source)),))
    preprocessor = Preprocessor(4, ImagesConfig(), load_tokenizer(TextConfig(), 8, 4096))
    return TrainRows(
        mixture,
        preprocessor,
        AugmentationConfig(),
        0,
        inputs,
        targets=find_targets(specs, [source]),
    ), specs


def batches_of(rows, count, local=None, **data):
    batches = Batches(rows, DataConfig(batch_size=4, **data), local_rows=local)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


@pytest.mark.parametrize(
    "data", [{"threads": 3}, pytest.param({"workers": 2}, marks=pytest.mark.slow)]
)
def test_a_batch_holds_the_targets_of_its_samples_whoever_makes_it(data):
    rows, specs = rows_of()
    for k, batch in enumerate(batches_of(rows, 6, **data)):
        assert (
            batch["key"] == [row["key"] for row in map(rows.row, range(4 * k, 4 * k + 4))]
        ).all()
        # of the substitute where a sample is bad
        held = [METADATA[int(key)] for key in batch["key"]]
        assert batch["target_place"].tolist() == [
            ("blue", "red").index(m["v"]) if m["v"] in ("blue", "red") else -1 for m in held
        ]
        np.testing.assert_array_equal(
            batch["target_scores"], [[m["v"] == "green", m["v"] == "red"] for m in held]
        )
        np.testing.assert_array_equal(batch["target_number"], [m.get("n", np.nan) for m in held])
        for name, spec in specs.items():
            assert spec.array(4) == (batch[f"target_{name}"].shape, batch[f"target_{name}"].dtype)


def test_hosts_make_their_own_rows_and_only_targets_that_are_asked_for_are_made():
    rows, _ = rows_of()
    whole, first, second = (batches_of(rows, 3, local) for local in (None, [0, 1], [2, 3]))
    for k in range(3):
        for name in ("target_place", "target_scores", "target_number"):
            np.testing.assert_array_equal(
                np.concatenate([first[k][name], second[k][name]]), whole[k][name]
            )
    assert not [name for name in rows_of(inputs=())[0].row(0) if name.startswith("target_")]
    assert pickle.loads(pickle.dumps(rows)).row(3)["target_place"] == rows.row(3)["target_place"]


@pytest.mark.parametrize("kind", TargetConfig.kinds)
def test_every_kind_can_be_built_in_python_with_the_defaults_of_a_config(kind):
    classes = {} if kind == "number" else dict(classes=3)
    target = TargetConfig.of(kind, field="v", **classes)
    tree = dict(targets=dict(x=dict(kind=kind, field="v", **classes)))
    assert read_section(DataConfig, tree, "data").targets == {"x": target}
    assert (target.kind, target.outputs, target.several_labels) == (
        kind,
        1 if kind == "number" else 3,
        False,
    )
    assert target.finds_classes == (kind != "number") and target.array(5)[0][0] == 5


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ClassTargetConfig(classes=1), "classes: must be at least 2"),
        (lambda: ScoresTargetConfig(agreeing=0), "agreeing: must be at least 1"),
        (lambda: NumberTargetConfig(std=0.0), "std: must be at least 1e-30"),
        (lambda: TextTargetConfig(length=2), "length: must be at least 3"),
        (lambda: TextTargetConfig(canonicalize=("lowercase",)), "did you mean 'lower_case'"),
    ],
)
def test_values_are_checked_by_the_constructor(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
