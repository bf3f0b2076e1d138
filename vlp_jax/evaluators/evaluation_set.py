"""A set to evaluate on: its pictures in order, its distinct captions, and which belong together."""

from collections import Counter
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources import Sample, SampleError, Source
from vlp_jax.data.spread import spread_samples
from vlp_jax.errors import DataError


class EvaluationSet:
    """Everything but the pixels, read once; pixels are decoded anew for each evaluation.

    Attributes: source; captions (the distinct ones, in order of appearance); captions_of_image (for each picture,
      indices into `captions`); images_of_caption (the inverse); metadata (one dictionary a picture).
    Raises: DataError naming a sample that cannot be read: a score over part of a set would be another score.
    """

    def __init__(self, source: Source):
        self.source = source
        if not len(source):
            raise DataError(f"{source.spec}: holds no samples")
        index: dict[str, int] = {}
        self.captions_of_image: list[list[int]] = []
        self.metadata: list[dict] = []
        for i in range(len(source)):
            sample = self._sample(i)
            self.captions_of_image.append([index.setdefault(caption, len(index)) for caption in sample.captions])
            self.metadata.append(sample.metadata)
        self.captions = list(index)
        self.images_of_caption: list[list[int]] = [[] for _ in self.captions]
        for image, captions in enumerate(self.captions_of_image):
            for caption in captions:
                self.images_of_caption[caption].append(image)

    def _sample(self, i: int) -> Sample:
        try:
            return self.source[i]
        except SampleError as error:
            raise DataError(f"{self.source.spec}: {error.key}: {error.message}; an evaluation needs every sample: mend it or take "
                            "it out") from error

    def __len__(self) -> int:
        return len(self.source)

    def pixels(self, preprocessor: Preprocessor, threads: int, chosen: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3] of every picture, in order, or of those chosen."""
        chosen = range(len(self)) if chosen is None else chosen

        def load(i: int) -> np.ndarray:
            sample = self._sample(chosen[i])
            return preprocessor.pixels(sample.image, f"{self.source.spec}: {sample.key}")

        dataset = grain.MapDataset.range(len(chosen)).map(load)
        yield from dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=256))

    def labels(self, field: str, setting: str) -> tuple[list[str], np.ndarray]:
        """The set's class names, sorted, and each picture's class as an index among them.

        Raises: DataError for a picture without the field, which the evaluator's `setting` names.
        """
        values = [metadata.get(field) for metadata in self.metadata]
        for i, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise DataError(f"{self.source.spec}: {self.source[i].key}: an evaluation needs text in the metadata field "
                                f"{field!r} ({setting}), {self.found(i, field)}")
        names = sorted(set(values))
        return names, np.array([names.index(value) for value in values])


    def found(self, number: int, field: str) -> str:
        """What a picture's metadata have in place of what was to be in a field, for messages."""
        metadata = self.metadata[number]
        return f"which holds {metadata[field]!r}" if field in metadata else f"there are: {', '.join(sorted(metadata)) or 'none'}"


def class_descriptions(sources: Sequence[Source], field: str, captions_per_class: int,
                       samples: int = 50_000) -> dict[str, list[str]]:
    """{class: up to `captions_per_class` distinct captions} from training sources, evenly from the first to the last
    sample (at most `samples` of them are read). Bad samples and those without the field are passed over."""
    found: dict[str, Counter] = {}
    for sample in spread_samples(sources, samples):
        name = sample.metadata.get(field)
        if isinstance(name, str) and name:
            found.setdefault(name, Counter()).update(sample.captions)
    spread = {}
    for name, captions in sorted(found.items()):
        distinct = list(captions)
        kept = np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), captions_per_class)).round().astype(int))
        spread[name] = [distinct[i] for i in kept]
    return spread
