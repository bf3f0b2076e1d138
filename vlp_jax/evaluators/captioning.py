"""Captions of held-out pictures: what true ones cost, and some that the model writes, to be read beside them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.models.decoder.generation import BeamSearch

CAPTION_METRICS = ("caption_loss",)
SHOWN = 5  # pictures for which captions are written


def captioning(data: EvaluationSet, text_generator: TextGenerator, variables: Any, batch_size: int, threads: int,
               paced: Callable, search: BeamSearch = BeamSearch()) -> dict[str, float | str]:  # noqa: B008 - frozen
    """`caption_loss`: the mean over the tokens of every picture's first caption of -log p, teacher-forced, in nats.
    `captions`: a text of the model's captions for the first images, and their true ones.

    paced: makes an iterator of pairs call what is to be done before each batch.
    """
    def pairs() -> Iterator[tuple[np.ndarray, str]]:
        for number, pixels in enumerate(data.pixels(text_generator.predictor.preprocessor, threads)):
            yield pixels, data.captions[data.captions_of_image[number][0]]

    loss = text_generator.caption_loss(variables, paced(pairs()), batch_size)
    first = list(itertools.islice(pairs(), SHOWN))
    written = text_generator.captions(variables, [pixels for pixels, _ in first], search)
    lines = [f"{number + 1}. {caption}\n   true: {true}" for number, (caption, (_, true)) in
             enumerate(zip(written, first, strict=True))]
    return {"caption_loss": loss, "captions": "\n".join(lines) + "\n"}
