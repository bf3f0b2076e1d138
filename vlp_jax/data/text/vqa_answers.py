"""Normalisation and scoring of answers in the VQA challenge (Antol et al. 2015; Goyal et al. 2017).

The score compares an answer with those of several annotators. Both follow the official evaluation
(GT-Vision-Lab/VQA, vqaEval.py).
"""

import re
from collections.abc import Hashable, Sequence
from typing import TypeVar

Answer = TypeVar("Answer", bound=Hashable)
PUNCTUATION = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
NUMBERS = {
    word: str(max(number - 1, 0))
    for number, word in enumerate(
        (
            "none",
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
        )
    )
}
ARTICLES = {"a", "an", "the"}
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
# the official rule removes at most this many: it passes the flag re.UNICODE as the argument `count`
MOST_PERIODS = 32

# Contractions that lack an apostrophe, or one of two, as in the official table. "'ow's'at" and
# "somebodyd" occur only there.
_APOSTROPHES = """\
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _misspelt(word: str) -> list[str]:
    """The word without each one of its apostrophes; "y'all'd've" also with only its last."""
    places = [place for place, letter in enumerate(word) if letter == "'"]
    return [word[:place] + word[place + 1 :] for place in places] + (
        ["yall'd've"] if word == "y'all'd've" else []
    )


CONTRACTIONS = {wrong: word for word in _APOSTROPHES.split() for wrong in _misspelt(word)} | {
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
}


def vqa_answer(text: str) -> str:
    """An answer in the form in which the official evaluation compares it.

    Punctuation and articles are removed, numbers up to ten become digits, contractions get their
    apostrophes, and all is lower case.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    kept = text
    for mark in PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside_blank or COMMA_IN_NUMBER.search(text) else " ")
    words = [
        NUMBERS.get(word, word) for word in PERIOD.sub("", kept, count=MOST_PERIODS).lower().split()
    ]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_score(count: int, annotators: int, agreeing: int = 3) -> float:
    """Score of an answer: the mean of min(n / agreeing, 1) over all sets that leave out one
    annotator.

    n is the number of annotators in the set that gave the answer. Of ten annotators, one, two,
    three and more give 0.3, 0.6, 0.9 and 1. With one annotator, or with `agreeing` = 1, the score
    of any given answer is 1.

    Args:
      count: number of all annotators that gave the answer.
      annotators: number of annotators.
      agreeing: number of agreeing annotators that make a full score.
    """
    if annotators == 1 or agreeing == 1:
        return float(count > 0)
    without, with_it = (min(number / agreeing, 1.0) for number in (max(count - 1, 0), count))
    return (count * without + (annotators - count) * with_it) / annotators


def vqa_scores(answers: Sequence[Answer], agreeing: int = 3) -> dict[Answer, float]:
    """`vqa_score` of every answer that an annotator gave."""
    return {
        answer: vqa_score(answers.count(answer), len(answers), agreeing) for answer in set(answers)
    }
