"""`vcr:FILE.jsonl?root=vcr1images`: visual commonsense reasoning (Zellers et al. 2019).

Lines {"annot_id", "img_fn", "metadata_fn", "objects", "question", "answer_choices",
"rationale_choices", "answer_label", "rationale_label"}, in whose tokenized texts [0, 2] are
numbers of objects. They become `person 1 and person 3`: the kind of an object, and its number,
counted from 1. The caption is the question. Metadata: `answer_choices` and `rationale_choices`,
`answer` and `rationale`, the right ones, with their numbers `answer_label` and `rationale_label`
(not in the test split), `objects`, and their `boxes` in pixels, from the file `metadata_fn`.
"""

import re
from typing import Any

from vlp_jax.data.layouts.documents import Entry, read_lines, read_object
from vlp_jax.data.layouts.records import Notes, RecordSource, Rows, split_layout
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.columns import image_name
from vlp_jax.data.sources.filesystem import MissingFileError, join
from vlp_jax.errors import DataError

BEFORE_MARKS = re.compile(r" (?=[?.!,;:'’]|n't\b)")
METADATA = "metadata_fn"


def sentence(line: Entry, tokens: list) -> str:
    """A tokenized text as one text.

    Raises:
      DataError: if a token is neither a text nor a list of numbers of objects.
    """
    objects, words = line.items("objects"), []
    for token in tokens:
        if isinstance(token, list):
            if not all(isinstance(at, int) and 0 <= at < len(objects) for at in token):
                raise DataError(f"{line}: {token} is no list of numbers of its objects")
            words.append(" and ".join(f"{objects[at]} {at + 1}" for at in token))
        elif isinstance(token, str):
            words.append(token)
        else:
            raise DataError(f"{line}: its text has {token!r}, neither a word nor a list")
    return BEFORE_MARKS.sub("", " ".join(words))


def choices(line: Entry, name: str) -> dict[str, Any]:
    """The four answers, or rationales, with the right one where it is known."""
    field = f"{name}_choices"
    if field not in line:
        return {}
    texts = [sentence(line, tokens) for tokens in line.items(field)]
    if f"{name}_label" not in line:
        return {field: texts}
    right = line.whole(f"{name}_label")
    if not 0 <= right < len(texts):
        raise DataError(f"{line}: its {name}_label is {right}, and there are {len(texts)} choices")
    return {field: texts, f"{name}_label": right, name: texts[right]}


class VcrSource(RecordSource):
    """Questions, with the boxes in the file next to each image."""

    def described(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with `boxes`.

        Raises:
          SampleError: if their file is missing or has none.
        """
        row = super().described(key, row)
        folder = self.images.folders[0]
        name = image_name(folder, row.pop(METADATA), key)
        try:
            boxes = read_object(join(folder, name), "an object with boxes").items("boxes")
            row["boxes"] = [[float(side) for side in box[:4]] for box in boxes]
        except MissingFileError as error:
            text = f"its {METADATA} {name!r} is missing from {folder}"
            raise SampleError(Reason.WRONG_BOXES, key, text) from error
        except (DataError, TypeError, ValueError) as error:
            raise SampleError(Reason.WRONG_BOXES, key, f"its {METADATA}: {error}") from error
        return row


def open_vcr(rest: str) -> VcrSource:
    """The questions of FILE?root=...

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "vcr")

    def read(notes: Notes) -> Rows:
        for line in read_lines(path):
            row = {
                "image": line.text("img_fn"),
                METADATA: line.text(METADATA),
                "question": sentence(line, line.items("question")),
                "objects": line.items("objects"),
                **choices(line, "answer"),
                **choices(line, "rationale"),
            }
            yield line.text("annot_id"), row

    return VcrSource(path, (), spec, options, read, "question")
