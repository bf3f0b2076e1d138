"""Over which devices a checkpoint is evaluated."""

import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from vlp_jax import evaluate, main
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.loading import restore_targets
from vlp_jax.sharding.mesh import MeshConfig

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.full
def test_parameters_lie_as_in_training_or_whole_where_the_mesh_does_not_fit(
    tiny, tmp_path, monkeypatch, capsys
):
    flags = tiny(
        "data.train.source=synthetic:64?height=20&width=24", "steps=1", "mesh.data=2", "mesh.fsdp=4"
    )
    assert (
        main.main(
            [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={tmp_path}/run", *flags]
        )
        == 0
    )
    load, held, metrics = evaluate.load, [], []

    def loaded(*arguments, **options):
        # the step is found once, by host 0 for all, while a run may save another
        assert arguments[1] == 1
        model, variables, preprocessor = load(*arguments, **options)
        largest = max(jax.tree.leaves(variables), key=lambda leaf: leaf.size)
        held.append(largest.size / largest.addressable_shards[0].data.size)
        return model, variables, preprocessor

    monkeypatch.setattr(evaluate, "load", loaded)
    for devices in (8, 6):
        monkeypatch.setattr(evaluate.jax, "device_count", lambda devices=devices: devices)
        capsys.readouterr()
        output = tmp_path / f"{devices}.json"
        assert (
            evaluate.main(
                [
                    f"--workdir={tmp_path}/run",
                    "--source=synthetic:24?height=20&width=24",
                    f"--output={output}",
                ]
            )
            == 0
        )
        metrics.append(json.loads(output.read_text()))
        assert ("not as trained" in capsys.readouterr().err) == (devices == 6)
    assert held == [4, 1]
    assert metrics[0] == pytest.approx(metrics[1])


@pytest.mark.parametrize(
    ("mesh", "shape"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), (1, 8, 1)),
        (MeshConfig(data=64, tensor=2), (4, 1, 2)),
        (MeshConfig(fsdp=16), (8, 1, 1)),
    ],
)
def test_data_takes_the_devices_that_the_other_axes_leave(mesh, shape):
    assert tuple(evaluate.evaluation_layout(mesh).mesh.shape.values()) == shape


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """A JSON lines file of questions, several about each picture, and a finished run on it with
    what it measured."""
    folder = tmp_path_factory.mktemp("answers")
    rows = [
        dict(
            image=f"{number // 3}.png",
            caption=f"question {number % 3}?",
            year=2000 + number,
            answer=["red", "blue", "red", "two", "old"][number % 5],
            type=["colour", "count"][number % 2],
        )
        for number in range(15)
    ]
    for number in range(5):
        Image.fromarray(np.full((20, 24, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.full
def test_metrics_of_a_set_are_the_same_in_training_and_after_it_with_the_checkpoints_classes(
    tiny, answers, capsys
):
    source = f"jsonl:{answers}/x.jsonl"
    targets = {
        "answer": dict(kind="class", field="answer", classes=3),
        "year": dict(kind="number", field="year", mean=2000.0),
    }
    objectives = {
        "answer": dict(kind="classification", target="answer"),
        "year": dict(kind="regression", target="year", features="image"),
    }
    evaluators = {
        "held_out": dict(source=source, tasks=dict(classification=dict(by="type"), regression={}))
    }
    flags = tiny(
        f"data.train.source={source}",
        "steps=2",
        f"data.targets={targets}",
        f"objectives={objectives}",
        f"evaluators={evaluators}",
        "model.fusion={'kind': 'concatenation', 'width': 16, 'mlp_dim': 16}",
    )
    assert (
        main.main(
            [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={answers}/run", *flags]
        )
        == 0
    )
    rows = [json.loads(line) for line in (answers / "run/metrics.jsonl").read_text().splitlines()]
    assert (
        0.5 < rows[-1]["train/answer/target_rate"] <= 1.0 and rows[-1]["train/year/reference"] > 1
    )
    measured = {
        key.removeprefix("held_out/"): value
        for key, value in rows[-1].items()
        if key.startswith("held_out/")
    }
    assert (
        measured["classification_majority"] == pytest.approx(0.4)
        and measured["classification_samples/colour"] == 8
    )
    assert measured["classification_known"] == pytest.approx(0.8)
    # other classes, from now on
    (answers / "x.jsonl").write_text((answers / "x.jsonl").read_text().replace('"two"', '"old"'))
    assert restore_targets(f"{answers}/run").classes == {"answer": ("red", "blue", "old")}
    capsys.readouterr()
    assert (
        evaluate.main(
            [
                f"--workdir={answers}/run",
                f"--source={source}",
                "--evaluators=classification,regression",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["classification_known"] == 1.0 and found[
        "classification_majority"
    ] == pytest.approx(0.4)
    same = ("squared_error", "absolute_error", "variance")
    assert {key: found[f"regression_{key}"] for key in same} == pytest.approx(
        {key: measured[f"regression_{key}"] for key in same}
    )
    assert "classification_accuracy/count" in found
    with pytest.raises(
        ConfigError,
        match="--objective: 'year' is no objective of kind 'classification' or 'answering'",
    ):
        evaluate.main(
            [
                f"--workdir={answers}/run",
                f"--source={source}",
                "--evaluators=classification",
                "--objective=year",
            ]
        )


@pytest.mark.slow
def test_answers_are_learned_and_written_and_ranked_alike_in_training_and_after_it(
    tiny, tmp_path, capsys
):
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
    rows = []
    for colour, pixel in colours.items():
        Image.fromarray(np.full((20, 24, 3), pixel, np.uint8)).save(tmp_path / f"{colour}.png")
        rows += [
            dict(image=f"{colour}.png", caption="what colour is it?", answer=colour),
            dict(image=f"{colour}.png", caption="is it a picture?", answer="yes"),
        ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, stack = (
        f"jsonl:{tmp_path}/x.jsonl",
        "'preset': 'Ti', 'width': 32, 'depth': 1, 'heads': 2, 'mlp_dim': 64",
    )
    flags = tiny(
        f"data.train.source={source}",
        "steps=120",
        "optimizer.learning_rate=0.01",
        "log_every=40",
        "ema=none",
        "data.targets={'answer': {'kind': 'text', 'field': 'answer', 'classes': 5, 'length': 5}}",
        "objectives={'answer': {'kind': 'answering', 'target': 'answer', 'shortlist': 3}}",
        f"model.fusion={{'kind': 'cross_attention', {stack}}}",
        f"model.decoder={{'kind': 'transformer', {stack}}}",
        f"evaluators={{'held_out': {{'source': '{source}', 'tasks': ('classification', "
        "'answers')}}",
    )
    assert (
        main.main(
            [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={tmp_path}/run", *flags]
        )
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert (
        rows[-1]["held_out/classification_accuracy"] > 0.8
        and rows[-1]["held_out/classification_majority"] == 0.5
    )
    assert rows[-1]["train/answer/cross_entropy"] < 0.5 * rows[-1]["train/answer/unigram_entropy"]
    assert (
        rows[-1]["held_out/answers_samples"] == 8 and rows[-1]["held_out/answers_exact_match"] > 0.8
    )
    text = (tmp_path / "run/answers/held_out-000120.txt").read_text()
    assert (
        text.startswith("1. what colour is it?\n   written: ")
        and "2. is it a picture?\n   written: yes\n   true: yes\n" in text
    )
    for more in ([], ["--num-beams=4", "--length-penalty=0.5", "--early-stopping=never"]):
        capsys.readouterr()
        flags = [f"--workdir={tmp_path}/run", f"--source={source}", *more]
        assert evaluate.main([*flags, "--evaluators=classification,answers"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["classification_accuracy"] == rows[-1]["held_out/classification_accuracy"]
        assert (
            found["answers_exact_match"] > 0.8
            if more
            else (found["answers"], found["answers_exact_match"])
            == (text, rows[-1]["held_out/answers_exact_match"])
        )
    with pytest.raises(
        ConfigError, match="--length-penalty: has no effect with num_beams=1: it is for beam search"
    ):
        evaluate.main(
            [
                f"--workdir={tmp_path}/run",
                f"--source={source}",
                "--length-penalty=2",
                "--evaluators=answers",
            ]
        )
    for beams, tasks, words in (
        ("0", "answers", "must be at least 1"),
        ("2", "classification", "captions and answers"),
    ):
        with pytest.raises(ConfigError, match=f"--num-beams: .*{words}"):
            evaluate.main(
                [
                    f"--workdir={tmp_path}/run",
                    f"--source={source}",
                    f"--num-beams={beams}",
                    f"--evaluators={tasks}",
                ]
            )


@pytest.mark.slow
def test_the_loss_on_held_out_captions_is_measured_and_captions_need_a_decoder(tmp_path, capsys):
    flags = ["--config.steps=1", "--config.data.batch_size=8", "--config.evaluators={}"]
    assert (
        main.main(
            [f"--config={ROOT}/configs/vit_gpt2.py:smoke", f"--workdir={tmp_path}/run", *flags]
        )
        == 0
    )
    capsys.readouterr()
    flags = [f"--workdir={tmp_path}/run", "--source=embedded:emoji/val_concept"]
    assert evaluate.main([*flags, "--evaluators=captions", "--num-beams=2"]) == 0
    found = json.loads(capsys.readouterr().out)
    # ln 4096 is 8.3
    assert 4 < found["caption_loss"] < 12 and found["captions"].count("true: ") == 5
    scored = ["--evaluators=captions", "--generate=6", "--references=keywords"]
    assert evaluate.main([*flags, *scored, f"--output={tmp_path}/metrics.json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        0 <= found["bleu_4"] < 0.5 and 0 <= found["meteor"] < 0.5 and "captions.json" not in found
    )
    assert len(json.loads((tmp_path / "metrics.captions.json").read_text())) == 6
    with pytest.raises(ConfigError, match="retrieval"):
        evaluate.main([*flags, "--evaluators=retrieval"])


@pytest.mark.full
def test_tars_of_classes_and_tables_with_a_row_for_each_caption_are_trained_on_and_evaluated(
    tiny, tmp_path, capsys
):
    """CLIP_benchmark's layout: the names of four classes, of which three occur, and prompts, one
    folder above the tars."""
    (tmp_path / "test").mkdir()
    for number in range(6):
        Image.fromarray(np.full((20, 24, 3), 40 * number, np.uint8)).save(
            tmp_path / f"test/s{number}.jpg"
        )
        (tmp_path / f"test/s{number}.cls").write_text(str(number % 3))
    with tarfile.open(tmp_path / "test/0.tar", "w") as tar:
        for number in range(6):
            tar.add(tmp_path / f"test/s{number}.cls", f"s{number}.cls")
            tar.add(tmp_path / f"test/s{number}.jpg", f"s{number}.jpg")
    (tmp_path / "classnames.txt").write_text("tench\nshark\ncrane\nstork\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text(
        "a photo of a {c}.\na bad photo of a {c}.\n"
    )
    rows = "".join(
        f"s{number}.jpg,caption {way} of {number}\n" for way in range(3) for number in range(6)
    )
    (tmp_path / "test/x.csv").write_text(f"image,caption\n{rows}")
    classes, table = f"webdataset:{tmp_path}/test/0.tar", f"csv:{tmp_path}/test/x.csv"
    evaluators = {
        "classes": dict(source=classes, tasks=dict(zero_shot=dict(class_field="cls"))),
        "table": dict(source=table),
    }
    flags = tiny(f"data.train.source={classes}", "steps=2", f"evaluators={evaluators}")
    assert (
        main.main(
            [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={tmp_path}/run", *flags]
        )
        == 0
    )
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert (row["classes/classes"], row["table/images"], row["table/texts"]) == (4, 6, 18)
    # before the first update
    with pytest.raises(DataError, match="are numbers, such as 0, and nothing names them"):
        table = dict(
            source=table.replace("x.csv", "y.csv"), tasks=dict(zero_shot=dict(class_field="label"))
        )
        (tmp_path / "test/y.csv").write_text("image,caption,label\ns0.jpg,a,0\ns1.jpg,b,1\n")
        main.main(
            [
                f"--config={ROOT}/configs/clip_emoji.py:smoke",
                f"--workdir={tmp_path}/other",
                *tiny(f"data.train.source={classes}", "steps=2", f"evaluators={dict(table=table)}"),
            ]
        )
    assert not (tmp_path / "other/metrics.jsonl").exists()
    capsys.readouterr()
    assert (
        evaluate.main(
            [
                f"--workdir={tmp_path}/run",
                f"--source={classes}",
                "--evaluators=zero_shot",
                "--class-field=cls",
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    assert json.loads(said.out)["zero_shot_accuracy"] == row["classes/zero_shot_accuracy"]
    assert "zero-shot prompts are its own 2, such as 'a photo of a {}.'" in said.err
