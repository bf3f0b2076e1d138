"""What an evaluation may cost: nothing of the training.

The order of saves and evaluations, and what is checked before the first update.
"""

import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from vlp_jax import evaluate, main
from vlp_jax.errors import ConfigError, DataError, EvaluationError
from vlp_jax.evaluators.prompts import check_templates
from vlp_jax.evaluators.suite import EvaluationSuite
from vlp_jax.evaluators.zero_shot import zero_shot

ROOT = pathlib.Path(__file__).parents[2]
SYNTHETIC = "data.train.source=synthetic:64?height=20&width=24&caption_words=3"
METRIC = "val/text_to_image_median_rank"
EVERY_SECOND = (
    "evaluators={'val': {'source': 'synthetic:25?height=20&width=24', 'batch_size': 8, "
    "'every_steps': 2}}"
)


@pytest.fixture
def train(tmp_path, tiny):
    """`train("steps=3", ...)` trains in a workdir of this test, which must end well."""

    def run(*changes, workdir="run"):
        arguments = [
            f"--config={ROOT}/configs/clip_emoji.py:smoke",
            f"--workdir={tmp_path}/{workdir}",
            *tiny(SYNTHETIC, *changes),
        ]
        assert main.main(arguments) == 0
        return tmp_path / workdir

    return run


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


def measured(workdir):
    """Losses, and what evaluators measured, of each row."""
    return [
        {
            name: value
            for name, value in row.items()
            if name in ("step", "train/loss") or name.startswith("val/")
        }
        for row in rows(workdir)
    ]


class Killed(BaseException):
    """The end of the process."""


BEST = (
    "checkpoint.every_steps=none",
    "checkpoint.keep=1",
    "checkpoint.keep_best=1",
    f"checkpoint.best_metric={METRIC}",
    "checkpoint.best_mode=max",
    "optimizer.learning_rate=0.03",
    "steps=6",
)


@pytest.mark.full
def test_a_checkpoint_of_the_step_is_there_before_an_evaluator_runs_whatever_it_ends_in(
    train, tmp_path, monkeypatch
):
    """Killed before, in and after evaluations; the run that continues has the rows and the
    checkpoints of one without a stop."""
    expected = train(EVERY_SECOND, *BEST, workdir="uninterrupted")
    values = {row["step"]: row[METRIC] for row in rows(expected) if METRIC in row}
    best = max(values, key=lambda step: (values[step], step))
    assert sorted(values) == [2, 4, 6] and saved(expected) == sorted({best, 6})
    run, ends, steps = (
        EvaluationSuite.run,
        [Killed, EvaluationError("no"), "after", Killed, "after"],
        [],
    )

    def ending(evaluation, names, variables, between):
        steps.append(saved(tmp_path / "run")[-1])
        assert "val/images" not in rows(tmp_path / "run")[-1]
        end = ends.pop(0) if ends else None
        results = run(evaluation, names, variables, between) if end in (None, "after") else {}
        if end == "after":
            ends.insert(0, None)
            raise Killed
        if end is not None:
            raise end
        return results

    monkeypatch.setattr(EvaluationSuite, "run", ending)
    for _ in range(5):
        with pytest.raises((Killed, EvaluationError)):
            train(EVERY_SECOND, *BEST)
    workdir = train(EVERY_SECOND, *BEST)
    assert steps == [2, 2, 2, 2, 4, 4, 4, 6]
    assert measured(workdir) == measured(expected)
    assert saved(workdir) == saved(expected)


@pytest.mark.full
def test_rows_are_amended_once_and_no_other_is_touched(train):
    for number, row in enumerate(measured(train(EVERY_SECOND, "steps=5")), start=1):
        assert row["step"] == number
        assert (METRIC in row) == (number in (2, 4, 5))


