"""Questions about the images of another source: `embedded:emoji_vqa/train`."""

import json
import lzma
import pathlib
from collections.abc import Mapping, Sequence

from vlp_jax.data.samples import Sample, Source, check_index, fingerprint_of
from vlp_jax.errors import DataError


class QuestionSource:
    """One sample a question: the image, with the question as its caption.

    The metadata are those of the image, with `answer` and `type` of the question.

    Args:
      pictures: the source of the images.
      rows: mappings with `image` (the key of an image), `type`, `question` and `answer`.
      spec: name of the source in messages.

    Raises:
      DataError: if a question is about a missing image.
    """

    def __init__(self, pictures: Source, rows: Sequence[Mapping[str, str]], spec: str):
        self.spec, self.pictures, self.rows = spec, pictures, rows
        place = {pictures[i].key: i for i in range(len(pictures))}
        missing = [row["image"] for row in rows if row["image"] not in place]
        if missing:
            raise DataError(
                f"{spec}: asks about {missing[0]}, which is no image of {pictures.spec}"
            )
        self.places = [place[row["image"]] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        picture, row = self.pictures[self.places[index]], self.rows[index]
        return Sample(
            f"{picture.key}?{index}",
            picture.image,
            (row["question"],),
            {**picture.metadata, "type": row["type"], "answer": row["answer"]},
        )

    def fingerprint(self) -> str:
        """Hash of the questions and the images."""
        return fingerprint_of(
            "questions", self.pictures.fingerprint(), [list(row.values()) for row in self.rows]
        )


def read_questions(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a .jsonl.xz file."""
    return [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
