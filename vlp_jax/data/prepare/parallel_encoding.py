"""The records of a source in its order, encoded in this process or in several."""

import collections
import contextlib
import ctypes
import dataclasses
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from vlp_jax.data.prepare.downscale import downscale_image
from vlp_jax.data.prepare.record_schema import Schema
from vlp_jax.data.samples import SampleError, Source
from vlp_jax.data.worker_processes import leave_with_parent, workers_starting
from vlp_jax.errors import DataError

CHUNK = 16  # samples a task of a process
AHEAD = 4  # tasks a process may be ahead of what is written


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What became of a sample: its record, or the error for which it is left out, and whether its picture was made smaller."""

    record: bytes | None
    error: SampleError | None = None
    resized: bool = False


@dataclasses.dataclass(frozen=True)
class Encoder:
    """From indices of a source to records. image_size: see `downscale_image`; None leaves pictures as large as they are."""

    source: Source
    schema: Schema
    image_size: int | None = None

    def __call__(self, index: int) -> Encoded:
        try:
            sample, resized = self.source[index], False
            if self.image_size is not None:
                image = downscale_image(sample.image, self.image_size, sample.key, self.schema.image_format != "keep")
                resized = image is not sample.image
                sample = dataclasses.replace(sample, image=image)
            return Encoded(self.schema.encode(sample), resized=resized)
        except SampleError as error:
            return Encoded(None, error)


def encode_from(encoder: Encoder, first: int, workers: int) -> contextlib.AbstractContextManager[Iterator[Encoded]]:
    """An iterator over all samples from `first` on, in order. Leaving the context ends the worker processes.

    Raises (while it is read): DataError if a worker process dies.
    """
    if workers <= 1:
        return contextlib.nullcontext(map(encoder, range(first, len(encoder.source))))
    return contextlib.closing(_in_processes(encoder, first, workers))


def _in_processes(encoder: Encoder, first: int, workers: int) -> Iterator[Encoded]:
    context = multiprocessing.get_context("spawn")
    stopped = context.RawValue(ctypes.c_bool, False)  # no Event, whose lock a worker that dies may hold
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
        raise DataError(f"{encoder.source.spec}: a worker process died, perhaps for want of memory; run the same command "
                        f"again to go on, with fewer than --workers={workers}") from error
    finally:
        stopped.value = True  # where this is not the end: tasks that nobody waits for any more are not finished first
        executor.shutdown(cancel_futures=True)  # no worker is killed: one that was sending would be waited for without end


def _start_worker(encoder: Encoder, stopped: ctypes.c_bool) -> None:
    global _encoder, _stopped
    _encoder, _stopped = encoder, stopped
    leave_with_parent()


def _encode_chunk(start: int) -> list[Encoded]:
    indices = range(start, min(start + CHUNK, len(_encoder.source)))
    return [_encoder(index) for index in indices if not _stopped.value]
