"""Questions about pictures as a source, and the embedded ones."""

import pickle
from collections import Counter

import pytest

from vlp_jax.data.sources.embedded_vqa import QuestionSource
from vlp_jax.data.sources.registry import Source, open_source
from vlp_jax.errors import DataError


@pytest.mark.full
@pytest.mark.parametrize(
    ("split", "count", "pictures"), [("train", 21_444, 9_109), ("val_vendor", 4_380, 1_690)]
)
def test_every_question_is_about_a_picture_whose_metadata_agree_with_the_answer(
    split, count, pictures
):
    source = open_source(f"embedded:emoji_vqa/{split}")
    assert isinstance(source, Source) and len(source) == count
    samples = [source[i] for i in range(len(source))]
    assert len({sample.key.split("?")[0] for sample in samples}) == pictures
    assert len({sample.key for sample in samples}) == count
    asked = Counter(sample.metadata["type"] for sample in samples)
    assert asked["group"] > 1_000 and asked["yesno"] > 1_000
    for sample in samples:
        (question,), kind, answer = (
            sample.captions,
            sample.metadata["type"],
            sample.metadata["answer"],
        )
        assert question.endswith("?") and answer
        if kind == "yesno":
            assert answer in ("yes", "no")
        if kind == "group":
            assert {*answer.replace("&", " ").split()} <= {
                *sample.metadata["group"].replace("-", " ").split()
            } | {"&"}


def test_a_picture_is_the_very_one_that_the_question_names():
    pictures, questions = (
        open_source("embedded:emoji/val_vendor"),
        open_source("embedded:emoji_vqa/val_vendor"),
    )
    images = {pictures[i].key: pictures[i].image for i in range(len(pictures))}
    for i in (0, 1, 2000, -1):
        assert questions[i].image == images[questions.rows[i]["image"]]
    assert pickle.loads(pickle.dumps(questions))[7] == questions[7]
    with pytest.raises(IndexError):
        questions[len(questions)]


def test_the_fingerprint_changes_with_an_answer_and_unknown_pictures_and_splits_are_named():
    pictures = open_source("embedded:emoji/val_vendor")
    row = dict(image=pictures[3].key, type="name", question="what is it?", answer="a")
    others = [{**row, "answer": "b"}]
    assert (
        QuestionSource(pictures, [row], "q").fingerprint()
        != QuestionSource(pictures, others, "q").fingerprint()
    )
    with pytest.raises(
        DataError, match="asks about nothing, which is no image of embedded:emoji/val_vendor"
    ):
        QuestionSource(pictures, [{**row, "image": "nothing"}], "q")
    with pytest.raises(DataError, match="no split 'test'; splits: train, val_vendor"):
        open_source("embedded:emoji_vqa/test")
