"""The image-text sets inside this package.

`embedded:emoji/train`; `embedded:emoji_vqa/train`, questions about them;
`embedded:emoji_dialogues/train`, dialogues made of these questions; and
`embedded:emoji_scenes/train` and `embedded:emoji_places/train`, scenes composed of the emoji, with
masks and boxes.
"""

import importlib.resources
import json
import lzma
import pathlib

from vlp_jax.data.samples import Source
from vlp_jax.data.sources import arrayrecord
from vlp_jax.data.sources.embedded_dialogues import dialogue_source
from vlp_jax.data.sources.embedded_scenes import PlacedSceneSource, SceneSource
from vlp_jax.data.sources.embedded_vqa import QuestionSource, read_questions
from vlp_jax.errors import DataError

QUESTIONS = {"emoji_vqa": "emoji"}  # question set -> set of its images
DIALOGUES = {"emoji_dialogues": "emoji_vqa"}  # dialogue set -> set of its questions
# set of scenes -> set of the images in them
SCENES = {"emoji_scenes": "emoji", "emoji_places": "emoji"}
SETS = ("emoji", *QUESTIONS, *DIALOGUES, *SCENES)


def folder(name: str) -> pathlib.Path:
    """Where the embedded set `name` is; dialogues are in the folder of their questions.

    Raises:
      DataError: if this package has no such set.
    """
    if name not in SETS:
        raise DataError(f"embedded:{name}: no such set; sets: {', '.join(SETS)}")
    return pathlib.Path(
        str(
            importlib.resources.files("vlp_jax").joinpath(
                "data", (DIALOGUES | SCENES).get(name, name)
            )
        )
    )


def open_embedded(rest: str) -> Source:
    """The split `rest`, SET/SPLIT, of a set in this package.

    Raises:
      DataError: if the set or split is unknown.
    """
    name, _, split = rest.partition("/")
    if name not in SETS or not split:
        raise DataError(
            f"embedded:{rest}: no such set; write embedded:SET/SPLIT, sets: {', '.join(SETS)}"
        )
    if name in SCENES:
        kind = PlacedSceneSource if name == "emoji_places" else SceneSource
        return kind(open_embedded(f"{SCENES[name]}/{split}"), f"embedded:{rest}")
    questions = DIALOGUES.get(name, name)
    if questions not in QUESTIONS:
        return arrayrecord.ArrayRecordSource(folder(name), split, spec=f"embedded:{rest}")
    path = folder(name) / f"{split}.jsonl.xz"
    if not path.exists():
        splits = ", ".join(
            sorted(
                found.name.removesuffix(".jsonl.xz") for found in folder(name).glob("*.jsonl.xz")
            )
        )
        raise DataError(f"embedded:{rest}: no split {split!r}; splits: {splits}")
    opened = dialogue_source if name in DIALOGUES else QuestionSource
    return opened(
        open_embedded(f"{QUESTIONS[questions]}/{split}"), read_questions(path), f"embedded:{rest}"
    )


def captions_by_concept(name: str) -> dict[str, dict[str, str]]:
    """For every concept (the `hexcode` of a sample) its captions in languages other than English,
    by language code."""
    table = json.loads(lzma.decompress((folder(name) / "concepts.json.xz").read_bytes()))
    languages = table["captions"]
    return {
        concept: {language: captions[row] for language, captions in languages.items()}
        for row, concept in enumerate(table["hexcode"])
    }
