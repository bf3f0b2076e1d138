"""Dialogues about the images of another source, made of questions about them:
`embedded:emoji_dialogues/train`."""

from collections.abc import Iterable, Mapping

from vlp_jax.data.samples import Source
from vlp_jax.data.sources.embedded_vqa import QuestionSource

FIRST = "what is shown?"


def dialogue_source(
    pictures: Source, questions: Iterable[Mapping[str, str]], spec: str
) -> QuestionSource:
    """One sample a turn, as in Das et al. 2017, "Visual Dialog".

    The caption of a sample is all previous questions and answers about the image, followed by the
    newest question. The metadata's `answer` is the reply, and `type` the intent of the question.

    Args:
      pictures: the source of the images.
      questions: as of `QuestionSource`. Those about one image, in their order, are one dialogue.
      spec: name of the source in messages.
    """
    asked: dict[str, list[Mapping[str, str]]] = {}
    for row in questions:
        asked.setdefault(row["image"], []).append(row)
    return QuestionSource(pictures, [turn for rows in asked.values() for turn in turns(rows)], spec)


def turns(rows: list[Mapping[str, str]]) -> Iterable[dict[str, str]]:
    """The turns of the dialogue that consists of these questions about one image."""
    history, denied = "", False
    for row in rows:
        question = "then what is it?" if denied and row["question"] == FIRST else row["question"]
        question = f"and {question}" if history and question == row["question"] else question
        yield {**row, "question": f"{history}{question}"}
        history += f"{question} {row['answer']}. "
        denied = row["answer"] == "no"
