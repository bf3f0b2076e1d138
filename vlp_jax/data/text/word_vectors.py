"""Pretrained word vectors in the text format of GloVe (Pennington et al. 2014) or word2vec (Mikolov
et al. 2013)."""

import dataclasses
import json
from collections.abc import Iterator, Mapping

import numpy as np

from vlp_jax.data.sources.local_files import NotRegularError, open_regular
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.errors import ConfigError

KEY = "model.text.word_vectors"
LONGEST = 1 << 20  # bytes: a file with a longer line is not a file of words


@dataclasses.dataclass(frozen=True)
class WordVectors:
    """Vectors of the V tokens of a vocabulary.

    Attributes:
      vectors: [V, D], float32, one row a token; zeros for tokens without a vector.
      found: [V], bool, tokens that have a vector.
    """

    vectors: np.ndarray
    found: np.ndarray


def vectors_of_tokens(
    path: str, tokenizer: Tokenizer, vocab_size: int, width: int, least: float
) -> WordVectors:
    """The vectors of the tokens that are words of the file, as written or in lower case.

    Args:
      path: the file of vectors.
      tokenizer: the tokenizer of the tokens.
      vocab_size: number of rows V.
      width: dimension D.
      least: the smallest fraction of the vocabulary's words that must be in the file.

    Raises:
      ConfigError: if fewer words are in the file; and as `read_vectors`.
    """
    words = words_of(tokenizer)
    vectors, found = np.zeros((vocab_size, width), np.float32), np.zeros(vocab_size, bool)
    there = read_vectors(path, {*words, *(word.lower() for word in words)}, width)
    for word, number in words.items():
        vector = there.get(word, there.get(word.lower()))
        if vector is not None:
            vectors[number], found[number] = vector, True
    if found.sum() < least * len(words):
        raise ConfigError(
            f"{KEY}: {path} has {found.sum()} of the {len(words)} words of "
            f"{tokenizer.spec.tokenizer}, less than "
            f"model.text.word_overlap={least:g} of them; take vectors of the same "
            "language, or a smaller overlap"
        )
    return WordVectors(vectors, found)


def words_of(tokenizer: Tokenizer) -> Mapping[str, int]:
    """The tokens that are words, or that begin words, with their ids.

    The marks of word boundaries are removed.

    Raises:
      ConfigError: if the vocabulary has no marks for words.
    """
    model, tree = tokenizer.backend, json.loads(tokenizer.definition)
    if tree.get("model", {}).get("type") == "WordLevel":
        chosen = np.ones(model.vocab_size, bool)
    else:
        chosen = tokenizer.word_marks.begins | tokenizer.word_marks.ends
    start, end, padding = tokenizer.special_ids
    chosen[[*model.special_ids(), *start, *end, padding]] = False
    words = {
        model.decode([number]).strip(): number
        for number in sorted(model.tokens().values())
        if chosen[number]
    }
    return {word: number for word, number in words.items() if word}


def read_vectors(path: str, wanted: set[str], width: int) -> dict[str, np.ndarray]:
    """The vectors of the wanted words, [D] float32 each; the first one of a word that occurs twice.

    A line has a word, which may contain blanks, and D numbers. The first line of word2vec has the
    number of words, and D. Numbers are parsed only for wanted words; for others they are only
    counted.

    Args:
      path: the file.
      wanted: the words.
      width: dimension D.

    Raises:
      ConfigError: naming the file and the invalid line, or the width if it is not D.
    """
    vectors: dict[str, np.ndarray] = {}
    for number, fields in lines_of(path):
        if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
            check_width(path, int(fields[1]), width)
            continue
        if not vectors and len(fields) - 1 != width:
            found = numbers_at_the_end(fields)
            if found < 2:  # tabs, or several blanks, between numbers, rather than another width
                raise ConfigError(
                    f"{KEY}: {path}:{number}: expected a word and {width} numbers, "
                    f"one blank in front of each, got {' '.join(fields)[:60]!r}"
                )
            check_width(path, found, width)
        word, values = " ".join(fields[:-width]), fields[-width:]
        if not word or (len(fields) > width + 1 and is_number(fields[1])):
            raise ConfigError(
                f"{KEY}: {path}:{number}: expected a word and {width} numbers, got "
                f"{len(fields) - 1} of them"
            )
        if word in wanted and word not in vectors:
            vectors[word] = parsed(path, number, values)
    return vectors


def lines_of(path: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its fields between blanks.

    Raises:
      ConfigError: if the file is not a text file of words, or cannot be read.
    """
    try:
        with open(open_regular(path)[0], "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), start=1):
                if len(line) == LONGEST:
                    raise ConfigError(
                        f"{KEY}: {path}:{number}: a line of more than {LONGEST} "
                        "bytes is no word with its vector"
                    )
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
                except UnicodeDecodeError as error:
                    raise ConfigError(
                        f"{KEY}: {path}:{number}: is not UTF-8; expected the text "
                        "format of GloVe or word2vec, uncompressed"
                    ) from error
                if text:
                    yield number, text.split(" ")
    except NotRegularError as error:
        raise ConfigError(f"{KEY}: {error.args[0]}") from error
    except OSError as error:
        raise ConfigError(f"{KEY}: {path} cannot be read: {error.strerror}") from error


def check_width(path: str, found: int, width: int) -> None:
    """Checks that a file's vectors have the width of the embeddings.

    Raises:
      ConfigError: if they do not.
    """
    if found != width:
        raise ConfigError(
            f"{KEY}: {path} has vectors of {found} numbers, and the tower's words "
            f"are {width} wide; take others, or another width"
        )


def numbers_at_the_end(fields: list[str]) -> int:
    """How many numbers a line has after its first field."""
    count = 0
    while count < len(fields) - 1 and is_number(fields[-1 - count]):
        count += 1
    return count


def is_number(text: str) -> bool:
    """Whether a field of a line is a number rather than part of a word."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parsed(path: str, number: int, values: list[str]) -> np.ndarray:
    """The numbers of a line, float32.

    Raises:
      ConfigError: if one is not a number, or not finite.
    """
    try:
        vector = np.array([float(value) for value in values], np.float32)
    except ValueError as error:
        raise ConfigError(f"{KEY}: {path}:{number}: {error}") from error
    if not np.isfinite(vector).all():
        raise ConfigError(f"{KEY}: {path}:{number}: holds a number that is not finite")
    return vector
