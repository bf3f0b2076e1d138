"""An evaluation set: its images in order, its distinct captions, and which of them are pairs."""

import copy
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from vlp_jax.data.images.boxes import boxes_in
from vlp_jax.data.notifications import notice
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.sources.columns import pick
from vlp_jax.data.sources.image_groups import ImageGroups, merged, same_image
from vlp_jax.data.sources.registry import Sample, Source
from vlp_jax.data.subsample import evenly_spaced_samples
from vlp_jax.data.target_kinds import ClassTargetConfig
from vlp_jax.data.text.dependency_parses import SOURCE_PROMPT, DependenciesConfig, parses_in
from vlp_jax.errors import DataError

LOOKED_AT = 4096  # bytes at either end of an image that are compared to find equal ones


class EvaluationSet:
    """Everything of a set but its pixels, read once; pixels are decoded again for each evaluation.

    Samples that name the same image file, as rows of a table with one caption each do, become one
    image with several captions.

    Attributes:
      source: the source of the images.
      given: the source as it was passed.
      captions: the distinct captions, in order of appearance.
      captions_of_image: for each image, indices into `captions`.
      images_of_caption: the inverse of `captions_of_image`.
      metadata: one dictionary per image.
      keys: the key of each image, with the source.
      by_sample: the set whose images are the samples themselves, for tasks with a question about
        each sample.
    Raises:
      SampleError: a sample cannot be read; `readable.readable_set` leaves such samples out.
    """

    def __init__(self, source: Source):
        self.source = self.given = source
        if not len(source):
            raise DataError(f"{source.spec}: holds no samples")
        groups: dict[Any, list[int]] = {}
        samples, contents = [], set()
        for i in range(len(source)):
            sample = self._sample(i)
            groups.setdefault(same_image(sample) or i, []).append(i)
            contents.add(
                hash((len(sample.image), sample.image[:LOOKED_AT], sample.image[-LOOKED_AT:]))
            )
            samples.append(dataclasses.replace(sample, image=b""))
        self.repeated = len(groups) - len(contents)
        self.prompts_reported = self.names_reported = False
        self._hold(samples)
        self.by_sample = self
        if len(groups) < len(samples):
            self.by_sample = copy.copy(self)
            self.by_sample.by_sample = self.by_sample
            self.source = ImageGroups(source, list(groups.values()))
            self._hold([merged([samples[i] for i in group]) for group in groups.values()])

    def _hold(self, samples: Sequence[Sample]) -> None:
        """Sets the attributes that have an entry for each image."""
        index: dict[str, int] = {}
        self.captions_of_image = [
            [index.setdefault(caption, len(index)) for caption in sample.captions]
            for sample in samples
        ]
        self.metadata = [sample.metadata for sample in samples]
        self.keys = [f"{self.source.spec}: {sample.key}" for sample in samples]
        self.captions = list(index)
        self.images_of_caption: list[list[int]] = [[] for _ in self.captions]
        for image, captions in enumerate(self.captions_of_image):
            for caption in captions:
                self.images_of_caption[caption].append(image)

    def _sample(self, i: int) -> Sample:
        return self.source[i]

    def __len__(self) -> int:
        return len(self.source)

    def pixels(
        self, preprocessor: Preprocessor, threads: int, numbers: Sequence[int] | None = None
    ) -> Iterator[np.ndarray]:
        """The pixels of the images `numbers` in order, uint8 [H, W, 3]; None: of all images."""
        return loaded(
            lambda i: preprocessor.pixels(self._sample(i).image, self.keys[i]),
            range(len(self)) if numbers is None else numbers,
            threads,
        )

    def pictures(
        self, preprocessor: Preprocessor, threads: int, numbers: Sequence[int]
    ) -> Iterator[dict[str, np.ndarray]]:
        """The image arrays (see `Preprocessor.picture_of`) of the images `numbers`, in order."""
        return loaded(
            lambda i: preprocessor.picture_of(self._sample(i), self.keys[i]), numbers, threads
        )

    def pairs(
        self, preprocessor: Preprocessor, threads: int, pairs: Sequence[tuple[int, str]]
    ) -> Iterator[dict[str, Any]]:
        """A row for each (index of an image, caption) pair.

        An image is decoded once for pairs that follow each other.

        Returns: dictionaries with `image` uint8 [H, W, 3] and `text`; also the image's `boxes` and
          the caption's `parse` where the preprocessor is configured for them.
        """
        parses = self.parses(preprocessor.dependencies)
        runs = [(i, [*run]) for i, run in itertools.groupby(pairs, key=lambda pair: pair[0])]
        rows = self.pictures(preprocessor, threads, [number for number, _ in runs])
        for (_, run), row in zip(runs, rows, strict=True):
            for _, caption in run:
                yield {**row, "text": caption, **({"parse": parses[caption]} if parses else {})}

    def parses(self, spec: DependenciesConfig | None) -> dict[str, np.ndarray]:
        """The parse of each caption, taken from the first image with this caption; empty without a
        `spec`.

        Raises:
          DataError: a parse cannot be read, or the source puts captions into prompts.
        """
        found: dict[str, np.ndarray] = {}
        if spec is not None and SOURCE_PROMPT.search(self.source.spec):
            raise DataError(
                f"{self.source.spec}: its option prompt= adds words, and "
                "data.dependencies count those of captions"
            )
        if spec is None:
            return found
        data = self.by_sample  # a parse is of the captions of its own sample
        for key, metadata, numbers in zip(
            data.keys, data.metadata, data.captions_of_image, strict=True
        ):
            for caption, parse in parses_in(
                key, metadata, [data.captions[number] for number in numbers], spec
            ).items():
                found.setdefault(caption, parse)
        return found

    def check_graphs(self, preprocessor: Preprocessor) -> None:
        """Checks the boxes and parses of the set.

        Raises:
          DataError: boxes cannot be read, or as `parses`.
        """
        self.parses(preprocessor.dependencies)
        boxes = preprocessor.boxes
        if boxes is not None:
            for key, metadata in zip(self.keys, self.metadata, strict=True):
                boxes_in(key, metadata, boxes)

    def labels(self, field: str, setting: str) -> tuple[list[str], np.ndarray]:
        """The class names of the set, sorted, and the class of each image as an index into them.

        Args:
          field: the metadata field of the class.
          setting: the evaluator's setting that names the field, for messages.
        Raises:
          DataError: an image lacks the field, or the samples of one image differ in it.
        """
        values = [label_in(metadata, field) for metadata in self.metadata]
        for group in self.source.groups if isinstance(self.source, ImageGroups) else ():
            several = {label_in(self.by_sample.metadata[i], field) for i in group}
            if len(several) > 1:
                raise DataError(
                    f"{self.by_sample.keys[group[0]]}: samples of this image have "
                    f"several classes in the metadata field {field!r} ({setting}): "
                    f"{', '.join(sorted(map(str, several)))}"
                )
        for i, value in enumerate(values):
            if value is None:
                raise DataError(
                    f"{self.source.spec}: {self.source[i].key}: an evaluation needs "
                    f"text or a whole number in the metadata field {field!r} "
                    f"({setting}), {self.found(i, field)}"
                )
        found = [value for value in values if value is not None]
        names = sorted(set(found))
        return names, np.array([names.index(value) for value in found])

    def require_captions(self, task: str) -> None:
        """Checks that every image has a caption, where a task needs one of each.

        Raises:
          DataError: an image has none.
        """
        for key, captions in zip(self.keys, self.captions_of_image, strict=True):
            if not captions:
                raise DataError(
                    f"{key}: has a class and no caption, and {task} needs a caption of every image"
                )

    def report_repeated(self) -> None:
        """Prints how many images are stored more than once without a name by which they could be
        merged."""
        if self.repeated:
            notice(
                f"data warning: {self.source.spec}: {self.repeated} of {len(self)} images have "
                "the bytes of another one and count as images of their own; samples of one "
                "image are one where they name its file, as in tables"
            )
            self.repeated = 0

    def found(self, number: int, field: str) -> str:
        """What an image's metadata hold instead of a valid value in a field, for messages."""
        metadata = self.metadata[number]
        there = field in metadata or pick(metadata, field) is not None
        return (
            f"which holds {pick(metadata, field)!r}"
            if there
            else f"there are: {', '.join(sorted(metadata)) or 'none'}"
        )


