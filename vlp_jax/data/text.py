"""From captions to token ids, by a tokenizer that travels as one JSON string."""

import dataclasses
import functools
import importlib.resources
import json
import os
from collections.abc import Sequence

import numpy as np
import tokenizers

from vlp_jax.config.schema import Text
from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns captions into fixed-length rows: start token, caption, end token, padding.

    definition: the `tokenizers` library's JSON, as in a tokenizer.json; special tokens are added here, explicitly.
    """

    definition: str
    spec: Text
    length: int

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids int32 [B, L], mask bool [B, L] (True for everything but padding), truncated bool [B].

        A caption that is too long loses its last tokens; the end token stays.
        """
        start, end, padding = self.special_ids
        room = self.length - len(start) - len(end)
        ids = np.full((len(texts), self.length), padding, np.int32)
        mask, truncated = np.zeros(ids.shape, bool), np.zeros(len(texts), bool)
        texts = [text.lower() for text in texts] if self.spec.lower_case else list(texts)
        for row, encoded in enumerate(self.backend.encode_batch(texts, add_special_tokens=False)):
            tokens = [*start, *encoded.ids[:room], *end]
            ids[row, :len(tokens)], mask[row, :len(tokens)] = tokens, True
            truncated[row] = len(encoded.ids) > room
        return ids, mask, truncated

    def mask_of(self, ids: np.ndarray) -> np.ndarray:
        """The mask of rows made by this tokenizer: True up to the first end token, or, without one, up to the last
        token that is not padding."""
        _, end, padding = self.special_ids
        ids = np.asarray(ids)
        positions = np.arange(ids.shape[1])
        if end:
            found = ids == end[0]
            last = np.where(found.any(axis=1), found.argmax(axis=1), ids.shape[1] - 1)
        else:
            last = np.where(ids != padding, positions, -1).max(axis=1)
        return positions <= last[:, None]

    @functools.cached_property
    def backend(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self.definition)
        backend.no_padding()
        backend.no_truncation()
        return backend

    @functools.cached_property
    def special_ids(self) -> tuple[list[int], list[int], int]:
        """Ids of the start token and end token (empty where the config has none) and of the padding."""
        start, end, padding = (
            [] if token is None else [self.id_of(name, token)]
            for name, token in (("start_token", self.spec.start_token), ("end_token", self.spec.end_token),
                                ("padding_token", self.spec.padding_token)))
        if len(start) + len(end) >= self.length:
            raise ConfigError(f"model.text.length: {self.length} leaves no room beside the special tokens")
        return start, end, padding[0]

    def id_of(self, name: str, token: str) -> int:
        found = self.backend.token_to_id(token)
        if found is None:
            raise ConfigError(f"data.text.{name}: {token!r} is not in the vocabulary of {self.spec.tokenizer}")
        return found

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive; there may be gaps."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    def __getstate__(self):
        return {"definition": self.definition, "spec": self.spec, "length": self.length}


def load_tokenizer(spec: Text, length: int, vocab_size: int) -> Tokenizer:
    """The tokenizer that `spec.tokenizer` names: `embedded:emoji`, a tokenizer.json, or a folder with a Hugging Face
    tokenizer's files.

    Raises: ConfigError for a tokenizer that is not there or cannot be read, a special token it lacks, or ids that
    `vocab_size` (of the model) does not cover.
    """
    tokenizer = Tokenizer(read_definition(spec.tokenizer), spec, length)
    try:
        size = tokenizer.vocab_size
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"data.text.tokenizer: {spec.tokenizer} is not a tokenizer definition: {error}") from error
    if size > vocab_size:
        raise ConfigError(f"model.text.vocab_size: {vocab_size} is less than the {size} ids of {spec.tokenizer}")
    tokenizer.special_ids  # noqa: B018 - looked up now, so that a missing token is found before the first batch
    return tokenizer


def read_definition(name: str) -> str:
    """The JSON of a tokenizer; see `load_tokenizer`."""
    if name.startswith("embedded:"):
        resource = importlib.resources.files("vlp_jax.data") / name.removeprefix("embedded:") / "tokenizer.json"
        if not resource.is_file():
            raise ConfigError(f"data.text.tokenizer: no embedded tokenizer {name!r}; "
                              "the one that ships is 'embedded:emoji'")
        return resource.read_text()
    if os.path.isdir(name):
        file = os.path.join(name, "tokenizer.json")
        return _read(file) if os.path.isfile(file) else _from_hugging_face(name)
    if os.path.isfile(name):
        return _read(name)
    raise ConfigError(f"data.text.tokenizer: {name!r} is not there; expected 'embedded:emoji', a tokenizer.json, "
                      "or a folder with a tokenizer's files")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            text = file.read()
        json.loads(text)
        return text
    except (OSError, ValueError) as error:
        raise ConfigError(f"data.text.tokenizer: {path} cannot be read as JSON: {error}") from error


def _from_hugging_face(folder: str) -> str:
    """Folders without tokenizer.json, such as CLIP's vocab.json and merges.txt, go through transformers."""
    import transformers  # seconds to import, and only needed here

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer.backend_tokenizer.to_str()
    except Exception as error:
        found = ", ".join(sorted(os.listdir(folder))[:8]) or "nothing"
        raise ConfigError(f"data.text.tokenizer: {folder} holds no tokenizer that transformers can load "
                          f"(found {found}): {str(error).splitlines()[0]}") from error
