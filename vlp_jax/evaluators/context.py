"""What the tasks of one evaluation share."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.data.samples import SampleError
from vlp_jax.data.sources.registry import open_source
from vlp_jax.distributed.exchange import check_all_agree
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.predictor import Predictor
from vlp_jax.evaluators.readable import decodable_set, readable_set
from vlp_jax.evaluators.shares import Share, nothing, shared_batches
from vlp_jax.evaluators.supervised import Predict, SupervisedHead
from vlp_jax.evaluators.text_generator import TextGenerator

# {class field: {class: training captions}}
Descriptions = Mapping[str, Mapping[str, Sequence[str]]]


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
      others: further sets that tasks read, such as the training set of a probe, by their specs.
      held: outputs of the image tower that are computed already, by set and kind.
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
    others: dict[str, EvaluationSet] = dataclasses.field(default_factory=dict)
    held: dict[tuple[EvaluationSet, str], np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def images(self) -> np.ndarray:
        """Embeddings float32 [N, E] of the images of the set."""
        return self.features(self.data)

    def features(self, data: EvaluationSet, kind: str = "embedding") -> np.ndarray:
        """What the image tower makes of the images of a set, computed once.

        Args:
          data: the set.
          kind: the name of an output of `Predictor.images`.
        Returns: float32 [N, ...].
        """
        if (data, kind) not in self.held:
            self.held[data, kind] = np.concatenate([*self.feature_batches(data, kind)])
        return self.held[data, kind]

    def feature_batches(self, data: EvaluationSet, kind: str) -> Iterator[np.ndarray]:
        """`features` of one batch after another, which are not held."""

        def pixels(numbers: np.ndarray) -> Iterator[np.ndarray]:
            return data.pixels(self.predictor.preprocessor, self.threads, numbers.tolist())

        for share, rows in self.batches(len(data), pixels):
            yield self.predictor.shared_images(self.variables, rows, share, kind)

    def batches(
        self, count: int, load: Callable[[np.ndarray], Iterable[Any]]
    ) -> Iterator[tuple[Share, list[Any]]]:
        """The batches of `count` items, of which each host loads its share."""
        return shared_batches(self.predictor.mesh, count, self.batch_size, load, self.between)

    def other(self, spec: str) -> EvaluationSet:
        """A further set, opened at its first use, without the samples that cannot be read.

        Raises:
          DataError: there is no such source, or none of its samples can be read.
        """
        if spec not in self.others:
            self.others[spec] = readable_set(open_source(spec), self.threads)
            check_all_agree(f"source {spec}", len(self.others[spec]))
        return self.others[spec]

    def other_features(self, spec: str, kind: str = "embedding") -> np.ndarray:
        """`features` of the further set `spec`; images that cannot be decoded are named, and the
        set is replaced by one without them."""
        try:
            return self.features(self.other(spec), kind)
        except SampleError:
            data, preprocessor = self.other(spec), self.predictor.preprocessor
            self.others[spec] = decodable_set(data, preprocessor, self.threads, self.paced)
            return self.features(self.others[spec], kind)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings float32 [M, E] of texts."""
        return self.predictor.texts(self.variables, self.paced(texts), self.batch_size)

    def ask(self, predictor: Predictor, data: EvaluationSet) -> Predict:
        """The function that runs the head of a predictor on pairs of a set."""

        def predict(pairs: Sequence[tuple[int, str]]) -> np.ndarray:
            def rows_of(numbers: np.ndarray) -> Iterator[dict[str, Any]]:
                chosen = [pairs[number] for number in numbers]
                return data.pairs(predictor.preprocessor, self.threads, chosen)

            return np.concatenate(
                [
                    predictor.shared_pairs(self.variables, rows, share)
                    for share, rows in self.batches(len(pairs), rows_of)
                ]
            )

        return predict

    def paced(self, items: Iterable) -> Iterator:
        """The items, with a call of `between` before the first of each batch."""
        for number, item in enumerate(items):
            if number % self.batch_size == 0:
                self.between()
            yield item
