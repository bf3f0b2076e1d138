"""A queue of earlier embeddings in checkpoints, and evaluation of what ALBEF has beside CLIP."""

import json
import pathlib
import shutil

import pytest

from vlp_jax import evaluate, main
from vlp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`train("KEY=VALUE", ...)`: four updates of a small ALBEF in one folder -> (their losses, the
    folder)."""
    workdir = tmp_path_factory.mktemp("albef")

    def run(*changes):
        small = (
            "evaluators={}",
            "data.batch_size=8",
            "objectives.contrastive.queue=24",
            "steps=4",
            "checkpoint.every_steps=2",
            "optimizer.schedule.kind=constant",
        )
        changes = {change.split("=", 1)[0]: change for change in (*small, *changes)}.values()
        arguments = [f"--config={ROOT}/configs/albef.py:smoke", f"--workdir={workdir}"]
        assert main.main([*arguments, *(f"--config.{change}" for change in changes)]) == 0
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return [row["train/loss"] for row in rows if "train/loss" in row], workdir

    return run


def test_a_resumed_run_has_the_queue_of_the_unbroken_one_and_a_queue_of_another_size_is_refused(
    train,
):
    unbroken, workdir = train()
    shutil.rmtree(workdir / "checkpoints" / "4")
    assert train()[0] == unbroken and len(unbroken) == 4
    shutil.rmtree(workdir / "checkpoints" / "4")
    with pytest.raises(UserError, match="contrastive.*queue"):
        train("objectives.contrastive.queue=32")


def test_evaluate_tells_matching_pairs_apart(train, capsys):
    workdir = train()[1]
    capsys.readouterr()
    assert (
        evaluate.main(
            [
                f"--workdir={workdir}",
                "--source=embedded:emoji/val_concept",
                "--evaluators=retrieval,matching",
            ]
        )
        == 0
    )
    metrics = json.loads(capsys.readouterr().out)
    assert 0 <= metrics["matching_accuracy"] <= 1 and "text_to_image_recall@1" in metrics
