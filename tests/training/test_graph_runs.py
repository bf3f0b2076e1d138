"""Runs with graphs of given boxes and parses, from a file with both to the metrics of an evaluator
and the door that evaluates."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_experiment import experiment

from vlp_jax import evaluate, main
from vlp_jax.config import to_config, to_tree
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.training.build import build_run, example_batch

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
GRAPHS = dict(
    model__fusion=dict(
        kind="graph", width=8, heads=2, mlp_dim=8, rounds=1, regions="boxes", words="dependencies"
    ),
    data__boxes=dict(field="regions.box", count=3),
    data__dependencies=dict(field="parse"),
    objectives=dict(pair=dict(kind="matching", negatives="uniform")),
)
PARSE = [[1, 0], [4, 1], [4, 2], [4, 3]]


@pytest.fixture
def source(tmp_path):
    """Two squares on each of twelve pictures, said in two captions.

    The third sample has a box without width, the fourth neither boxes nor parses.
    """
    rng, names, rows = np.random.default_rng(0), list(COLOURS), []
    for number in range(12):
        left, right = rng.choice(names, 2)
        picture, boxes = np.zeros((16, 24, 3), np.uint8), [[2, 3, 9, 10], [13, 5, 21, 14]]
        for (x, y, end, bottom), colour in zip(boxes, (left, right), strict=True):
            picture[y:bottom, x:end] = COLOURS[colour]
        picture[0, 0] = number
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        captions = [f"{left} square beside a {right} one {number}", f"{right} {left}"]
        rows.append(
            {
                "image": f"{number}.png",
                "caption": captions,
                "regions": [{"box": box} for box in boxes],
                "parse": [PARSE, [[0, 1]]],
            }
        )
    rows[2]["regions"] = [{"box": [5, 5, 5, 9]}]
    del rows[3]["regions"], rows[3]["parse"]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "good.jsonl").write_text("\n".join(map(json.dumps, rows[:2] + rows[3:])))
    return tmp_path


def config_of(folder, **changes):
    return experiment(
        **GRAPHS,
        **dict(
            model__text__vocab_size=4096,
            model__text__length=24,
            steps=3,
            log_every=1,
            data__train__source=f"jsonl:{folder}/all.jsonl",
            data__max_bad_fraction=0.5,
            data__augmentation__area=(0.5, 1.0),
            data__augmentation__flip=0.5,
            evaluators=dict(
                val=dict(source=f"jsonl:{folder}/good.jsonl", tasks=("matching",), batch_size=4)
            ),
        )
        | changes,
    )


@pytest.mark.slow
def test_a_run_learns_from_boxes_and_parses_and_both_doors_measure_the_same(
    source, tmp_path, capsys
):
    tree = to_tree(config_of(source))
    lines = (
        "from ml_collections import ConfigDict",
        "def get_config():",
        f"    return ConfigDict({tree!r})",
        "",
    )
    (tmp_path / "config.py").write_text("\n".join(lines))
    assert main.main([f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3] and all(
        np.isfinite(row["train/loss"]) for row in rows
    )
    assert rows[-1]["train/bad_examples/wrong_boxes"] == 2  # 24 examples, two passes over twelve
    capsys.readouterr()
    assert (
        evaluate.main(
            [
                f"--workdir={tmp_path}/run",
                f"--source=jsonl:{source}/good.jsonl",
                "--evaluators=matching",
                "--batch-size=4",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["matching_pairs"] == 22
    assert {f"val/{name}": value for name, value in found.items()} == {
        key: rows[-1][key] for key in rows[-1] if key[:4] == "val/"
    }


@pytest.mark.slow
def test_the_batch_that_compiles_is_the_batch_that_comes_and_microbatches_take_it(source):
    for accumulation in ({}, dict(microbatches=2, negatives="microbatch")):
        config = config_of(source, evaluators={}, accumulation=accumulation, mesh=dict(data=4))
        run = build_run(config)
        batches, state = run.batches(0), run.initial_state()
        batch = next(batches)
        batches.close()
        abstract = jax.eval_shape(lambda config=config: example_batch(config, 8))
        assert {name: value.shape for name, value in abstract.items()} == {
            name: batch[name].shape for name in abstract
        }
        assert all(batch[name].dtype == abstract[name].dtype for name in ("boxes", "word_edges"))
        assert batch["boxes"].shape == (8, 3, 4) and batch["word_edges"].shape == (8, 24, 24)
        _, metrics = run.train_step(state, run.to_device(batch))
        assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["gradient_norm"])


@pytest.mark.full
def test_a_row_s_boxes_and_edges_are_those_of_its_picture_and_of_the_caption_that_is_drawn(source):
    run = build_run(
        config_of(
            source,
            evaluators={},
            data__augmentation__flip=0.0,
            data__augmentation__area=None,
            data__images__resize="squash",
        )
    )
    samples = {
        sample.key: sample
        for sample in map(open_source(f"jsonl:{source}/all.jsonl").__getitem__, range(12))
    }
    batches, drawn = run.batches(0), set()
    for batch in (next(batches) for _ in range(3)):
        for boxes, edges, key, text in zip(
            batch["boxes"], batch["word_edges"], batch["key"], batch["text"], strict=True
        ):
            alone = key == "all.jsonl:4"
            expected = (
                [[0, 0, 1, 1]]
                if alone
                else [[2 / 24, 3 / 16, 9 / 24, 10 / 16], [13 / 24, 5 / 16, 21 / 24, 14 / 16]]
            )
            np.testing.assert_allclose(boxes[: len(expected)], expected, atol=1e-6)
            assert np.isnan(boxes[len(expected) :]).all()
            rows = [
                {"text": caption, "parse": np.zeros((0, 2), int) if alone else np.array(parse)}
                for caption, parse in zip(
                    samples[str(key)].captions, (PARSE, [[0, 1]]), strict=True
                )
            ]
            made = run.preprocessor.words_of(rows)
            place = int(np.flatnonzero((made["text"] == text).all(axis=1))[0])
            np.testing.assert_array_equal(edges, made["word_edges"][place])
            drawn.add(place)
    batches.close()
    assert drawn == {0, 1}


def test_wrong_pairs_of_an_evaluation_have_the_picture_s_boxes_and_the_caption_s_parse(source):
    run = build_run(config_of(source))
    data = EvaluationSet(open_source(f"jsonl:{source}/good.jsonl"))
    pairs = [
        (0, data.captions[0]),
        (2, data.captions[0]),
        (0, data.captions[4]),
        (1, data.captions[1]),
    ]
    rows = list(data.pairs(run.preprocessor, 2, pairs))
    assert [row["text"] for row in rows] == [caption for _, caption in pairs]
    assert [row["parse"].tolist() for row in rows] == [PARSE, PARSE, [], [[0, 1]]]
    assert [int(np.isfinite(row["boxes"]).all(axis=1).sum()) for row in rows] == [2, 1, 2, 2]
    with pytest.raises(
        DataError,
        match=r"all.jsonl: all.jsonl:3: its regions.box holds \[5.0, "
        r"5.0, 5.0, 9.0\]",
    ):
        build_run(
            to_config(
                to_tree(config_of(source))
                | {
                    "evaluators": {
                        "val": {"source": f"jsonl:{source}/all.jsonl", "tasks": ("matching",)}
                    }
                }
            )
        ).evaluation({}, run.targets())
    prompted = EvaluationSet(open_source(f"jsonl:{source}/good.jsonl?prompt=a {{}}"))
    with pytest.raises(DataError, match="its option prompt= adds words"):
        prompted.check_graphs(run.preprocessor)
