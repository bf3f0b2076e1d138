"""Dialogues made of questions about pictures."""

import pytest

from vlp_jax.data.sources.embedded_dialogues import turns
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import DataError


def row(question, answer, kind="name"):
    return dict(image="a", type=kind, question=question, answer=answer)


def test_each_turn_tells_what_was_said_before_and_its_reply_is_not_among_it():
    rows = [
        row("is this a cat?", "no", "yesno"),
        row("what is shown?", "fox"),
        row("what is shown?", "fox"),
    ]
    made = list(turns(rows))
    assert [turn["question"] for turn in made] == [
        "is this a cat?",
        "is this a cat? no. then what is it?",
        "is this a cat? no. then what is it? fox. and what is shown?",
    ]
    assert [(turn["answer"], turn["type"]) for turn in made] == [
        ("no", "yesno"),
        ("fox", "name"),
        ("fox", "name"),
    ]


@pytest.mark.parametrize("split", ["train", "val_vendor"])
def test_the_embedded_dialogues_have_a_turn_for_every_question_about_its_own_picture(split):
    dialogues, questions = (
        open_source(f"embedded:{name}/{split}") for name in ("emoji_dialogues", "emoji_vqa")
    )
    assert len(dialogues) == len(questions) and dialogues.fingerprint() != questions.fingerprint()
    counts = {}
    for turn in dialogues.rows:
        counts[turn["image"]] = counts.get(turn["image"], 0) + 1
        assert turn["question"].count(". ") >= counts[turn["image"]] - 1
    assert max(counts.values()) > 2
    asked = sorted((row["image"], row["type"], row["answer"]) for row in questions.rows)
    assert sorted((row["image"], row["type"], row["answer"]) for row in dialogues.rows) == asked
    with pytest.raises(DataError, match="no split 'test'; splits: train, val_vendor"):
        open_source("embedded:emoji_dialogues/test")