def label_in(metadata: Mapping[str, Any], field: str) -> str | None:
    """The class in a field of metadata, read as a target of kind `class`.

    It is text or an integer; None for other values.
    """
    values = class_target(field).values(metadata)
    return values[0] if len(values) == 1 else None


@functools.cache
def class_target(field: str) -> ClassTargetConfig:
    """The target that reads classes in a field; made once, as it checks its settings."""
    return ClassTargetConfig(field=field)


def loaded(load: Callable[[int], Any], numbers: Sequence[int], threads: int) -> Iterator[Any]:
    """The results of `load` for each index, in order; several threads call it."""
    dataset = grain.MapDataset.range(len(numbers)).map(lambda i: load(int(numbers[i])))
    yield from dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=256)
    )


def class_descriptions(
    sources: Sequence[Source], field: str, captions_per_class: int, samples: int = 50_000
) -> dict[str, list[str]]:
    """{class: up to `captions_per_class` distinct captions} from training sources.

    Samples are read evenly from the first to the last, at most `samples` of them. Bad samples and
    those without the field are skipped.
    """
    found: dict[str, Counter] = {}
    for sample in evenly_spaced_samples(sources, samples):
        name = label_in(sample.metadata, field)
        if name is not None:
            found.setdefault(name, Counter()).update(sample.captions)
    spread = {}
    for name, captions in sorted(found.items()):
        distinct = list(captions)
        kept = np.unique(
            np.linspace(0, len(distinct) - 1, min(len(distinct), captions_per_class))
            .round()
            .astype(int)
        )
        spread[name] = [distinct[i] for i in kept]
    return spread
