"""Where the words of tokenized texts begin, read off a vocabulary's own marks."""

import dataclasses
import json
from collections.abc import Iterable

import numpy as np

from vlp_jax.data.text.tokenizer_models import TokenizerModel
from vlp_jax.errors import ConfigError

BYTE_LEVEL, SENTENCEPIECE = "Ġ", "▁"  # what stands for the blank in front of a word


@dataclasses.dataclass(frozen=True)
class WordMarks:
    """bool [V]: the tokens with which a word begins, and those behind which the next one does whatever it is."""

    begins: np.ndarray
    ends: np.ndarray

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """int [B, L] -> bool [B, L], True where a word begins; a row's first token begins one."""
        start = self.begins[ids]
        start[:, 0] = True
        start[:, 1:] |= self.ends[ids[:, :-1]]
        return start


def word_marks(model: TokenizerModel, definition: str, alone: Iterable[int]) -> WordMarks:
    """The marks of a vocabulary: WordPiece's prefix inside of words ("##"), BPE's suffix at their ends ("</w>", as CLIP has
    it), the blank in front of them in byte-level BPE ("Ġ", GPT-2) and SentencePiece ("▁").

    definition: what `model` was made of. alone: ids of tokens that are no part of a word, beside the model's special ones.
    Punctuation is a word of its own in WordPiece; where blanks are marked, it belongs to the word that it stands at.
    Raises: ConfigError for a vocabulary without any of these.
    """
    begins, ends = np.zeros(model.vocab_size, bool), np.zeros(model.vocab_size, bool)
    inside, suffix, blank = marks_of(json.loads(definition))
    for token, number in model.tokens().items():
        begins[number] = bool(blank) and token.startswith(blank) or bool(inside) and not token.startswith(inside)
        ends[number] = bool(suffix) and token.endswith(suffix)
    if not begins.any() and not ends.any():
        raise ConfigError("data.text.tokenizer: its vocabulary has no mark for where words begin ('##', '</w>', 'Ġ' or '▁'); set "
                          "whole_words=False and data.dependencies=None, or take another tokenizer")
    special = [*model.special_ids(), *alone]
    begins[special] = ends[special] = True
    return WordMarks(begins, ends)


def marks_of(tree: dict) -> tuple[str, str, str]:
    """Of a tokenizer.json, or of a SentencePiece model: the prefix inside of words, the suffix at their ends, the blank in front of
    them; "" for those that it does not use."""
    model = tree.get("model", {})
    if model.get("type") == "WordPiece":
        return model["continuing_subword_prefix"], "", ""
    if model.get("end_of_word_suffix"):
        return "", model["end_of_word_suffix"], ""
    byte_level = "ByteLevel" in json.dumps([tree.get("pre_tokenizer"), tree.get("decoder")])
    return "", "", BYTE_LEVEL if byte_level else SENTENCEPIECE
