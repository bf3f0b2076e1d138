"""METEOR of captions with matches of equal words and of equal stems (Denkowski and Lavie 2014).

The score is that of METEOR 1.5 with the modules `exact` and `stem`, the default parameters of
English and the option `-norm`; synonyms and paraphrases, of which it has lists, are left out.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np
import snowballstemmer

from vlp_jax.metrics.captions.alignment import aligned

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STEM_WEIGHT = 0.6
# words with a frequency above 0.001 in news, by METEOR's list
_FUNCTION_WORDS = """\
the , . to of and a in that for " is on 's it with was as said at he by be from have has are his but
an this not i will ’ they ) -rrb- ( -lrb- who their had we which were been more or s its would about
new one after you : also up when there than $ all out her people she year two - can if last first “
over other ” into some what so -- no time years could ? 't — '
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
LETTER = "A-Za-zŠŽŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮꚀ-ꚗᴀ-ᵿ"
# regular expressions and what replaces them, in order
SPLITS = (
    (rf"([^0-9{LETTER}\s.'`,\-‘’])", r" \1 "),
    (r"(?<![0-9]),|,(?![0-9])", " , "),
    ("[`‘’]", "'"),
    ("[“”]|''", ' " '),
    ("–|--", "-"),
    (rf"([0-9{LETTER}.])-([0-9{LETTER}])", r"\1 \2"),
    (rf"([^{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
    (rf"([^{LETTER}0-9])'([{LETTER}])", r"\1 ' \2"),
    (rf"([{LETTER}])'([^{LETTER}])", r"\1 ' \2"),
    (rf"([{LETTER}])'([{LETTER}])", r"\1 '\2"),
    (r"([0-9])'(s)", r"\1 's"),
)
# abbreviations that keep their period
KEEPS_PERIOD = {"v", "vs", "rev"}


@functools.cache
def stem(word: str) -> str:
    """The stem of a word by Snowball's English stemmer, of version 2 as in METEOR."""
    return snowballstemmer.stemmer("english").stemWord(word)


def normalized(text: str) -> list[str]:
    """The words of a lower-case text by METEOR's own tokenizer, which splits further."""
    text = f" {text} "
    for pattern, replacement in SPLITS:
        text = re.sub(pattern, replacement, text)
    words, found = text.split(), []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        found += period_split(word, following) if len(word) > 1 and word[-1] == "." else [word]
    return found


def period_split(word: str, following: str) -> list[str]:
    """A word with a last period: an acronym without periods, the word with its period before a word
    in lower case, or both apart."""
    before = word[:-1]
    if "." in before and re.search(f"[{LETTER}]", before):
        return [word.replace(".", "")]
    numbered = before == "pp" and re.match("[0-9]", following)
    if before in KEEPS_PERIOD or numbered or re.match("[a-z]", following):
        return [word]
    return [before, "."]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Counts of a candidate (row 0) and a reference (row 1), which are added over a corpus.

    Attributes:
      words: [2, 2], content words and function words.
      matches: [2, 2, 2], matched content words and function words; the last axis is exact, stem.
      chunks: number of sequences of matches that are adjacent in both texts; 0 where all words
        match in one sequence.
    """

    words: np.ndarray
    matches: np.ndarray
    chunks: int

    @property
    def score(self) -> float:
        """METEOR, in [0, 1]; 0 without matches."""
        kinds = np.array([DELTA, 1.0 - DELTA])
        lengths = self.words @ kinds
        matched = self.matches @ np.array([1.0, STEM_WEIGHT]) @ kinds
        if not (matched > 0).all():
            return 0.0
        precision, recall = (matched / lengths).tolist()
        mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
        fragmentation = 2 * self.chunks / self.matches.sum()
        return max(mean * (1.0 - GAMMA * fragmentation**BETA), 0.0)

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            self.words + other.words, self.matches + other.matches, self.chunks + other.chunks
        )


def statistics(candidate: Sequence[str], reference: Sequence[str]) -> Statistics:
    """The counts of a pair of normalized texts."""
    found = aligned(candidate, reference, stem)
    words, matches = np.zeros((2, 2), np.int64), np.zeros((2, 2, 2), np.int64)
    for side, text in enumerate((candidate, reference)):
        functions = sum(word in FUNCTION_WORDS for word in text)
        words[side] = len(text) - functions, functions
    for place, match in enumerate(found.matches):
        if match is not None:
            for side, word in enumerate((candidate[match.place], reference[place])):
                matches[side, int(word in FUNCTION_WORDS), int(not match.exact)] += 1
    whole = found.chunks == 1 and len(candidate) == len(reference) == matches[0].sum()
    return Statistics(words, matches, 0 if whole else found.chunks)


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of a corpus: the score of the summed counts, each of the reference with the highest
    score.

    Args:
      candidates: the caption of each image, its tokens with blanks between them.
      references: the true captions of each image, likewise.
    """
    total = None
    for candidate, captions in zip(candidates, references, strict=True):
        said = normalized(candidate)
        best = max(
            (statistics(said, normalized(caption)) for caption in captions),
            key=lambda found: found.score,
        )
        total = best if total is None else total + best
    return total.score if total is not None else 0.0
