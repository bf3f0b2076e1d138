"""What the tasks of one evaluation share."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.supervised import Predict, SupervisedHead
from vlp_jax.evaluators.text_generator import TextGenerator

# {class field: {class: training captions}}
Descriptions = Mapping[str, Mapping[str, Sequence[str]]]


def nothing() -> None:
    """The default callback between two batches."""


@dataclasses.dataclass
class TaskContext:
    """A set and the parts of a model that measure it. Each image is embedded once for all tasks.

    Attributes:
      data: the set.
      predictor: the model's towers.
      variables: the model's variables; None for checks of the set alone.
      batch_size: images or texts per batch.
      threads: threads that decode images.
      text_generator: the model's decoder, for captions.
      heads: those of supervised objectives, by the name of the objective.
      descriptions: training captions by class field and class.
      between: called before each batch, equally often in all processes; it may raise
        EvaluationInterrupted.
    """

    data: EvaluationSet
    predictor: Predictor
    variables: Any = None
    batch_size: int = 256
    threads: int = 1
    text_generator: TextGenerator | None = None
    heads: Mapping[str, SupervisedHead] = dataclasses.field(default_factory=dict)
    descriptions: Descriptions = dataclasses.field(default_factory=dict)
    between: Callable[[], None] = nothing

    @functools.cached_property
    def images(self) -> np.ndarray:
        """Embeddings float32 [N, E] of the images of the set."""
        pixels = self.paced(self.data.pixels(self.predictor.preprocessor, self.threads))
        return self.predictor.images(self.variables, pixels, self.batch_size)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings float32 [M, E] of texts."""
        return self.predictor.texts(self.variables, self.paced(texts), self.batch_size)

    def ask(self, predictor: Predictor, data: EvaluationSet) -> Predict:
        """The function that runs the head of a predictor on pairs of a set."""

        def predict(pairs: Sequence[tuple[int, str]]) -> np.ndarray:
            rows = data.pairs(predictor.preprocessor, self.threads, pairs)
            return predictor.pairs(self.variables, self.paced(rows), self.batch_size)

        return predict

    def paced(self, items: Iterable) -> Iterator:
        """The items, with a call of `between` before the first of each batch."""
        for number, item in enumerate(items):
            if number % self.batch_size == 0:
                self.between()
            yield item
