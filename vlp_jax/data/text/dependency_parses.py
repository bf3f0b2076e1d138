"""Which words of a caption depend on each other: from a parse in a sample's metadata to edges
between tokens."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.config.section import Section
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.columns import pick

# an option of a source that inserts captions into prompts
SOURCE_PROMPT = re.compile(r"[?&#]prompt=")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DependenciesConfig(Section):
    """Syntactic dependencies between words of a sample's caption.

    They are pairs [head, dependent] of word indices, counted from 0. Words are those of the text as
    it is tokenized, by the word marks of the vocabulary. In BERT's, a punctuation mark is a word,
    unless data.text.canonicalize removes it first.
    """

    # of the metadata, with dots as in `Target`: a list of pairs for each caption, in order.
    # Required
    field: str = ""

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """Messages about a missing field, a fusion that reads no dependencies, and texts that are
        not a single caption."""
        yield from super().validate(where, experiment)
        if not getattr(experiment.model.fusion, "reads_dependencies", False):
            yield (
                f"{where}: has no effect without model.fusion.kind='graph' with "
                "words='dependencies'"
            )
        if not self.field:
            yield f"{where}.field: is missing; name the field of the metadata that holds them"
        yield from problems_of_texts(where, experiment.data)


def problems_of_texts(where: str, data: Any) -> Iterator[str]:
    """Texts other than a single caption, whose words the dependencies index.

    Args:
      where: the key of the dependencies.
      data: the section `data`.
    Yields: messages that begin with a key.
    """
    why = f"and {where} count the words of captions alone; set"
    if data.text.truncation_side != "right":
        yield f"data.text.truncation_side: is 'left', {why} 'right'"
    if "stop_words" in data.text.canonicalize:
        yield (
            f"data.text.canonicalize: has 'stop_words', and {where} count all words of a "
            "caption; leave it out"
        )
    if data.text.packing is not None:
        yield f"data.text.packing: is {data.text.packing}, {why} None"
    parts = {f"data.train.mixture.{name}": part for name, part in data.train.mixture.items()}
    for path, texts in {"data.train": data.train, **parts}.items():
        for key in ("caption_and_keywords", "keywords"):
            if getattr(texts, key):
                yield f"{path}.{key}: is {getattr(texts, key)}, {why} 0"
        if texts.prompts not in (None, ("{}",)):
            yield f"{path}.prompts: are {texts.prompts}, {why} ('{{}}',)"
        if SOURCE_PROMPT.search(texts.source or ""):
            yield f"{path}.source: has the option prompt=, {why} none"


def parses_in(
    key: str, metadata: Mapping[str, Any], captions: Sequence[str], spec: DependenciesConfig
) -> dict[str, np.ndarray]:
    """The parses of the captions of a sample.

    Args:
      key: key of the sample in errors.
      metadata: metadata of the sample.
      captions: its captions.
      spec: the metadata field.

    Returns: for each caption int [N, 2], pairs (head, dependent) of word positions; N = 0 where
      there is no parse.

    Raises:
      SampleError: with WRONG_DEPENDENCIES, unless the field has for each caption a list of pairs of
        whole numbers from 0 on, or for a single caption this list itself.
    """
    held = pick(metadata, spec.field)
    if held is None or is_list(held) and not len(held):
        held = [None] * len(captions)
    if (
        len(captions) == 1
        and is_list(held)
        and is_list(held[0])
        and len(held[0])
        and not is_list(held[0][0])
    ):
        held = [held]
    if not is_list(held) or len(held) != len(captions):
        raise SampleError(
            Reason.WRONG_DEPENDENCIES,
            key,
            f"its {spec.field} is no list with a "
            "parse for each of its "
            f"{len(captions)} captions, where a repeated caption counts once",
        )
    return {
        caption: pairs_in(key, parse, spec) for caption, parse in zip(captions, held, strict=True)
    }


def is_list(value: Any) -> bool:
    """Whether a value is a list in any of the forms in which sources return lists; Parquet returns
    arrays."""
    return isinstance(value, list | tuple | np.ndarray)


def pairs_in(key: str, parse: Any, spec: DependenciesConfig) -> np.ndarray:
    """int [N, 2] of one caption's parse; None is an empty one.

    Raises:
      SampleError: as `parses_in`.
    """
    try:
        pairs = np.asarray([] if parse is None else parse)
    except ValueError:  # lists of different lengths
        pairs = np.zeros((1, 1))
    if pairs.shape[:1] == (0,):
        return np.zeros((0, 2), np.int64)
    if pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind in "iu" and pairs.min() >= 0:
        return pairs
    raise SampleError(
        Reason.WRONG_DEPENDENCIES,
        key,
        f"its {spec.field} holds "
        f"{str(parse)[:100]}; a parse is a list of "
        "pairs "
        "[head, dependent] of places of words, whole numbers from 0 on",
    )


def word_edges(
    parses: Sequence[np.ndarray], word_start: np.ndarray, in_words: np.ndarray
) -> np.ndarray:
    """Edges between tokens of the same word, and between the tokens of a word and those of its
    head.

    Args:
      parses: for each text int [N, 2]. Positions after its last word, which may have been cut off,
        are ignored.
      word_start: [B, L], bool, True where a word begins.
      in_words: [B, L], bool, False for padding, start and end token, which have no edges.

    Returns: [B, L, L], bool, symmetric.
    """
    edges = np.zeros((*in_words.shape, in_words.shape[1]), bool)
    for row, pairs in enumerate(parses):
        tokens = np.flatnonzero(in_words[row])
        place = np.cumsum(word_start[row, tokens]) - 1
        near = np.eye(place[-1] + 1 if len(place) else 0, dtype=bool)
        head, dependent = pairs[(pairs < len(near)).all(axis=1)].T
        near[head, dependent] = near[dependent, head] = True
        edges[row][np.ix_(tokens, tokens)] = near[np.ix_(place, place)]
    return edges