@pytest.mark.full
@pytest.mark.parametrize(
    ("evaluator", "error", "words"),
    [
        (
            {"class_field": "grup"},
            DataError,
            ["evaluators.val.tasks.zero_shot.class_field", "'grup'", "group", "keywords"],
        ),
        *(
            (
                {"templates": (template,)},
                ConfigError,
                ["evaluators.val.tasks.zero_shot.templates", repr(template), "exactly one {}"],
            )
            for template in (
                "a photo of a {c}.",
                "a photo",
                "{} and {}",
                "{0}",
                "{:>5}",
                "{!r}",
                "a { of {}",
                "{{}}",
            )
        ),
    ],
)
def test_what_zero_shot_needs_is_checked_before_the_first_update(
    train, tmp_path, evaluator, error, words
):
    spec = {"source": "embedded:emoji/val_concept", "tasks": {"zero_shot": evaluator}}
    with pytest.raises(error) as caught:
        train("steps=1", f"evaluators={{'val': {spec}}}")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "run/checkpoints").exists() or not saved(tmp_path / "run")


def test_braces_of_a_template_s_own_are_doubled():
    check_templates("x", ("{{a}} photo of a {}", "{}"))
    asked = []
    zero_shot(
        np.eye(2),
        np.array([0, 1]),
        ["a", "b"],
        lambda texts: asked.extend(texts) or np.eye(2),
        ("{{x}} {}",),
        {},
        {},
    )
    assert asked == ["{x} a", "{x} b"]


def image(number, kind="PNG"):
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


GOOD, BAD = 9, 4


@pytest.fixture
def sets(tmp_path):
    """Two sets of 9 good samples, one with 4 bad ones among them, each bad in its own way."""

    def write(name, bad):
        members = [
            (f"good{number}", image(number), f"caption {number}".encode()) for number in range(GOOD)
        ]
        if bad:
            members[3:3] = [
                ("cut", image(50)[:60], b"a"),
                ("latin", image(51), "caf\xe9".encode("latin-1")),
            ]
            members[0:0] = [("page", b"<html>404</html>", b"b")]
            members += [("blank", image(52), b" ")]
        with tarfile.open(tmp_path / name, "w") as tar:
            for key, picture, text in members:
                for ending, data in (("png", picture), ("txt", text)):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return f"webdataset:{tmp_path}/{name}"

    return write("good.tar", False), write("bad.tar", True)


@pytest.mark.full
def test_bad_samples_of_an_evaluation_set_are_left_out_counted_and_named(
    train, sets, tmp_path, capsys
):
    evaluators = {
        "good": {"source": sets[0], "every_steps": 1},
        "bad": {"source": sets[1], "every_steps": 1},
    }
    workdir = train("steps=2", f"evaluators={evaluators}")
    said = capsys.readouterr().err
    for key in ("cut", "latin", "page", "blank"):
        assert said.count(f"bad.tar: left out of the evaluation: {key}: ") >= 1
    assert f"{BAD} of {GOOD + BAD} samples are left out" in said
    for row in rows(workdir):
        assert (row["good/bad_examples"], row["bad/bad_examples"]) == (0, BAD)
        values = {
            name: {
                key.partition("/")[2]: value
                for key, value in row.items()
                if key.startswith(f"{name}/")
            }
            for name in evaluators
        }
        assert {**values["bad"], "bad_examples": 0} == values["good"]
    for source, bad in zip(sets, (0, BAD), strict=True):
        assert evaluate.main([f"--workdir={workdir}", f"--source={source}"]) == 0
        heard = capsys.readouterr()
        found = json.loads(heard.out)
        assert found["bad_examples"] == bad and ("page: image is a web page" in heard.err) == (
            bad > 0
        )
        assert found["text_to_image_recall@5"] == rows(workdir)[-1]["good/text_to_image_recall@5"]


def test_a_set_without_a_single_good_sample_is_an_error(train, tmp_path):
    (tmp_path / "x.jsonl").write_text(
        '{"image": "a.png", "caption": "a"}\n{"image": "b.png", "caption": "b"}\n'
    )
    with pytest.raises(
        DataError,
        match="none of its 2 samples can be read; the first: x.jsonl:1: "
        "its image 'a.png' is missing",
    ):
        train("steps=1", f"evaluators={{'val': {{'source': 'jsonl:{tmp_path}/x.jsonl'}}}}")
