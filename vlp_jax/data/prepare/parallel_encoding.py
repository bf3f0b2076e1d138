"""The records of a source in its order, encoded in this process or in several."""

import collections
import contextlib
import ctypes
import dataclasses
import multiprocessing
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from vlp_jax.data.prepare.downscale import downscale_image
from vlp_jax.data.prepare.record_schema import Schema
from vlp_jax.data.samples import SampleError, Source
from vlp_jax.data.worker_processes import leave_with_parent, workers_starting
from vlp_jax.errors import DataError

CHUNK = 16  # samples in one task
AHEAD = 4  # tasks per process that may be ahead of the writer


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The result of a sample.

    Attributes:
      record: the encoded record; None if the sample is left out.
      error: the error for which it is left out.
      resized: whether its image was downscaled.
    """

    record: bytes | None
    error: SampleError | None = None
    resized: bool = False


@dataclasses.dataclass(frozen=True)
class Encoder:
    """From indices of a source to records.

    Attributes:
      source: the source.
      schema: the fields of the records.
      image_size: see `downscale_image`; None leaves the size of images unchanged.
    """

    source: Source
    schema: Schema
    image_size: int | None = None

    def __call__(self, index: int) -> Encoded:
        """The record of the sample `index`, or the reason why it has none."""
        try:
            sample, resized = self.source[index], False
            if self.image_size is not None:
                image = downscale_image(
                    sample.image, self.image_size, sample.key, self.schema.image_format != "keep"
                )
                resized = image is not sample.image
                sample = dataclasses.replace(sample, image=image)
            return Encoded(self.schema.encode(sample), resized=resized)
        except SampleError as error:
            return Encoded(None, error)


def encode_from(
    encoder: Encoder, first: int, workers: int
) -> contextlib.AbstractContextManager[Iterator[Encoded]]:
    """A context with an iterator over all samples from `first` on, in order.

    The worker processes end when the context is left.

    Raises:
      DataError: during the iteration, if a worker process dies.
    """
    if workers <= 1:
        return contextlib.nullcontext(map(encoder, range(first, len(encoder.source))))
    return contextlib.closing(_in_processes(encoder, first, workers))


def _in_processes(encoder: Encoder, first: int, workers: int) -> Generator[Encoded, None, None]:
    context = multiprocessing.get_context("spawn")
    # not an Event: a dying worker could hold its lock
    stopped = context.RawValue(ctypes.c_bool, False)
    executor = ProcessPoolExecutor(workers, context, _start_worker, (encoder, stopped))
    starts, waiting = iter(range(first, len(encoder.source), CHUNK)), collections.deque()
    try:
        with workers_starting():
            for start in starts:
                waiting.append(executor.submit(_encode_chunk, start))
                if len(waiting) == workers * AHEAD:
                    break
        while waiting:
            done = waiting.popleft().result()
            for start in starts:
                waiting.append(executor.submit(_encode_chunk, start))
                break
            yield from done
    except BrokenProcessPool as error:
        raise DataError(
            f"{encoder.source.spec}: a worker process died, perhaps for want of "
            "memory; run the same command again to go on, with fewer than "
            f"--workers={workers}"
        ) from error
    finally:
        # after an early exit, running tasks stop, because their results are not needed
        stopped.value = True
        # no worker is killed: waiting for one killed while it sends would never end
        executor.shutdown(cancel_futures=True)


_encoder: Encoder  # of this process, where it is a worker
_stopped: ctypes.c_bool


def _start_worker(encoder: Encoder, stopped: ctypes.c_bool) -> None:
    global _encoder, _stopped
    _encoder, _stopped = encoder, stopped
    leave_with_parent()


def _encode_chunk(start: int) -> list[Encoded]:
    indices = range(start, min(start + CHUNK, len(_encoder.source)))
    return [_encoder(index) for index in indices if not _stopped.value]
