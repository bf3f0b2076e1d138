"""Named changes to a caption before it is tokenized; part of the stored preprocessor."""

import html
import string
from collections.abc import Collection

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonicalize(text: str, names: Collection[str]) -> str:
    """`text` after the named changes, always in this order, each once, whatever the order of `names`:

    html: HTML entities become their characters, twice over, as web text often needs ("&amp;lt;" is "<").
    lower_case: Unicode lower case.
    punctuation: ASCII punctuation goes; an underscore becomes a blank first (SigLIP's rule, Zhai et al. 2023).
    whitespace: every run of white space becomes one blank, none at either end.
    """
    if "html" in names:
        text = html.unescape(html.unescape(text))
    if "lower_case" in names:
        text = text.lower()
    if "punctuation" in names:
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    if "whitespace" in names:
        text = " ".join(text.split())
    return text
