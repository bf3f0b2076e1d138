"""Classes, their names and prompts, of zero-shot classification; and a flag for each setting of an
evaluator."""

import argparse
import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from vlp_jax.config import load_config
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluator_flags import (
    FLAGS,
    REPEATABLE,
    SETTINGS,
    add_evaluator_flags,
    build_evaluator,
    given_settings,
)
from vlp_jax.evaluators.captioning import CaptionsTaskConfig
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.prompts import names_in, templates_of, zero_shot_classes
from vlp_jax.evaluators.retrieval import RetrievalTaskConfig
from vlp_jax.evaluators.suite import collect_descriptions
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of two images."""
    root = tmp_path_factory.mktemp("classes")
    for name in ("n02", "n01"):
        (root / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(
                root / name / f"{number}.png"
            )
    return root


def jsonl(folder, name, **fields):
    path = folder / name
    path.write_text(
        "".join(
            json.dumps(
                dict(
                    image=f"n01/{i}.png",
                    caption="a thing",
                    **{key: values[i] for key, values in fields.items()},
                )
            )
            + "\n"
            for i in (0, 1)
        )
    )
    return f"jsonl:{path}"


def classes(source, **settings):
    return zero_shot_classes(EvaluationSet(open_source(source)), ZeroShotTaskConfig(**settings))


def test_the_class_field_is_the_sources_own(folder):
    assert (
        classes(f"folder:{folder}").names == ["n01", "n02"]
        and classes(f"folder:{folder}").field == "class"
    )
    assert classes("embedded:emoji/val_concept").field == "group"
    assert classes(
        jsonl(folder, "label.jsonl", label=[1, 0]), class_names=("cat", "dog")
    ).truth.tolist() == [1, 0]
    with pytest.raises(
        DataError,
        match=r"field 'label' \(class_field\) are numbers, such as 0, "
        r"and nothing names them",
    ):
        classes(jsonl(folder, "label.jsonl", label=[1, 0]))
    assert classes(
        jsonl(folder, "both.jsonl", group=["a", "b"], **{"class": ["x", "y"]})
    ).names == ["x", "y"]
    assert classes(jsonl(folder, "own.jsonl", kind=["x", "y"]), class_field="kind").names == [
        "x",
        "y",
    ]
    with pytest.raises(
        DataError,
        match=r"class, label, group, cls; name another one by "
        r"class_field \(there are: kind\)",
    ):
        classes(jsonl(folder, "own.jsonl", kind=["x", "y"]))


def test_descriptions_are_collected_by_the_training_sets_own_field(folder):
    spec = EvaluatorConfig(tasks={"zero_shot": ZeroShotTaskConfig()})
    assert list(collect_descriptions({"val": spec}, [open_source(f"folder:{folder}")])) == ["class"]
    assert list(
        collect_descriptions({"val": spec}, [open_source("embedded:emoji/val_concept")])
    ) == ["group"]
    assert (
        collect_descriptions(
            {"val": spec}, [open_source(jsonl(folder, "own.jsonl", kind=["x", "y"]))]
        )
        == {}
    )


def test_the_packaged_prompts_and_names_are_clips():
    """Their numbers, their first and last as printed in OpenAI's notebook
    Prompt_Engineering_for_ImageNet, and exactly one {}."""
    templates, names = templates_of("t", ("imagenet",)), names_in("n", ("imagenet",))
    assert (
        len(templates) == 80
        and templates[0] == "a bad photo of a {}."
        and templates[-1] == "a tattoo of the {}."
    )
    assert len(templates_of("t", ("imagenet_simple",))) == 7 and {
        *templates_of("t", ("imagenet_simple",))
    } <= {*templates}
    assert len(names) == 1000 and len({*templates}) == 80
    assert (names[0], names[1], names[207], names[999]) == (
        "tench",
        "goldfish",
        "Golden Retriever",
        "toilet paper",
    )
    assert "OpenCLIP" in (ROOT / "vlp_jax/data/imagenet/LICENSE").read_text()


def test_the_packaged_prompts_and_names_are_open_clips():
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert list(names_in("n", ("imagenet",))) == metadata.IMAGENET_CLASSNAMES
    assert list(templates_of("t", ("imagenet",))) == [
        template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES
    ]


def test_prompts_may_be_a_set_a_file_and_texts_together(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa {c} on a table.\r\n\r\n{{}} of a {}\n", encoding="utf-8")
    assert templates_of("t", (str(path), "{}", "imagenet_simple"))[:3] == (
        "a {} on a table.",
        "{{}} of a {}",
        "{}",
    )
    path.write_text("a {} of a {}\n")
    for templates, words in (
        ((str(path),), "t: 'a {} of a {}' must have exactly one {}"),
        ((), "t: at least one is needed"),
        (("imagenett",), "'imagenett' must have exactly one {}.* no set of this package .imagenet"),
    ):
        with pytest.raises(ConfigError, match=words):
            templates_of("t", templates)


def test_names_may_be_listed_for_all_classes_by_number_or_in_order(folder, tmp_path):
    numbers = jsonl(folder, "numbers.jsonl", label=[2, 0])
    found = classes(numbers, class_names=("cat", "dog", "bird"))
    assert (
        found.names == ["0", "1", "2"]
        and found.truth.tolist() == [2, 0]
        and found.words["2"] == ("bird",)
    )
    path = tmp_path / "names.txt"
    path.write_text("cat\r\ndog\r\nbird\r\n\r\n")
    assert classes(numbers, class_names=(str(path),)).words == found.words
    (tmp_path / "names.json").write_text('{"0": ["cat", "kitten"], "2": "bird"}')
    assert classes(numbers, class_names=(f"{tmp_path}/names.json",)).words == {
        "0": ("cat", "kitten"),
        "2": ("bird",),
    }
    (tmp_path / "list.json").write_text('["cat", "dog", "bird"]')
    assert classes(numbers, class_names=(f"{tmp_path}/list.json",)).words == found.words
    in_order = classes(f"folder:{folder}", class_names=("tench", "goldfish"))
    assert in_order.names == ["n01", "n02"] and in_order.words == {
        "n01": ("tench",),
        "n02": ("goldfish",),
    }
    themselves = classes(f"folder:{folder}", class_names=("n03", "n02", "n01"))
    assert themselves.names == ["n03", "n02", "n01"] and sorted(themselves.truth) == [1, 1, 2, 2]
    with pytest.raises(DataError, match="has a class 2, and class_names has 2 names"):
        classes(numbers, class_names=("cat", "dog"))
    with pytest.raises(
        DataError, match="has 2 classes, such as 'n01', and class_names has 1000 names"
    ):
        classes(f"folder:{folder}", class_names=("imagenet",))
    path.write_text("cat\n\ndog\n")
    for names, words in (
        ((str(path),), "has no name in line 2"),
        (("imagenett",), "'imagenett' is one name alone, no file"),
    ):
        with pytest.raises(ConfigError, match=words):
            classes(numbers, class_names=names)


def read(arguments, tasks=("zero_shot", "retrieval", "captions"), evaluators=None):
    config = load_config(
        f"{ROOT}/configs/coca_b16.py:smoke", [("evaluators", repr(evaluators or {}))]
    )
    flags = argparse.ArgumentParser()
    add_evaluator_flags(flags)
    return build_evaluator(
        "embedded:emoji/val_vendor",
        tasks,
        given_settings(flags.parse_args(arguments)),
        config,
        FLAGS,
    )


def test_every_setting_of_an_evaluator_has_a_flag():
    """Also one that is added later: flags are made of the fields."""
    assert {*SETTINGS} == {
        "batch_size",
        *(field.name for task in TaskConfig.kinds.values() for field in dataclasses.fields(task)),
    }
    assert {*FLAGS} == {*SETTINGS, "tasks"} and SETTINGS["objective"] == [
        "classification",
        "regression",
        "answers",
    ]
    assert REPEATABLE == ("--templates", "--neighbours", "--shots", "--mask-classes")
    spec = read(
        [
            "--templates=a photo of a {}, big.",
            "--templates=imagenet",
            "--class-names={'flags': ('flag', 'banner')}",
            "--class-field=subgroup",
            "--captions-per-class=0",
            "--merge-equal-captions",
            "--num-beams=2",
            "--length-penalty=0.5",
            "--early-stopping=true",
            "--batch-size=7",
        ]
    )
    zero_shot = ZeroShotTaskConfig(
        templates=("a photo of a {}, big.", "imagenet"),
        class_names={"flags": ("flag", "banner")},
        class_field="subgroup",
        captions_per_class=0,
    )
    captions = CaptionsTaskConfig(num_beams=2, length_penalty=0.5, early_stopping=True)
    assert spec == EvaluatorConfig(
        batch_size=7,
        tasks=dict(
            zero_shot=zero_shot,
            captions=captions,
            retrieval=RetrievalTaskConfig(merge_equal_captions=True),
        ),
    )
    assert list(spec.tasks) == ["zero_shot", "retrieval", "captions"]
    assert read(["--class-names=imagenet"]).tasks["zero_shot"].class_names == ("imagenet",)
    assert read(["--templates=('a {}', 'the {}')"]).tasks["zero_shot"].templates == (
        "a {}",
        "the {}",
    )
    assert (
        read(["--early-stopping=never", "--num-beams=2"]).tasks["captions"].early_stopping
        == "never"
    )


def test_what_flags_leave_out_is_as_in_the_config():
    own = {
        "a": dict(tasks=dict(retrieval=dict(merge_equal_captions=True))),
        "b": dict(
            tasks=dict(zero_shot=dict(templates=("a {}",), class_field="kind")), batch_size=9
        ),
        "c": dict(tasks=dict(captions=dict(num_beams=3))),
    }
    spec = read([], evaluators=own)
    zero_shot = ZeroShotTaskConfig(templates=("a {}",), class_field="kind")
    assert (
        spec.tasks
        == dict(
            retrieval=RetrievalTaskConfig(merge_equal_captions=True),
            zero_shot=zero_shot,
            captions=CaptionsTaskConfig(num_beams=3),
        )
        and spec.batch_size == 256
    )
    changed = read(["--merge-equal-captions=false", "--templates={}"], evaluators=own).tasks
    assert (
        changed["zero_shot"] == ZeroShotTaskConfig(class_field="kind")
        and changed["retrieval"] == RetrievalTaskConfig()
    )


@pytest.mark.parametrize(
    ("flag", "tasks", "words"),
    [
        ("--num-beams=0", ("captions",), "--num-beams: must be at least 1, got 0"),
        ("--num-beams=x", ("captions",), "--num-beams: expected a whole"),
        (
            "--num-beams=2",
            ("retrieval",),
            "--num-beams: is for the evaluators captions and answers, "
            "and --evaluators are retrieval",
        ),
        ("--templates=a photo", ("zero_shot",), "--templates: 'a photo' must have exactly one {}"),
        (
            "--early-stopping=maybe",
            ("captions",),
            "--early-stopping: must be one of False, True, 'never', got 'maybe'",
        ),
        (
            "--length-penalty=2",
            ("captions",),
            "--length-penalty: has no effect with num_beams=1: it is for beam search",
        ),
        (
            "--captions-per-class=3",
            ("matching",),
            "--evaluators: 'matching' needs an objective of kind 'matching'",
        ),
    ],
)
def test_a_flag_that_cannot_be_is_named(flag, tasks, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read([flag], tasks)
