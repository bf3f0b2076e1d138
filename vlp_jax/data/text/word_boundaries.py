"""Where the words of tokenized texts begin, from the marks in a vocabulary."""

import dataclasses
import json
from collections.abc import Iterable

import numpy as np

from vlp_jax.data.text.tokenizer_models import TokenizerModel
from vlp_jax.errors import ConfigError

BYTE_LEVEL, SENTENCEPIECE = "Ġ", "▁"  # the mark for the blank in front of a word


@dataclasses.dataclass(frozen=True)
class WordMarks:
    """Marks of the V tokens of a vocabulary.

    Attributes:
      begins: [V], bool, tokens that begin a word.
      ends: [V], bool, tokens that end a word, so that the next token begins one.
    """

    begins: np.ndarray
    ends: np.ndarray

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Where words begin in rows of token ids.

        Args:
          ids: [B, L], int.

        Returns: [B, L], bool, True where a word begins. The first token of a row always begins one.
        """
        start = self.begins[ids]
        start[:, 0] = True
        start[:, 1:] |= self.ends[ids[:, :-1]]
        return start


def word_marks(model: TokenizerModel, definition: str, alone: Iterable[int]) -> WordMarks:
    """The marks of a vocabulary.

    They are WordPiece's prefix inside of words ("##"), BPE's suffix at their ends ("</w>", as in
    CLIP), or the blank in front of words in byte-level BPE ("Ġ", GPT-2) and SentencePiece ("▁"). In
    WordPiece, punctuation is a word of its own; where blanks are marked, it belongs to the adjacent
    word.

    Args:
      model: the model of the vocabulary.
      definition: the JSON that `model` was created from.
      alone: ids of further tokens that are no part of a word, in addition to the model's special
        tokens.

    Raises:
      ConfigError: if the vocabulary has none of these marks.
    """
    begins, ends = np.zeros(model.vocab_size, bool), np.zeros(model.vocab_size, bool)
    inside, suffix, blank = marks_of(json.loads(definition))
    for token, number in model.tokens().items():
        begins[number] = (
            bool(blank) and token.startswith(blank) or bool(inside) and not token.startswith(inside)
        )
        ends[number] = bool(suffix) and token.endswith(suffix)
    if not begins.any() and not ends.any():
        raise ConfigError(
            "data.text.tokenizer: its vocabulary has no mark for where words begin "
            "('##', '</w>', 'Ġ' or '▁'); set whole_words=False and "
            "data.dependencies=None, or take another tokenizer"
        )
    special = [*model.special_ids(), *alone]
    begins[special] = ends[special] = True
    return WordMarks(begins, ends)


def marks_of(tree: dict) -> tuple[str, str, str]:
    """(prefix inside of words, suffix at their ends, blank in front of them); "" for those that are
    not used.

    Args:
      tree: JSON of a tokenizer.json, or of a SentencePiece model.
    """
    model = tree.get("model", {})
    if model.get("type") == "WordPiece":
        return model["continuing_subword_prefix"], "", ""
    if model.get("end_of_word_suffix"):
        return "", model["end_of_word_suffix"], ""
    byte_level = "ByteLevel" in json.dumps([tree.get("pre_tokenizer"), tree.get("decoder")])
    return "", "", BYTE_LEVEL if byte_level else SENTENCEPIECE
