"""The words of a tokenized text."""

import dataclasses

import numpy as np

from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
      text: the word.
      tokens: positions of its tokens.
    """

    text: str
    tokens: tuple[int, ...]


def words_of(tokenizer: Tokenizer, ids: np.ndarray, mask: np.ndarray) -> list[Word]:
    """The words of a text, without special tokens.

    Where the vocabulary has no marks of words, each token is one.

    Args:
      tokenizer: the tokenizer.
      ids: int [L], of the text.
      mask: bool [L].
    """
    try:
        begins = tokenizer.word_start(ids[None])[0]
    except ConfigError:
        begins = np.ones(len(ids), bool)
    start, end, _ = tokenizer.special_ids
    groups: list[list[int]] = []
    for place in np.flatnonzero(mask & ~np.isin(ids, [*start, *end])).tolist():
        follows = bool(groups) and groups[-1][-1] == place - 1
        if begins[place] or not follows:
            groups.append([place])
        else:
            groups[-1].append(place)
    texts = [tokenizer.backend.decode(ids[group].tolist()).strip() for group in groups]
    return [Word(text, tuple(group)) for text, group in zip(texts, groups, strict=True)]
