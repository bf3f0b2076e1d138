"""`visdial:visdial_1.0_val.json?root=FOLDER`: dialogues about images (Das et al. 2017).

{"split", "data": {"questions": [text], "answers": [text], "dialogs": [{"image_id", "caption",
"dialog": [{"question", "answer", "answer_options", "gt_index"}]}]}}, where questions and answers
are numbers in the two lists. A sample is a turn: its caption is the caption of the image, all
earlier questions and answers, and the newest question. Metadata: `answer` (not in the test split),
`answers` (a list of it), `answer_options` (100 texts) with `gt_index`, the number of the right one,
where they are there; `question`, `turn`, from 1 on, and `image_id`.

Option `image` names the images by their ids; by default VisualDialog_val2018_000000000042.jpg, in
`root` or its folder VisualDialog_val2018, and for the training split COCO_train2014_000000000042
in the folder train2014, or else the like in val2014.
"""

from collections.abc import Iterator
from typing import Any

from vlp_jax.data.layouts.documents import Entry, read_object
from vlp_jax.data.layouts.records import (
    Arrays,
    ImageNames,
    Notes,
    RecordSource,
    Rows,
    Texts,
    packed,
    split_layout,
)
from vlp_jax.errors import DataError

TEXT, OPTIONS, ANSWERS = "text", "answer_options", "answer_texts"
TRAIN_IMAGES = ("train2014/COCO_train2014_{:012}.jpg", "val2014/COCO_val2014_{:012}.jpg")


def image_names(split: str) -> list[str]:
    """The names of images of a split with a folder of its own, below `root` or as `root`."""
    name = f"VisualDialog_{split}2018"
    return [f"{name}/{name}_{{:012}}.jpg", f"{name}_{{:012}}.jpg"]


def ended(text: str, mark: str) -> str:
    """A text with a mark at its end."""
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else f"{text}{mark}"


def text_at(texts: list, place: Entry, field: str) -> str:
    """The text whose number a field holds.

    Raises:
      DataError: if there is none.
    """
    number = place.whole(field)
    if not 0 <= number < len(texts) or not isinstance(texts[number], str):
        raise DataError(f"{place}: its {field} is {number}, and there are {len(texts)} texts")
    return texts[number]


def turns(dialog: Entry, questions: list, answers: list) -> Iterator[dict[str, Any]]:
    """The turns of a dialogue."""
    history = ended(dialog.text("caption"), ".")
    for number, turn in enumerate(dialog.entries("dialog"), 1):
        if "question" not in turn:  # after the last turn of a test dialogue
            return
        question = ended(text_at(questions, turn, "question"), "?")
        row: dict[str, Any] = {TEXT: f"{history} {question}", "question": question, "turn": number}
        if "answer" in turn:
            answer = text_at(answers, turn, "answer")
            row |= {"answer": answer, "answers": [answer]}
            history = f"{history} {question} {ended(answer, '.')}"
        if OPTIONS in turn:
            row[OPTIONS] = options_of(turn, len(answers))
        yield {**row, **turn.some("gt_index")}


def options_of(turn: Entry, count: int) -> list[int]:
    """The numbers of the answers to choose from.

    Raises:
      DataError: if one is no number of an answer.
    """
    numbers = turn.items(OPTIONS)
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number < count:
            raise DataError(f"{turn}: its {OPTIONS} have {number!r}, and there are {count} answers")
    return numbers


class DialogueSource(RecordSource):
    """Turns of dialogues. Texts of the answers to choose from are stored once, next to the rows."""

    def __init__(self, document: str, *args: Any):
        self.document = document
        super().__init__(*args)
        self.answers = Texts(self.index[ANSWERS], self.index[f"{ANSWERS}_starts"])

    def build(self, read: Any) -> Arrays:
        """The arrays of the index, with the answers."""
        arrays = super().build(read)
        answers = read_object(self.document, "dialogues").entry("data").items("answers")
        return {**arrays, **packed(iter(answers), ANSWERS)}

    def described(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the texts of `answer_options`."""
        row = super().described(key, row)
        if OPTIONS in row:
            row[OPTIONS] = [self.answers[number] for number in row[OPTIONS]]
        return row


def open_visdial(rest: str) -> DialogueSource:
    """The turns of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "visdial", ("image",))
    ImageNames(options, ["{}"], spec)  # checks the option

    def read(notes: Notes) -> Rows:
        document = read_object(path, "dialogues")
        split, data = str(document.get("split")).removesuffix("2018"), document.entry("data")
        default = TRAIN_IMAGES if split == "train" else image_names(split)
        names = ImageNames(options, default, spec)
        questions, answers = data.items("questions"), data.items("answers")
        for dialog in data.entries("dialogs"):
            number = dialog.whole("image_id")
            for row in turns(dialog, questions, answers):
                key = f"{number}-{row['turn']}"
                yield key, {"image": names(number), **row, "image_id": number}

    return DialogueSource(path, path, (), spec, options, read, TEXT)
