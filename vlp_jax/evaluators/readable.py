"""Evaluation sets without the samples that cannot be read or decoded.

Bad samples are named and counted.

A set is read when it is opened; its images are decoded by each evaluation. If a sample is bad, all
samples are checked, the bad ones are left out, and the set or the evaluation starts again. Sets
without bad samples have no extra cost.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vlp_jax.data.notifications import notice
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.samples import Sample, SampleError, Source, unpaired
from vlp_jax.errors import DataError
from vlp_jax.evaluators.evaluation_set import EvaluationSet, loaded

NAMED = 10  # most bad samples that are named in a line of their own


class GoodSamples:
    """A source without its bad samples; all other attributes are those of the full source.

    Args:
      source: the source with all samples.
      bad: {index in the source: reason why the sample is left out}.
    """

    def __init__(self, source: Source, bad: dict[int, SampleError]):
        self.source, self.spec, self.bad = source, source.spec, bad
        self.numbers = [number for number in range(len(source)) if number not in bad]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.numbers[index]]

    def fingerprint(self) -> str:
        """The fingerprint of the full source."""
        return self.source.fingerprint()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)


def readable_set(source: Source, threads: int) -> EvaluationSet:
    """The set of the samples that can be read.

    Raises:
      DataError: no sample can be read.
    """
    try:
        return EvaluationSet(source)
    except SampleError:
        return without(source, bad_samples(source, lambda sample: None, threads))


def decodable_set(
    data: EvaluationSet,
    preprocessor: Preprocessor,
    threads: int,
    paced: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> EvaluationSet:
    """The set of the samples whose images can be decoded; `data` itself where all can.

    Args:
      data: the set.
      preprocessor: decodes the images.
      threads: threads that decode.
      paced: wraps an iterator over sample indices with a callback before each batch.
    Raises:
      DataError: no image can be decoded.
    """
    source = data.given.source if isinstance(data.given, GoodSamples) else data.given
    before = data.given.bad if isinstance(data.given, GoodSamples) else {}
    bad = bad_samples(
        source, lambda sample: preprocessor.opened(sample.image, sample.key), threads, before, paced
    )
    return data if bad.keys() == before.keys() else without(source, bad)


def bad_samples(
    source: Source,
    check: Callable[[Sample], Any],
    threads: int,
    before: dict[int, SampleError] | None = None,
    paced: Callable[[Sequence[int]], Iterator[int]] = iter,
) -> dict[int, SampleError]:
    """{index: error} of the samples that cannot be read or do not pass `check`.

    Those in `before` are not read again.
    """
    known = before or {}

    def look(number: int) -> tuple[int, SampleError | None]:
        try:
            if number not in known:
                check(source[number])
            return number, known.get(number)
        except SampleError as error:
            return number, error

    outcomes = loaded(look, range(len(source)), threads)
    return {
        number: error
        for _, (number, error) in zip(paced(range(len(source))), outcomes, strict=True)
        if error is not None
    }


def without(source: Source, bad: dict[int, SampleError]) -> EvaluationSet:
    """The set of the other samples; prints a line for each of the first bad ones, and their number.

    Raises:
      DataError: all samples are bad.
    """
    first = next(iter(bad.values()))
    if len(bad) == len(source):
        raise DataError(
            f"{source.spec}: none of its {len(source)} samples can be read; the first: "
            f"{first.key}: {first.message}{unpaired(first.reason, first.message)}"
        )
    for error in list(bad.values())[:NAMED]:
        notice(
            f"data warning: {source.spec}: left out of the evaluation: {error.key}: "
            f"{error.message} ({error.reason})"
        )
    more = f", {len(bad) - NAMED} of them without a line" if len(bad) > NAMED else ""
    notice(
        f"data warning: {source.spec}: {len(bad)} of {len(source)} samples are left out of the "
        f"evaluation{more}"
    )
    return EvaluationSet(GoodSamples(source, bad))


def left_out(data: EvaluationSet) -> int:
    """The number of bad samples of a set."""
    return len(data.given.bad) if isinstance(data.given, GoodSamples) else 0
