"""English words of little meaning by themselves, for `data.text.canonicalize`."""

import re

# Articles, pronouns, auxiliaries, conjunctions and the commonest prepositions, the closed classes
# of grammars (Quirk et al. 1985, "A comprehensive grammar of the English language"), selected here
# and not taken from another program's list. The list leaves out what distinguishes images: where
# something is ("above", "behind", "under", "up"), negations, numerals, and words that also name
# things ("can", "mine").
_LIST = """
    a an the this that these those i me my myself you your yours yourself yourselves he him his
    himself she her hers herself it its itself we us our ours ourselves they them their theirs
    themselves who whom whose which what be am is are was were been being have has had having do
    does did doing could may might shall should will would and or but so as if than then of to in on
    at by for from with into onto about there here
"""
ENGLISH_STOP_WORDS = frozenset(_LIST.split())

# Only whole words: no part of "in-flight" or "it's" counts as one.
_STOP_WORD = re.compile(
    r"(?<![\w'\u2019-])(?:" + "|".join(sorted(ENGLISH_STOP_WORDS)) + r")(?![\w'\u2019-])\s*",
    re.IGNORECASE,
)
_ANY_WORD = re.compile(r"[^\W_]")


def without_stop_words(text: str) -> str:
    """`text` without the words of `ENGLISH_STOP_WORDS`, in any case, and without the white space
    after each.

    White space at both ends is removed. Where no other word would be left, `text` is returned
    unchanged, so a caption never becomes empty.
    """
    shorter = _STOP_WORD.sub("", text).strip()
    return shorter if _ANY_WORD.search(shorter) else text
