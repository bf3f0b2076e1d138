"""The two libraries behind a `Tokenizer`, `tokenizers` and `sentencepiece`, under one small
interface.

A SentencePiece model is run by its own library and not converted. The conversion of transformers
gives other ids for unknown characters, byte fallback and unusual white space.
"""

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

WORD_PIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizerModel(Protocol):
    """From texts to ids and back, without start, end and padding tokens."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; a special token spelt in a text is text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens and without ids outside the vocabulary."""

    def token_to_id(self, token: str) -> int | None:
        """The id of a token; None where it is not in the vocabulary."""

    def tokens(self) -> Mapping[str, int]:
        """All tokens, with their ids."""

    def special_ids(self) -> list[int]:
        """Ids of tokens that represent no text."""

    @property
    def unknown_id(self) -> int | None:
        """The id of text that the vocabulary cannot spell, if there is one."""

    @property
    def vocab_size(self) -> int:
        """Largest id + 1; there may be gaps."""


class LibraryModel:
    """BPE, WordPiece, Unigram, ... as described by a tokenizer.json.

    Raises:
      Exception: if `definition` is not a tokenizer.json.
    """

    def __init__(self, definition: str):
        self.library = tokenizers.Tokenizer.from_str(definition)
        self.library.no_padding()
        self.library.no_truncation()
        self.library.encode_special_tokens = True  # a special token spelt in a caption is text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of all texts in one call of the library, which runs in several threads."""
        return [
            encoded.ids
            for encoded in self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; the library leaves out special tokens and unknown ids."""
        return self.library.decode(list(ids), skip_special_tokens=True)

    def token_to_id(self, token: str) -> int | None:
        """The id in the vocabulary or among the added tokens; None where it is in neither."""
        return self.library.token_to_id(token)

    def tokens(self) -> Mapping[str, int]:
        """The vocabulary with the added tokens."""
        return self.library.get_vocab(with_added_tokens=True)

    def special_ids(self) -> list[int]:
        """The added tokens that are declared special."""
        return [
            number
            for number, token in self.library.get_added_tokens_decoder().items()
            if token.special
        ]

    @property
    def unknown_id(self) -> int | None:
        """The id of the model's `unk_token` (WordPiece, BPE), else its `unk_id` (Unigram), if
        any."""
        token = getattr(self.library.model, "unk_token", None)
        return (
            self.library.token_to_id(token)
            if token
            else getattr(self.library.model, "unk_id", None)
        )

    @property
    def vocab_size(self) -> int:
        """The largest id of the vocabulary and the added tokens, + 1."""
        return 1 + max(self.library.get_vocab(with_added_tokens=True).values())


class SentencePieceModel:
    """A SentencePiece model file (Kudo and Richardson 2018).

    Raises:
      RuntimeError, ValueError: if `proto` is not one.
    """

    def __init__(self, proto: bytes):
        if not proto:
            raise ValueError("the file is empty")
        self.library = sentencepiece.SentencePieceProcessor(model_proto=proto)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, one call of the library per text."""
        return [self.library.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids below `vocab_size`."""
        # other ids raise an error
        return self.library.decode([int(token) for token in ids if token < self.vocab_size])

    def token_to_id(self, token: str) -> int | None:
        """The id of the piece with exactly this spelling; None where there is none."""
        # the id of the unknown token for anything that is no piece
        found = self.library.piece_to_id(token)
        return found if self.library.id_to_piece(found) == token else None

    def tokens(self) -> Mapping[str, int]:
        """All pieces, control and unknown ones included."""
        return {self.library.id_to_piece(number): number for number in range(self.vocab_size)}

    def special_ids(self) -> list[int]:
        """The ids of control pieces and of the unknown piece."""
        return [
            number
            for number in range(self.vocab_size)
            if self.library.is_control(number) or self.library.is_unknown(number)
        ]

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown piece."""
        return self.library.unk_id()

    @property
    def vocab_size(self) -> int:
        """The number of pieces, whose ids have no gaps."""
        return self.library.get_piece_size()


def sentencepiece_definition(proto: bytes) -> str:
    """A model file as the JSON text that a preprocessor stores."""
    return json.dumps({"sentencepiece": base64.b64encode(proto).decode()})


def sentencepiece_proto(definition: str) -> bytes | None:
    """The model file of a definition; None for one of the tokenizers library."""
    tree = json.loads(definition)
    if isinstance(tree, dict) and set(tree) == {"sentencepiece"}:
        return base64.b64decode(tree["sentencepiece"], validate=True)
    return None


def word_piece(vocabulary: Mapping[str, int] | None, lower_case: bool) -> tokenizers.Tokenizer:
    """BERT's WordPiece (Devlin et al. 2019).

    Words are split at blanks and punctuation, then into the longest pieces in the vocabulary.

    Args:
      vocabulary: token -> id; None for a vocabulary that is still to be trained.
      lower_case: whether text is lower-cased and accents are stripped.
    """
    model = (
        models.WordPiece(unk_token="[UNK]")
        if vocabulary is None
        else models.WordPiece(dict(vocabulary), unk_token="[UNK]")
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if vocabulary is not None:
        tokenizer.add_special_tokens([token for token in WORD_PIECE_SPECIAL if token in vocabulary])
    return tokenizer


# tokenizers that differ only in length, as for answers, share one model
@functools.lru_cache(maxsize=4)
def same_words(first: str, second: str) -> bool:
    """Whether two definitions give each word the same id. They may divide a text differently, or
    change it before."""
    if first == second:
        return True
    vocabularies = [
        tokenizers.Tokenizer.from_str(definition).get_vocab(with_added_tokens=True)
        for definition in (first, second)
        if sentencepiece_proto(definition) is None
    ]
    return len(vocabularies) == 2 and vocabularies[0] == vocabularies[1]


def model_of(definition: str) -> TokenizerModel:
    """The model of a definition: a tokenizer.json, or the result of `sentencepiece_definition`.

    Raises:
      ValueError: with a message of one line, if it is neither.
    """
    try:
        proto = sentencepiece_proto(definition)
        return LibraryModel(definition) if proto is None else SentencePieceModel(proto)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ValueError(" ".join(str(error).split())) from error
