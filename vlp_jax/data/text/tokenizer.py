"""From captions to token ids, with a tokenizer that is stored as one JSON string."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.data.text.canonicalize import ChangeOfText, canonicalize
from vlp_jax.data.text.tokenizer_files import read_definition
from vlp_jax.data.text.tokenizer_models import TokenizerModel, model_of
from vlp_jax.data.text.word_boundaries import WordMarks, word_marks
from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(Section):
    """Conversion of a caption to token ids. The length is the model's (`model.text.length`)."""

    # "embedded:emoji", a tokenizer.json, a SentencePiece .model, a vocab.txt, a folder with a
    # Hugging Face tokenizer's files, or OWNER/NAME on the Hugging Face hub
    tokenizer: str = "embedded:emoji"
    # changes of `data/text/canonicalize.py`, always in its order
    canonicalize: tuple[ChangeOfText, ...] = ()
    start_token: str | None = "<start>"
    end_token: str | None = "<end>"
    padding_token: str = "<pad>"
    # side where long texts lose tokens; "left" keeps a dialogue's latest turns
    truncation_side: Literal["right", "left"] = "right"
    # number of consecutive captions that share `packing_rows` rows; None: a row each
    packing: int | None = between(None, 1)
    packing_rows: int = between(1, 1)  # captions that do not fit in them are left out, and counted

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`packing_rows`, where texts are not packed."""
        return {"packing_rows": "without data.text.packing"} if self.packing is None else {}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Conversion of captions to rows of fixed length: start token, caption, end token, padding.

    Attributes:
      definition: JSON with the complete vocabulary, see `model_of`. Special tokens are added by
        this class, explicitly.
      spec: the text section of the config.
      length: number of token positions L of a row.
    """

    definition: str = dataclasses.field(repr=False)
    spec: TextConfig
    length: int

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids of texts.

        A caption that is too long loses its last tokens, or its first ones if
        `spec.truncation_side` is left; start and end token are kept. A row always has a visible
        token: for an empty caption and a tokenizer without start and end token, it is a padding
        token.

        Args:
          texts: B texts.

        Returns: (ids, mask, truncated).
          ids: [B, L], int32.
          mask: [B, L], bool, padding mask, True for everything but padding.
          truncated: [B], bool, whether the caption was cut.
        """
        start, end, padding = self.special_ids
        room = self.length - len(start) - len(end)
        ids = np.full((len(texts), self.length), padding, np.int32)
        mask, truncated = np.zeros(ids.shape, bool), np.zeros(len(texts), bool)
        captions = self.encode(texts)
        for row, caption in enumerate(captions):
            kept = caption[:room] if self.spec.truncation_side == "right" else caption[-room:]
            tokens = [*start, *kept, *end] or [padding]
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
            truncated[row] = len(caption) > room
        return ids, mask, truncated

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each caption, after `canonicalize`, without start and end token and of any
        length.

        No id is that of a special token, whatever a caption spells: a caption that spells one is
        cut within it.
        """
        captions = [canonicalize(text, self.spec.canonicalize) for text in texts]
        rows = self.backend.encode(captions)
        return [
            row if self.reserved.isdisjoint(row) else self.encode_apart(caption)
            for caption, row in zip(captions, rows, strict=True)
        ]

    def encode_apart(self, caption: str) -> list[int]:
        """The ids of a caption that spells special tokens.

        The caption is cut within each of them.
        """
        pieces = self.spelt.sub(lambda found: f"{found[0][0]}\0{found[0][1:]}", caption).split("\0")
        rows = self.backend.encode([piece for piece in pieces if piece])
        return [token for row in rows for token in row if token not in self.reserved]

    @functools.cached_property
    def reserved(self) -> frozenset[int]:
        """Ids of special tokens, which no text contains.

        They are those of the vocabulary, of the start and end token, and of padding, unless padding
        is a single character (CLIP's own code pads with "!"). The id of unknown text is not among
        them.
        """
        start, end, padding = self.special_ids
        added = {*start, *end, *([padding] if len(self.spec.padding_token) > 1 else [])}
        return frozenset({*self.backend.special_ids()} - {self.backend.unknown_id} | added)

    @functools.cached_property
    def spelt(self) -> re.Pattern:
        """A pattern that matches where a caption spells a reserved token."""
        names = [
            token
            for token, number in self.backend.tokens().items()
            if number in self.reserved and len(token) > 1
        ]
        return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")

    def mask_of(self, ids: np.ndarray) -> np.ndarray:
        """The padding mask of rows made by this tokenizer.

        It is True up to the first end token. For a tokenizer without end token, it is True up to
        the last token that is not padding, or for the first token only where all are padding.
        """
        _, end, padding = self.special_ids
        ids = np.asarray(ids)
        positions = np.arange(ids.shape[1])
        if end:
            found = ids == end[0]
            last = np.where(found.any(axis=1), found.argmax(axis=1), ids.shape[1] - 1)
        else:
            last = np.where(ids != padding, positions, 0).max(axis=1)
        return positions <= last[:, None]

    def word_start(self, ids: np.ndarray) -> np.ndarray:
        """Where words begin in rows made by this tokenizer, [B, L] bool.

        Special tokens are words of their own.

        Raises:
          ConfigError: if the vocabulary has no marks for words.
        """
        return self.word_marks(ids)

    @functools.cached_property
    def word_marks(self) -> WordMarks:
        """The marks of word boundaries in the vocabulary.

        Raises: as `word_boundaries.word_marks`.
        """
        start, end, _ = self.special_ids
        return word_marks(self.backend, self.definition, [*start, *end])

    @functools.cached_property
    def backend(self) -> TokenizerModel:
        """The library's model of `definition`, loaded when it is first used."""
        return model_of(self.definition)

    @functools.cached_property
    def special_ids(self) -> tuple[list[int], list[int], int]:
        """Ids of the start and the end token (empty where the config has none), and the id of
        padding."""
        start, end, padding = (
            [] if token is None else [self.id_of(name, token)]
            for name, token in (
                ("start_token", self.spec.start_token),
                ("end_token", self.spec.end_token),
                ("padding_token", self.spec.padding_token),
            )
        )
        if len(start) + len(end) >= self.length:
            raise ConfigError(
                f"model.text.length: {self.length} leaves no room next to the special tokens"
            )
        return start, end, padding[0]

    def id_of(self, name: str, token: str) -> int:
        """The id of a special token; `name` is its key in the config.

        Raises:
          ConfigError: if it is not in the vocabulary.
        """
        found = self.backend.token_to_id(token)
        if found is None:
            raise ConfigError(
                f"data.text.{name}: {token!r} is not in the vocabulary of {self.spec.tokenizer}"
            )
        return found

    @property
    def vocab_size(self) -> int:
        """Largest id + 1; there may be gaps."""
        return self.backend.vocab_size

    def __getstate__(self):
        return {"definition": self.definition, "spec": self.spec, "length": self.length}


def load_tokenizer(spec: TextConfig, length: int, vocab_size: int) -> Tokenizer:
    """The tokenizer that `spec.tokenizer` names; see `read_definition`.

    Args:
      spec: the text section of the config.
      length: number of token positions.
      vocab_size: size of the model's vocabulary.

    Raises:
      ConfigError: if the tokenizer is missing or cannot be read, if it lacks a special token, or if
        it has ids that `vocab_size` does not cover.
    """
    tokenizer = Tokenizer(read_definition(spec.tokenizer), spec, length)
    try:
        size = tokenizer.vocab_size
    except ValueError as error:
        raise ConfigError(
            f"data.text.tokenizer: {spec.tokenizer} is not a tokenizer definition: {error}"
        ) from error
    if size > vocab_size:
        raise ConfigError(
            f"model.text.vocab_size: {vocab_size} is less than the {size} ids of {spec.tokenizer}"
        )
    # looked up now, so that a missing token fails before the first batch
    tokenizer.special_ids  # noqa: B018
    return tokenizer
