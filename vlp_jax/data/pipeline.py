"""The training input: the k-th global batch as a pure function of (config, seed, k).

Position p of the run (p = k * batch_size + row) decides everything about a row: which sample of the
shuffled epoch it holds, and every random draw of its transform. Grain only chooses which thread or
process computes it.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grain
import numpy as np
from absl import flags
from grain.experimental import DatasetOptions, WithOptionsIterDataset

from vlp_jax.data.batch_spec import TARGET, VIEWS
from vlp_jax.data.config import DataConfig
from vlp_jax.data.images.augmentation import decode_and_augment
from vlp_jax.data.images.boxes import View, boxes_of
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.mixture import Mixture, Order
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, Sample, SampleError, check_unicode, unpaired
from vlp_jax.data.targets import Targets
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.captions import TextsConfig, draw_caption, draw_text
from vlp_jax.data.text.dependency_parses import parses_in
from vlp_jax.data.text.packing import pack
from vlp_jax.data.worker_processes import allow_open_files, leave_with_parent, workers_starting
from vlp_jax.errors import DataError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

ATTEMPTS = 100
# bytes: smaller arrays go through a worker's pipe, because one in shared memory takes two open
# files
SHARED = 2**20
ARRAYS = 12  # that `TrainRows.batch` makes, without those of `inputs`
REASONS = tuple(Reason)  # code r > 0 in a batch is REASONS[r - 1]; 0 is a good row


Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TrainRows:
    """The rows at any positions of an endless run. It can be pickled into worker processes.

    Attributes:
      mixture: the training sources.
      preprocessor: image and text preprocessing.
      augmentation: random changes of the image.
      seed: seed of the order and of all draws.
      inputs: names of the arrays to make in addition to those of every batch (see
        `batch_spec.device_arrays`).
      view_augmentation: random changes of the views among `inputs`; None: those of the image.
      targets: source of the arrays `target_NAME` among `inputs`.
    """

    mixture: Mixture
    preprocessor: Preprocessor
    augmentation: AugmentationConfig
    seed: int
    inputs: tuple[str, ...] = ()
    view_augmentation: AugmentationConfig | None = None
    targets: Targets = dataclasses.field(default_factory=lambda: Targets({}, {}))

    def batch(self, positions: Iterable[int]) -> Batch:
        """The batch of b rows at `positions`.

        Args:
          positions: positions of the run; whole windows where texts are packed.

        Returns: arrays by name, with image size S and text length L.
          image: [b, S, S, 3], uint8.
          text: [b, L], int32, token ids.
          text_mask: [b, L], bool, padding mask.
          truncated: [b], bool, whether the text was cut.
          caption_id, image_id: [b, 2], int32, fingerprints.
          part: [b], int32, number of the part in the mixture.
          key: [b], str, key of the sample.
          reason: [b], int32, 0 for a good sample. Otherwise the code (see REASONS) of why the
            sample at this position is bad; a substitute fills its row.
          bad_sample: [b], str, "" for a good sample, otherwise the bad sample's key and message.
          Further: the arrays of `inputs`, and boxes and word_edges where the preprocessor has them.
            Where texts are packed, `text`, `text_mask`, `segment` and `dropped` are as
            `packing.pack` returns them.

        Raises:
          DataError: after ATTEMPTS bad samples in a row.
        """
        rows = [self.row(position) for position in positions]
        batch = {
            key: np.stack([row[key] for row in rows])
            for key in rows[0]
            if key not in ("text", "parse")
        }
        tokenizer, words = self.preprocessor.tokenizer, self.preprocessor.words_of(rows)
        if "word_start" in self.inputs:
            words["word_start"] = tokenizer.word_start(words["text"])
        for name, values in batch.items():
            if name.startswith(TARGET):
                words[name] = self.targets.specs[name.removeprefix(TARGET)].encoded(
                    values, tokenizer
                )
        if tokenizer.spec.packing is not None:
            packing = tokenizer.spec.packing, tokenizer.spec.packing_rows, tokenizer.special_ids[2]
            words |= pack(words["text"], words["text_mask"], *packing)
        return batch | words

    def row(self, position: int) -> dict[str, Any]:
        """One row of a batch, its text not yet tokenized.

        A substitute for a bad sample comes from the same part and is drawn from (seed, position,
        attempt).
        """
        number, index = self.order(position)
        part = self.mixture.parts[number]
        reason, bad_sample = 0, ""
        for attempt in range(ATTEMPTS):
            try:
                row = self.transform(
                    part.source[index], part.texts, random_generator(self.seed, position, attempt)
                )
                return row | {
                    "part": np.int32(number),
                    "reason": np.int32(reason),
                    "bad_sample": np.str_(bad_sample),
                }
            except SampleError as error:
                if not reason:
                    key = f"{part.name}: {error.key}" if part.name else error.key
                    reason, bad_sample = REASONS.index(error.reason) + 1, f"{key}: {error.message}"
                index = int(
                    random_generator(self.seed, position, attempt, 1).integers(len(part.source))
                )
        raise DataError(
            f"{part.source.spec}: {ATTEMPTS} bad samples in a row, the first is "
            f"{bad_sample}{unpaired(REASONS[reason - 1], bad_sample)}"
        )

    def transform(
        self, sample: Sample, texts: TextsConfig, rng: np.random.Generator
    ) -> dict[str, Any]:
        """The row of one sample: drawn text, augmented image and views, targets, boxes and parse,
        identities.

        Raises:
          SampleError: if the sample cannot be used.
        """
        caption = draw_caption(sample, texts.caption_fields, rng)
        text = draw_text(caption, sample, texts, rng)
        check_unicode(text, sample.key, "its text")
        if not canonicalize(caption, self.preprocessor.tokenizer.spec.canonicalize).strip():
            raise SampleError(
                Reason.EMPTY_CAPTION,
                sample.key,
                f"its caption, {caption!r}, is empty after data.text.canonicalize",
            )
        image, view = self.pixels(sample, self.augmentation, rng)
        views = {}
        if {*VIEWS} & {*self.inputs}:
            generators = dict(zip(VIEWS, rng.spawn(len(VIEWS)), strict=True))
            views = {
                name: self.pixels(
                    sample, self.view_augmentation or self.augmentation, generators[name]
                )[0]
                for name in VIEWS
                if name in self.inputs
            }
        targets = {
            name: self.targets.of(name.removeprefix(TARGET), sample.metadata)
            for name in self.inputs
            if name.startswith(TARGET)
        }
        return {
            "image": image,
            **views,
            **targets,
            **self.graphs(sample, caption, view),
            "text": text,
            "key": np.str_(sample.key),
            "caption_id": identity(caption.encode()),
            "image_id": identity(sample.image),
        }

    def graphs(self, sample: Sample, caption: str, view: View) -> dict[str, np.ndarray]:
        """The boxes in the visible part of the image and the caption's parse, where the
        preprocessor has them."""
        found, boxes, dependencies = {}, self.preprocessor.boxes, self.preprocessor.dependencies
        if boxes is not None:
            found["boxes"] = boxes_of(sample.key, sample.metadata, boxes, view)
        if dependencies is not None:
            found["parse"] = parses_in(sample.key, sample.metadata, sample.captions, dependencies)[
                caption
            ]
        return found

    def pixels(
        self, sample: Sample, augmentation: AugmentationConfig, rng: np.random.Generator
    ) -> tuple[np.ndarray, View]:
        """Augmented pixels of a sample, [S, S, 3] uint8, and the part of the image that they
        show."""
        size, spec = self.preprocessor.image_size, self.preprocessor.images
        return decode_and_augment(sample.image, sample.key, size, spec, augmentation, rng)

    @functools.cached_property
    def order(self) -> Order:
        """The order of the examples, built when it is first used."""
        return Order(self.mixture, self.seed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        leave_with_parent()


def identity(data: bytes) -> np.ndarray:
    """A 64-bit fingerprint of `data` as int32 [2]: equal bytes have equal fingerprints."""
    return np.frombuffer(hashlib.sha256(data).digest(), np.int32, count=2)


def random_generator(*key: int) -> np.random.Generator:
    """A random generator that depends on `key` alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def input_fingerprint(config: "Experiment", mixture: Mixture) -> dict[str, Any]:
    """Everything that decides which samples the k-th batch holds, by config key; stored with a
    checkpoint."""
    return {
        "seed": config.seed,
        "data.batch_size": config.data.batch_size,
        **mixture.fingerprints(),
    }


