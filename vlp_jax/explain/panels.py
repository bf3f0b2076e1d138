"""A pair drawn: the image, the map of each method over it, and those of each word."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlp_jax.errors import ConfigError
from vlp_jax.explain.asked import asked, chosen_score
from vlp_jax.explain.chosen import possible_methods
from vlp_jax.explain.drawing import over, sheet
from vlp_jax.explain.explained import Explained
from vlp_jax.explain.method import MethodConfig
from vlp_jax.explain.words import Word
from vlp_jax.inference import ImageLike, Model


def draw_pair(
    model: Model,
    variables: Mapping[str, Any],
    image: ImageLike,
    text: str,
    *,
    methods: Sequence[MethodConfig],
    named: bool = True,
    score: str | None = None,
    answer: str | None = None,
    word: str | None = None,
    absent: Callable[[str], None] = lambda message: None,
) -> tuple[Image.Image, str]:
    """The maps of a pair.

    Args:
      model, variables: as `vlp_jax.load` returns them.
      image, text: the pair.
      methods: those that are drawn.
      named: whether the user chose them, so that one that the model lacks is an error.
      score: the kind of score. Default: the first that the model has.
      answer, word: as in `asked`.
      absent: called with a message for each method that is left out.
    Returns: the image, and the score in words.
    Raises:
      ConfigError: the model lacks the score, a chosen method, or all of them; as `asked`.
      DataError: the image cannot be read.
    """
    explained_score = chosen_score(model.config, score, "--score")
    possible, messages = possible_methods(methods, model.config, explained_score)
    if messages and (named or not possible):
        raise ConfigError(f"--methods: {'; '.join(messages)}")
    for message in messages:
        absent(f"left out: {message}")
    pair, words = asked(model, variables, image, text, explained_score, answer=answer, word=word)
    pixels = model.preprocessor.pixels(image)
    panels = [(text, pixels)]
    for method in possible:
        panels += method_panels(method, pair, words, pixels)
    return sheet(panels), f"{explained_score.kind}: {float(pair.scores[0]):.4f}"


def method_panels(
    method: MethodConfig, pair: Explained, words: Sequence[Word], pixels: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """The map of a method, and where it has them those of each word, over the image."""
    panels = [(method.kind, over(pixels, method.maps(pair)[0]))]
    if method.by_word:
        maps = method.word_maps(pair)[0]
        panels += [
            (word.text, over(pixels, maps[list(word.tokens)].mean(axis=0))) for word in words
        ]
    return panels
