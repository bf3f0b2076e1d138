"""`visual_genome:FILE?root=FOLDER`: questions, regions or relationships (Krishna et al. 2017).

FILE is question_answers.json, region_descriptions.json or relationships.json, which its content
shows. A sample is
- a question: metadata `answer`, `answers`, `qa_id`;
- a region: the caption is its phrase; metadata `boxes` (one), `region_id`;
- a relationship, "man wearing hat": metadata `boxes` (of subject and object),
  `subject`, `predicate`, `object`, `relationship_id`;
each with the `image_id`. Boxes are [left, top, right, bottom] in pixels. Option `image` names the
images by their ids, by default those of the two published folders,
`?image=VG_100K/{}.jpg|VG_100K_2/{}.jpg`.
"""

from collections.abc import Callable
from typing import Any

from vlp_jax.data.layouts.documents import Entry, corners, read_list
from vlp_jax.data.layouts.records import ImageNames, Notes, RecordSource, Rows, split_layout
from vlp_jax.errors import DataError

Row = tuple[str, dict[str, Any]]
IMAGES = ("VG_100K/{}.jpg", "VG_100K_2/{}.jpg")


def box_of(entry: Entry, width: str = "w", height: str = "h") -> list[float]:
    """A box by its `x`, `y` and sides."""
    return corners(entry, [entry.get(name) for name in ("x", "y", width, height)])


def question(entry: Entry) -> Row:
    """The key and the row of a question."""
    number, answer = entry.whole("qa_id"), entry.text("answer")
    row = {"question": entry.text("question"), "answer": answer, "answers": [answer]}
    return str(number), {**row, "qa_id": number}


def region(entry: Entry) -> Row:
    """The key and the row of a region."""
    number = entry.whole("region_id")
    box = box_of(entry, "width", "height")
    return str(number), {"phrase": entry.text("phrase"), "boxes": [box], "region_id": number}


def name_of(entry: Entry) -> str:
    """The name of an object, which one version of the files puts in a list."""
    names = entry.get("names")
    return names[0] if isinstance(names, list) and names else entry.text("name")


def relationship(entry: Entry) -> Row:
    """The key and the row of a relationship."""
    number, predicate = entry.whole("relationship_id"), entry.text("predicate")
    subject, thing = entry.entry("subject"), entry.entry("object")
    names = {"subject": name_of(subject), "predicate": predicate, "object": name_of(thing)}
    phrase = " ".join(name.strip().lower() for name in names.values())
    row = {"phrase": phrase, **names, "boxes": [box_of(subject), box_of(thing)]}
    return str(number), {**row, "relationship_id": number}


# by the field that holds them: how one is read, and its caption
CONTENTS: dict[str, tuple[Callable[[Entry], Row], str]] = {
    "qas": (question, "question"),
    "regions": (region, "phrase"),
    "relationships": (relationship, "phrase"),
}


def open_visual_genome(rest: str) -> RecordSource:
    """The questions, regions or relationships of FILE?OPTIONS.

    Raises:
      DataError: for a wrong option, a missing file, or another format.
    """
    spec, path, options = split_layout(rest, "visual_genome", ("image",))
    names = ImageNames(options, IMAGES, spec)

    def read(notes: Notes) -> Rows:
        for image in read_list(path, "an array with an object for each image"):
            content = next(filter(image.__contains__, CONTENTS), None)
            if content is None:
                raise DataError(f"{image}: has none of {', '.join(CONTENTS)}")
            number = image.whole("image_id" if "image_id" in image else "id")
            for entry in image.entries(content):
                key, row = CONTENTS[content][0](entry)
                caption = row.pop(CONTENTS[content][1])
                yield key, {"image": names(number), "caption": caption, **row, "image_id": number}

    return RecordSource(path, (), spec, options, read)