def allow_workers(data: DataConfig, inputs: tuple[str, ...]) -> None:
    """Raises the limit of open files where `data.workers` may need it.

    Args:
      data: the data section of the config.
      inputs: as in `TrainRows`.

    Raises:
      ConfigError: if the hard limit is too low.
    """
    images = 1 + sum(name in VIEWS for name in inputs)
    allow_open_files(data.workers or 0, data.prefetch + 2, least=images, most=ARRAYS + len(inputs))


class Batches(Iterator):
    """Iterator over the global batches, or over the rows of them that this host needs.

    `next(batches)` returns the arrays of `TrainRows.batch`, and `position` counts the batches
    returned so far. Each batch is made by one thread, of this process or of a worker, while other
    threads make the next batches.

    Args:
      rows: the maker of the rows.
      data: the data section of the config.
      position: number of the first batch.
      local_rows: row numbers within a batch that this host needs; None: all.
    """

    def __init__(
        self,
        rows: TrainRows,
        data: DataConfig,
        position: int = 0,
        local_rows: Sequence[int] | np.ndarray | None = None,
    ):
        chosen = range(data.batch_size) if local_rows is None else [int(row) for row in local_rows]

        def make(k: int) -> Batch:
            return rows.batch([k * data.batch_size + row for row in chosen])

        dataset = grain.MapDataset.range(
            position, np.iinfo(np.int64).max // data.batch_size // 2
        ).map(make)
        dataset = dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.prefetch)
        )
        if data.workers:
            allow_workers(data, rows.inputs)
            dataset = WithOptionsIterDataset(dataset, DatasetOptions(min_shm_size=SHARED))
            # Grain reads an absl flag when it starts a worker; no command here parses absl flags
            flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(data.workers, per_worker_buffer_size=data.prefetch)
            )
        self.position, self.spec = position, rows.mixture.describe()
        self.iterator, self.starting = iter(dataset), bool(data.workers)

    def __next__(self) -> Batch:
        try:
            with workers_starting() if self.starting else contextlib.nullcontext():
                batch = next(self.iterator)
            self.starting = False
        except RuntimeError as error:
            # Grain's message for a worker that died
            if "terminated unexpectedly" not in str(error):
                raise
            raise DataError(
                f"{self.spec}: a worker process was killed, perhaps for memory; fewer "
                "data.workers, or a smaller data.prefetch, take less"
            ) from error
        self.position += 1
        return batch

    def close(self) -> None:
        """Stops the prefetching threads and worker processes."""
        self.iterator.close()
