"""`vqa:QUESTIONS?annotations=FILE&root=FOLDER`: visual question answering, a sample a question.

Read are the layouts of
- VQA v2 (Goyal et al. 2017) and OK-VQA (Marino et al. 2019): {"questions": [{"question_id",
  "image_id", "question"}], "data_subtype": "val2014"} with the answers in another file,
  {"annotations": [{"question_id", "multiple_choice_answer", "answer_type", "question_type",
  "answers": [{"answer"}]}]}, images COCO_val2014_000000000042.jpg;
- TextVQA (Singh et al. 2019): {"data": [{"question_id", "image_id", "question", "answers": [..]}]};
- GQA (Hudson and Manning 2019): {"ID": {"imageId", "question", "answer", "types"}}.

The caption is the question. Metadata: `question_id`, `image_id`, `answers` (a list, of all
annotators), `answer`, and the types; test sets have no answers. Options: `annotations`, `root`,
and `image`, the names of images by their ids, `?image=val2014/COCO_val2014_{:012}.jpg`.
"""

from typing import Any

from vlp_jax.data.layouts.documents import Entry, read_object
from vlp_jax.data.layouts.records import (
    ImageNames,
    Notes,
    RecordSource,
    Rows,
    optional_file,
    split_layout,
)
from vlp_jax.errors import DataError

QUESTION = "question"
IMAGES_OF = {"test-dev2015": "test2015"}  # a split that is a part of another one


def open_vqa(rest: str) -> RecordSource:
    """The questions of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file, another format, or annotations of other
        questions.
    """
    spec, path, options = split_layout(rest, "vqa", ("annotations", "image"))
    answers = optional_file(path, options, "annotations", spec)

    def read(notes: Notes) -> Rows:
        document = read_object(path, "questions of VQA v2, TextVQA or GQA")
        if "questions" in document:
            names = ImageNames(options, [coco_name(document)], spec)
            questions, given = document.entries("questions"), annotations(answers)
            yield from (vqa_v2(question, given, answers, names) for question in questions)
        elif "data" in document:
            names = ImageNames(options, ["{}.jpg"], spec)
            yield from (text_vqa(question, names) for question in document.entries("data"))
        else:
            yield from gqa(document, ImageNames(options, ["{}.jpg"], spec))

    ImageNames(options, ["{}"], spec)  # checks the option
    return RecordSource(path, [answers] if answers else [], spec, options, read, QUESTION)


def coco_name(document: Entry) -> str:
    """The pattern of the names of COCO's images of a split."""
    split = document.get("data_subtype") or ""
    return f"COCO_{IMAGES_OF.get(split, split)}_{{:012}}.jpg" if split else "{:012}.jpg"


def annotations(path: str | None) -> dict[int | str, Entry]:
    """The annotations of VQA v2 by question; none without a file."""
    if path is None:
        return {}
    document = read_object(path, "annotations of VQA v2")
    return {
        annotation.number_or_text("question_id"): annotation
        for annotation in document.entries("annotations")
    }


def vqa_v2(
    question: Entry, given: dict[int | str, Entry], path: str | None, names: ImageNames
) -> tuple[str, dict[str, Any]]:
    """The key and the row of a question of VQA v2, with its annotation if there is a file."""
    number, image = question.number_or_text("question_id"), question.number_or_text("image_id")
    if path is not None and number not in given:
        raise DataError(f"{question}: {path} has no annotation of question {number}")
    row = {
        "image": names(image),
        QUESTION: question.text("question"),
        "question_id": number,
        "image_id": image,
    }
    if number in given:
        annotation = given[number]
        row["answers"] = [answer.text("answer") for answer in annotation.entries("answers")]
        row |= annotation.some("answer_type", "question_type")
        if "multiple_choice_answer" in annotation:
            row["answer"] = annotation.text("multiple_choice_answer")
    return str(number), row


def text_vqa(question: Entry, names: ImageNames) -> tuple[str, dict[str, Any]]:
    """The key and the row of a question of TextVQA."""
    number, image = question.number_or_text("question_id"), question.number_or_text("image_id")
    row = {"image": names(image), QUESTION: question.text("question"), "question_id": number}
    return str(number), {**row, "image_id": image, **question.some("answers", "image_classes")}


def gqa(document: Entry, names: ImageNames) -> Rows:
    """The keys and rows of the questions of GQA."""
    for number in document.fields:
        question = document.entry(number)
        image = question.number_or_text("imageId")
        row = {"image": names(image), QUESTION: question.text("question"), "question_id": number}
        kept = question.some("answer", "fullAnswer", "types")
        answers = {"answers": [kept["answer"]]} if "answer" in kept else {}
        yield number, {**row, "image_id": image, **answers, **kept}
