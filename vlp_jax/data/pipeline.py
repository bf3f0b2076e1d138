"""The training input: the k-th global batch as a pure function of (config, seed, k).

Position p of the run (p = k * batch_size + row) decides everything about a row: which sample the shuffled epoch has
there, and every random draw of its transform. Grain only chooses which thread or process computes it.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags
from grain.experimental import DatasetOptions, WithOptionsIterDataset

from vlp_jax.config import schema
from vlp_jax.data.batch_spec import TARGET, VIEWS
from vlp_jax.data.images.augmentation import decode_and_augment
from vlp_jax.data.images.boxes import View, boxes_of
from vlp_jax.data.mixture import Mixture, Order
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Reason, Sample, SampleError, check_unicode, unpaired
from vlp_jax.data.targets import Targets, rows_of_texts
from vlp_jax.data.text.canonicalize import canonicalize
from vlp_jax.data.text.captions import draw_caption, draw_text
from vlp_jax.data.text.dependency_parses import parses_in
from vlp_jax.data.text.packing import pack
from vlp_jax.data.worker_processes import allow_open_files, leave_with_parent, workers_starting
from vlp_jax.errors import DataError

ATTEMPTS = 100
SHARED = 2**20  # bytes: arrays below go through a worker's pipe, as each in shared memory takes two open files
ARRAYS = 12  # that `TrainRows.batch` makes, those of `inputs` apart
REASONS = tuple(Reason)  # code r > 0 in a batch stands for REASONS[r - 1]; 0 is a good row


Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TrainRows:
    """Makes the rows at any positions of an endless run. Pickles into worker processes.

    inputs: names of arrays to make beside those of every batch (see `inputs.device_arrays`). view_augmentation: of the views among
      them; None: that of the image. targets: of what `target_NAME` is made among them.
    """

    mixture: Mixture
    preprocessor: Preprocessor
    augmentation: schema.Augmentation
    seed: int
    inputs: tuple[str, ...] = ()
    view_augmentation: schema.Augmentation | None = None
    targets: Targets | None = None

    def batch(self, positions: Iterable[int]) -> Batch:
        """image uint8 [b, S, S, 3]; text int32 [b, L]; text_mask bool [b, L]; truncated bool [b]; caption_id, image_id
        int32 [b, 2]; part int32 [b], the number in the mixture; key str [b], of the sample; reason int32 [b] and bad_sample
        str [b]: 0 and "", or why the sample that belongs there is bad, its row being filled by a substitute. And those of `inputs`,
        and, where the preprocessor knows of any, boxes and word_edges.
        Where texts are packed: text, text_mask, segment and dropped as `packing.pack` gives them, `positions` being whole windows.

        Raises: DataError after ATTEMPTS bad samples in a row.
        """
        rows = [self.row(position) for position in positions]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0] if key not in ("text", "parse")}
        tokenizer, words = self.preprocessor.tokenizer, self.preprocessor.words_of(rows)
        if "word_start" in self.inputs:
            words["word_start"] = tokenizer.word_start(words["text"])
        for name, values in batch.items():
            if name.startswith(TARGET) and values.dtype.kind == "U":
                spec = self.targets.specs[name.removeprefix(TARGET)]
                words[name] = rows_of_texts(values.tolist(), tokenizer, spec.length)
        if tokenizer.spec.packing is not None:
            packing = tokenizer.spec.packing, tokenizer.spec.packing_rows, tokenizer.special_ids[2]
            words |= pack(words["text"], words["text_mask"], *packing)
        return batch | words

    def row(self, position: int) -> dict[str, Any]:
        """A row of a batch, its text not yet tokenized. A substitute comes from the same part, and is drawn from (seed,
        position, attempt)."""
        number, index = self.order(position)
        part = self.mixture.parts[number]
        reason, bad_sample = 0, ""
        for attempt in range(ATTEMPTS):
            try:
                row = self.transform(part.source[index], part.texts, random_generator(self.seed, position, attempt))
                return row | {"part": np.int32(number), "reason": np.int32(reason), "bad_sample": np.str_(bad_sample)}
            except SampleError as error:
                if not reason:
                    key = f"{part.name}: {error.key}" if part.name else error.key
                    reason, bad_sample = REASONS.index(error.reason) + 1, f"{key}: {error.message}"
                index = int(random_generator(self.seed, position, attempt, 1).integers(len(part.source)))
        raise DataError(f"{part.source.spec}: {ATTEMPTS} bad samples in a row, the first is {bad_sample}"
                        f"{unpaired(REASONS[reason - 1], bad_sample)}")

    def transform(self, sample: Sample, texts: schema.Texts, rng: np.random.Generator) -> dict[str, Any]:
        caption = draw_caption(sample, texts.caption_fields, rng)
        text = draw_text(caption, sample, texts, rng)
        check_unicode(text, sample.key, "its text")
        if not canonicalize(caption, self.preprocessor.tokenizer.spec.canonicalize).strip():
            raise SampleError(Reason.EMPTY_CAPTION, sample.key, f"its caption, {caption!r}, is empty after data.text.canonicalize")
        image, view = self.pixels(sample, self.augmentation, rng)
        views = {}
        if {*VIEWS} & {*self.inputs}:
            generators = dict(zip(VIEWS, rng.spawn(len(VIEWS)), strict=True))
            views = {name: self.pixels(sample, self.view_augmentation or self.augmentation, generators[name])[0]
                     for name in VIEWS if name in self.inputs}
        targets = {name: self.targets.of(name.removeprefix(TARGET), sample.metadata)
                   for name in self.inputs if name.startswith(TARGET)}
        return {"image": image, **views, **targets, **self.graphs(sample, caption, view), "text": text,
                "key": np.str_(sample.key), "caption_id": identity(caption.encode()), "image_id": identity(sample.image)}

    def graphs(self, sample: Sample, caption: str, view: View) -> dict[str, np.ndarray]:
        """The boxes of what is seen of the picture, and the caption's parse, where the preprocessor knows of any."""
        found, boxes, dependencies = {}, self.preprocessor.boxes, self.preprocessor.dependencies
        if boxes is not None:
            found["boxes"] = boxes_of(sample.key, sample.metadata, boxes, view)
        if dependencies is not None:
            found["parse"] = parses_in(sample.key, sample.metadata, sample.captions, dependencies)[caption]
        return found

    def pixels(self, sample: Sample, augmentation: schema.Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, View]:
        size, spec = self.preprocessor.image_size, self.preprocessor.images
        return decode_and_augment(sample.image, sample.key, size, spec, augmentation, rng)

    @functools.cached_property
    def order(self) -> Order:
        return Order(self.mixture, self.seed)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        leave_with_parent()


