"""Named changes to a caption before it is tokenized; part of the stored preprocessor."""

import functools
import html
import re
import string
from collections.abc import Callable, Collection

from vlp_jax.data.text.stop_words import without_stop_words
from vlp_jax.data.text.vqa_answers import vqa_answer

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_MARKS = str.maketrans("", "", ",.'!?\"()*#:;~")
_BLANK_MARKS = str.maketrans(dict.fromkeys(".!\"()*#:;~", " "))
_BLANK_SEPARATORS = str.maketrans({"-": " ", "/": " "})
_PERSON = re.compile("<person>", re.IGNORECASE)


def canonicalize(text: str, names: Collection[str]) -> str:
    """`text` after the named changes, always in this order, each once, whatever the order of `names`:

    ftfy: text that was decoded wrongly is repaired, ligatures and typographic quotes become plain ones, control characters go
      (`ftfy.fix_text`, as OpenAI's CLIP and OpenCLIP call it).
    html: HTML entities become their characters, twice over, as web text often needs ("&amp;lt;" is "<").
    lower_case: Unicode lower case.
    vqa_answer: the official normalisation of VQA's answers (`vqa_answers.py`).
    person: "<person>", which stands for names in Conceptual Captions, becomes "person".
    separators: hyphens and slashes become blanks.
    marks: ,.'!?"()*#:;~ go; with separators and person that is ALBEF's rule.
    marks_to_blanks: .!"()*#:;~ become blanks, and , ' - / ? stay: BLIP's rule.
    punctuation: ASCII punctuation goes; an underscore becomes a blank first (SigLIP's rule, Zhai et al. 2023).
    stop_words: English words of little meaning go ("the", "of"; `stop_words.py` lists them), unless there is no other.
    whitespace: every run of white space becomes one blank, none at either end.
    """
    for name, change in CHANGES.items():
        if name in names:
            text = change(text)
    return text


def _repaired(text: str) -> str:
    return _ftfy()(text)


@functools.cache
def _ftfy() -> Callable[[str], str]:
    import ftfy  # its tables are not needed by most runs

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
