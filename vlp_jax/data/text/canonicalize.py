"""Named changes to a caption before it is tokenized; part of the stored preprocessor."""

import functools
import html
import re
import string
from collections.abc import Callable, Collection
from typing import Literal, get_args

from vlp_jax.data.text.stop_words import without_stop_words
from vlp_jax.data.text.vqa_answers import vqa_answer

ChangeOfText = Literal[
    "ftfy",
    "html",
    "lower_case",
    "vqa_answer",
    "person",
    "separators",
    "marks",
    "marks_to_blanks",
    "punctuation",
    "stop_words",
    "whitespace",
]
CHANGES_OF_TEXT = get_args(ChangeOfText)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_MARKS = str.maketrans("", "", ",.'!?\"()*#:;~")
_BLANK_MARKS = str.maketrans({mark: " " for mark in '.!"()*#:;~'})
_BLANK_SEPARATORS = str.maketrans({"-": " ", "/": " "})
_PERSON = re.compile("<person>", re.IGNORECASE)


def canonicalize(text: str, names: Collection[str]) -> str:
    """`text` after the named changes, each applied once, always in this order, whatever the order
    of `names`.

    Changes:
      ftfy: repairs wrongly decoded text, replaces ligatures and typographic quotes by plain ones,
        and removes control characters (`ftfy.fix_text`, as OpenAI's CLIP and OpenCLIP call it).
      html: replaces HTML entities by their characters, twice, as web text often needs ("&amp;lt;"
        is "<").
      lower_case: Unicode lower case.
      vqa_answer: the official normalisation of VQA answers (`vqa_answers.py`).
      person: replaces "<person>", which represents names in Conceptual Captions, by "person".
      separators: replaces hyphens and slashes by blanks.
      marks: removes ,.'!?"()*#:;~. With separators and person this is ALBEF's rule.
      marks_to_blanks: replaces .!"()*#:;~ by blanks, and keeps , ' - / ?. This is BLIP's rule.
      punctuation: replaces underscores by blanks and removes the other ASCII punctuation (SigLIP's
        rule, Zhai et al. 2023).
      stop_words: removes English words of little meaning ("the", "of"; listed in `stop_words.py`),
        unless there are no others.
      whitespace: replaces every run of white space by one blank, and strips both ends.
    """
    for name, change in CHANGES.items():
        if name in names:
            text = change(text)
    return text


def _repaired(text: str) -> str:
    return _ftfy()(text)


@functools.cache
def _ftfy() -> Callable[[str], str]:
    import ftfy  # imported late: most runs do not need its tables

    return ftfy.fix_text


CHANGES: dict[str, Callable[[str], str]] = {
    "ftfy": _repaired,
    "html": lambda text: html.unescape(html.unescape(text)),
    "lower_case": str.lower,
    "vqa_answer": vqa_answer,
    "person": lambda text: _PERSON.sub("person", text),
    "separators": lambda text: text.translate(_BLANK_SEPARATORS),
    "marks": lambda text: text.translate(_NO_MARKS),
    "marks_to_blanks": lambda text: text.translate(_BLANK_MARKS),
    "punctuation": lambda text: text.replace("_", " ").translate(_NO_PUNCTUATION),
    "stop_words": without_stop_words,
    "whitespace": lambda text: " ".join(text.split()),
}