def identity(data: bytes) -> np.ndarray:
    """A 64-bit fingerprint as int32 [2]: equal bytes, equal fingerprints."""
    return np.frombuffer(hashlib.sha256(data).digest(), np.int32, count=2)


def random_generator(*key: int) -> np.random.Generator:
    """Draws that depend on `key` alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def input_fingerprint(config: schema.Config, mixture: Mixture) -> dict[str, Any]:
    """Everything that decides which samples the k-th batch holds, by config key; kept with a checkpoint."""
    return {"seed": config.seed, "data.batch_size": config.data.batch_size, **mixture.fingerprints()}


def allow_workers(data: schema.Data, inputs: tuple[str, ...]) -> None:
    """Raises the limit of open files where `data.workers` may need it. inputs: as of `TrainRows`. Raises: ConfigError where it is
    too low for good."""
    images = 1 + sum(name in VIEWS for name in inputs)
    allow_open_files(data.workers, data.prefetch + 2, least=images, most=ARRAYS + len(inputs))


class Batches(Iterator):
    """The global batches from `position` (in batches) on, or those of their rows that this host needs: `local_rows`, the
    numbers within a batch, or None for all.

    `next(batches)` gives the arrays of `TrainRows.batch`; `position` counts the batches handed out. Each batch is made by one
    thread, of this process or of a worker, while others make the next ones. Closing stops threads and worker processes.
    """

    def __init__(self, rows: TrainRows, data: schema.Data, position: int = 0, local_rows: Sequence[int] | None = None):
        chosen = range(data.batch_size) if local_rows is None else [int(row) for row in local_rows]

        def make(k: int) -> Batch:
            return rows.batch([k * data.batch_size + row for row in chosen])

        dataset = grain.MapDataset.range(position, np.iinfo(np.int64).max // data.batch_size // 2).map(make)
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.prefetch))
        if data.workers:
            allow_workers(data, rows.inputs)
            dataset = WithOptionsIterDataset(dataset, DatasetOptions(min_shm_size=SHARED))
            flags.FLAGS.mark_as_parsed()  # Grain reads a flag of its own as it starts a worker; no door here parses absl's
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(data.workers, per_worker_buffer_size=data.prefetch))
        self.position, self.spec = position, rows.mixture.describe()
        self.iterator, self.starting = iter(dataset), bool(data.workers)

    def __next__(self) -> Batch:
        try:
            with workers_starting() if self.starting else contextlib.nullcontext():
                batch = next(self.iterator)
            self.starting = False
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # Grain's words for a worker that is gone
                raise
            raise DataError(f"{self.spec}: a worker process was killed, perhaps for memory; fewer data.workers, or a smaller "
                            "data.prefetch, take less") from error
        self.position += 1
        return batch

    def close(self) -> None:
        """Stops reading ahead."""
        self.iterator.close()

