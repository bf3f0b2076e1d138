"""The two libraries behind a `Tokenizer`, under one small interface: `tokenizers` and `sentencepiece`.

A SentencePiece model is used by its own library and not converted: what transformers' conversion makes of it gives other
ids where characters are unknown, fall back to bytes, or are unusual white space.
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
    """From texts to ids and back, without start, end and padding."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Without special tokens, and ids that a model has beyond the vocabulary."""

    def token_to_id(self, token: str) -> int | None: ...

    def tokens(self) -> Mapping[str, int]:
        """All tokens, with their ids."""

    def special_ids(self) -> list[int]:
        """Ids of tokens that stand for no text."""

    @property
    def unknown_id(self) -> int | None:
        """The id of text that the vocabulary cannot spell, if there is one."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive; there may be gaps."""


class LibraryModel:
    """BPE, WordPiece, Unigram, ... as a tokenizer.json describes them. Raises: Exception if it is none."""

    def __init__(self, definition: str):
        self.library = tokenizers.Tokenizer.from_str(definition)
        self.library.no_padding()
        self.library.no_truncation()
        self.library.encode_special_tokens = True  # a caption that spells one is text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self.library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(list(ids), skip_special_tokens=True)

    def token_to_id(self, token: str) -> int | None:
        return self.library.token_to_id(token)

    def tokens(self) -> Mapping[str, int]:
        return self.library.get_vocab(with_added_tokens=True)

    def special_ids(self) -> list[int]:
        return [number for number, token in self.library.get_added_tokens_decoder().items() if token.special]

    @property
    def unknown_id(self) -> int | None:
        token = getattr(self.library.model, "unk_token", None)
        return self.library.token_to_id(token) if token else getattr(self.library.model, "unk_id", None)

    @property
    def vocab_size(self) -> int:
        return 1 + max(self.library.get_vocab(with_added_tokens=True).values())


class SentencePieceModel:
    """A SentencePiece model file (Kudo and Richardson 2018). Raises: RuntimeError or ValueError if it is none."""

    def __init__(self, proto: bytes):
        if not proto:
            raise ValueError("the file is empty")
        self.library = sentencepiece.SentencePieceProcessor(model_proto=proto)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.library.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode([int(token) for token in ids if token < self.vocab_size])  # for others it has an error

    def token_to_id(self, token: str) -> int | None:
        found = self.library.piece_to_id(token)  # the unknown token's id for all that is no piece
        return found if self.library.id_to_piece(found) == token else None

    def tokens(self) -> Mapping[str, int]:
        return {self.library.id_to_piece(number): number for number in range(self.vocab_size)}

    def special_ids(self) -> list[int]:
        return [number for number in range(self.vocab_size) if self.library.is_control(number) or self.library.is_unknown(number)]

    @property
    def unknown_id(self) -> int | None:
        return self.library.unk_id()

    @property
    def vocab_size(self) -> int:
        return self.library.get_piece_size()


def sentencepiece_definition(proto: bytes) -> str:
    """A model file as the JSON text that a preprocessor carries."""
    return json.dumps({"sentencepiece": base64.b64encode(proto).decode()})


def word_piece(vocabulary: Mapping[str, int] | None, lower_case: bool) -> tokenizers.Tokenizer:
    """BERT's WordPiece (Devlin et al. 2019): words are split at blanks and punctuation, then into the longest pieces that
    are in the vocabulary. `lower_case` also strips accents. None leaves the vocabulary to be trained."""
    model = models.WordPiece(unk_token="[UNK]") if vocabulary is None else models.WordPiece(dict(vocabulary), unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if vocabulary is not None:
        tokenizer.add_special_tokens([token for token in WORD_PIECE_SPECIAL if token in vocabulary])
    return tokenizer


@functools.lru_cache(maxsize=4)  # a tokenizer of another length, as answers have one, takes the model that is there
def model_of(definition: str) -> TokenizerModel:
    """The model that a definition describes: a tokenizer.json, or what `sentencepiece_definition` made.

    Raises: ValueError in one line if it is neither.
    """
    tree = json.loads(definition)
    try:
        if isinstance(tree, dict) and set(tree) == {"sentencepiece"}:
            return SentencePieceModel(base64.b64decode(tree["sentencepiece"], validate=True))
        return LibraryModel(definition)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ValueError(" ".join(str(error).split())) from error
