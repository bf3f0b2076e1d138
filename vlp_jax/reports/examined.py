"""The newest checkpoint of a run on an evaluation set: what the examples of a page are made of."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlp_jax.data.samples import Sample, SampleError, Source
from vlp_jax.data.sources.registry import open_source
from vlp_jax.errors import CheckpointError
from vlp_jax.evaluators.context import TaskContext
from vlp_jax.evaluators.evaluation_set import EvaluationSet
from vlp_jax.evaluators.readable import decodable_set, readable_set
from vlp_jax.evaluators.requirements import lacks_embeddings
from vlp_jax.loading import load
from vlp_jax.reports.records import RunRecord
from vlp_jax.reports.section import Absent, picture
from vlp_jax.sharding.mesh import MeshConfig, build_mesh
from vlp_jax.sharding.rules import build_layout
from vlp_jax.training.evaluation import build_predictor, build_text_generator

BATCH = 256


class EvenlySpaced:
    """Some samples of a source at even distances; other attributes are those of the source.

    Args:
      source: the source.
      most: number of samples, at most.
    """

    def __init__(self, source: Source, most: int):
        count = len(source)
        self.source, self.spec = source, source.spec
        self.numbers = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.numbers[index])]

    def fingerprint(self) -> str:
        """The fingerprint of the source."""
        return self.source.fingerprint()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)


class Examined:
    """A model and a set.

    Args:
      run: the run; its newest checkpoint is loaded.
      source: the evaluation set. Default: that of the config's first evaluator.
      samples: number of samples, at most, at even distances.
    Attributes:
      model: the model.
      variables: its variables.
      preprocessor: its preprocessor.
      layout: over which they lie, all devices of this host.
      source: the spec of the set.
    Raises:
      Absent: the run has no checkpoint that can be read, or its config no evaluator.
      UserError: the config names classes of your own modules that are not imported, or the set
        cannot be read.
    """

    def __init__(self, run: RunRecord, source: str | None, samples: int):
        if not run.steps:
            raise Absent(f"{run.name} has no checkpoint")
        self.run, self.samples = run, samples
        self.layout = build_layout(MeshConfig(), build_mesh(MeshConfig()))
        try:
            found = load(run.folder, layout=self.layout, components=run.components)
        except CheckpointError as error:
            raise Absent(f"the newest checkpoint cannot be read: {error.args[0]}") from error
        self.model, self.variables, self.preprocessor = found
        evaluators = self.model.config.evaluators.values()
        chosen = source or next((spec.source for spec in evaluators), None)
        if chosen is None:
            raise Absent(f"the config of {run.name} has no evaluator; --source names a set")
        self.source = chosen
        self.step = run.steps[-1]

    @functools.cached_property
    def data(self) -> EvaluationSet:
        """The set, without samples that cannot be decoded."""
        return self._embedded[0]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """Embeddings float32 [N, E] of the images.

        Raises:
          Absent: the model's objectives train no embeddings.
        """
        lacking = lacks_embeddings(self.model.config)
        if lacking is not None:
            raise Absent(f"{self.run.name} has no {lacking}")
        return self._embedded[1]

    @functools.cached_property
    def texts(self) -> np.ndarray:
        """Embeddings float32 [M, E] of the distinct captions.

        Raises: as `images`.
        """
        self.images  # noqa: B018 - raises Absent where there are no embeddings
        return self.context.embed_texts(self.data.captions)

    @functools.cached_property
    def context(self) -> TaskContext:
        """What tasks of evaluators share."""
        layout = self.layout
        predictor = build_predictor(self.model.module, self.preprocessor, layout)
        spaced = EvenlySpaced(open_source(self.source), self.samples)
        threads = self.model.config.data.threads
        generator = build_text_generator(self.model.module, predictor, layout)
        data = readable_set(spaced, threads)
        size = min(BATCH, len(data))
        return TaskContext(data, predictor, self.variables, size, threads, generator)

    @functools.cached_property
    def _embedded(self) -> tuple[EvaluationSet, np.ndarray]:
        context = self.context
        try:
            return context.data, context.images
        except SampleError:
            context.data = decodable_set(
                context.data, self.preprocessor, context.threads, context.paced
            )
            return context.data, context.images

    def pixels(self, number: int) -> np.ndarray:
        """The pixels of an image as the model sees it, uint8 [H, W, 3]."""
        data = self.data
        return self.preprocessor.pixels(data.source[number].image, data.keys[number])

    def picture(self, number: int, *, true: bool = False) -> str:
        """An image of the set as HTML; `true` marks it as the one that belongs to a query."""
        data = self.data
        captions = [data.captions[caption] for caption in data.captions_of_image[number]]
        words = captions[0] if captions else data.source[number].key
        return picture(self.pixels(number), words, "picture true" if true else "picture")


def spread(numbers: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """At most `count` of some numbers, at even distances."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round())
    return [int(numbers[int(place)]) for place in places] if len(numbers) else []
