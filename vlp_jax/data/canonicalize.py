"""Named changes to a caption before it is tokenized; part of the stored preprocessor."""

import html
import string
from collections.abc import Collection

from vlp_jax.data.stop_words import without_stop_words

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonicalize(text: str, names: Collection[str]) -> str:
    """`text` after the named changes, always in this order, each once, whatever the order of `names`:

    html: HTML entities become their characters, twice over, as web text often needs ("&amp;lt;" is "<").
    lower_case: Unicode lower case.
    punctuation: ASCII punctuation goes; an underscore becomes a blank first (SigLIP's rule, Zhai et al. 2023).
    stop_words: English words of little meaning go ("the", "of"; `stop_words.py` lists them), unless there is no other.
    whitespace: every run of white space becomes one blank, none at either end.
    """
    if "html" in names:
        text = html.unescape(html.unescape(text))
    if "lower_case" in names:
        text = text.lower()
    if "punctuation" in names:
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    if "stop_words" in names:
        text = without_stop_words(text)
    if "whitespace" in names:
        text = " ".join(text.split())
    return text
