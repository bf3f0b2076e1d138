"""Evaluation of captioning: loss of the true captions, and generated captions to read."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.models.decoder.generation import BeamSearch

CAPTION_METRICS = ("caption_loss",)
SHOWN = 5  # number of images for which captions are generated


def captioning(data: EvaluationSet, text_generator: TextGenerator, variables: Any, batch_size: int, threads: int,
               paced: Callable, search: BeamSearch = BeamSearch()) -> dict[str, float | str]:  # noqa: B008 - frozen
    """Captioning loss of a set, and captions generated for its first images.

    Args:
      data: the set.
      text_generator: the model's decoder.
      variables: the model's variables.
      batch_size: images per batch.
      threads: threads that decode images.
      paced: wraps an iterator of pairs with a callback before each batch.
      search: how captions are generated.
    Returns:
      caption_loss: mean of -log p in nats over the tokens of each image's first caption,
        teacher-forced.
      captions: a text with the generated and the true captions of the first images.
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
