"""Perplexity of the true captions under the decoder."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.evaluators.captioning import pairs_of
from vlp_jax.evaluators.requirements import trained
from vlp_jax.evaluators.task import TaskConfig

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.experiment import Experiment

PERPLEXITY_METRICS = ("perplexity_token", "perplexity_word", "perplexity_captions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerplexityTaskConfig(TaskConfig):
    """Perplexity of each image's first caption, per token and per word."""

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the decoder."""
        return None if "decoding" in trained(experiment) else "an objective of kind 'captioning'"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `PERPLEXITY_METRICS`."""
        return PERPLEXITY_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption.

        Raises: DataError where one has none.
        """
        context.data.require_captions(self.kind)

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The `PERPLEXITY_METRICS` of the set."""
        data, generator = context.data, context.text_generator
        assert generator is not None

        def pairs(numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
            return pairs_of(data, generator, context.threads, numbers)

        sums, counts = generator.token_losses(context.variables, context.batches(len(data), pairs))
        first = [data.captions[own[0]] for own in data.captions_of_image]
        return perplexity(sums, counts, first)


def perplexity(sums: np.ndarray, counts: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
    """exp of the mean of -log p, in nats.

    A caption's tokens count as the decoder predicts them, the end token included where there is
    one. The mean per word divides the same sum by the number of words, separated by blanks, so that
    models with different tokenizers can be compared (as lm-evaluation-harness's word_perplexity
    does); it is meaningful where captions are not cut and have no unknown words.

    Args:
      sums: float [N], -log p of each caption.
      counts: int [N], its predicted tokens.
      captions: the captions.
    Raises:
      ValueError: a sum is not finite.
    """
    if not np.isfinite(sums).all():
        raise ValueError("losses of captions are not finite")
    total, words = float(np.sum(sums)), sum(len(caption.split()) for caption in captions)
    return {
        "perplexity_token": float(np.exp(total / max(int(counts.sum()), 1))),
        "perplexity_word": float(np.exp(total / max(words, 1))),
        "perplexity_captions": len(captions),
    }
