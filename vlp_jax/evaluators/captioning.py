"""Evaluation of captioning: loss of the true captions, and generated captions to read."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.evaluators.requirements import trained
from vlp_jax.evaluators.shares import Share
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.models.decoder.generation import BeamSearch

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

CAPTION_METRICS = ("caption_loss",)
SHOWN = 5  # number of images for which captions are generated


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationTaskConfig(TaskConfig):
    """Fields shared by the tasks that generate texts: beam search, as in transformers'
    `generate`."""

    num_beams: int = between(1, 1)  # number of beams; 1: greedy
    # a finished text's log-probability is divided by its length to this power
    length_penalty: float = 1.0
    # when the search ends (`BeamSearch` in models/decoder/generation.py)
    early_stopping: Literal[False, True, "never"] = False

    @property
    def search(self) -> BeamSearch:
        """How texts are generated."""
        return BeamSearch(
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
        )

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """Settings of beam search that greedy decoding does not use."""
        reason = "with num_beams=1: it is for beam search"
        return (
            dict.fromkeys(("length_penalty", "early_stopping"), reason)
            if self.num_beams == 1
            else {}
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionsTaskConfig(GenerationTaskConfig):
    """The loss of the true captions, and generated captions to read."""

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the decoder."""
        return None if "decoding" in trained(experiment) else "an objective of kind 'captioning'"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `CAPTION_METRICS`."""
        return CAPTION_METRICS

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption.

        Raises: DataError where one has none.
        """
        context.data.require_captions(self.kind)

    def run(self, context: "TaskContext") -> dict[str, float | str]:
        """The loss of the true captions, and some generated ones as texts."""
        assert context.text_generator is not None
        return captioning(
            context.data,
            context.text_generator,
            context.variables,
            context.batches,
            context.threads,
            self.search,
        )


# (number of items, indices of items -> items) -> this host's shares of the batches, with the items
Batches = Callable[[int, Callable[[np.ndarray], Iterable]], Iterator[tuple[Share, list]]]


def captioning(
    data: "EvaluationSet",
    text_generator: TextGenerator,
    variables: Any,
    batches: Batches,
    threads: int,
    search: BeamSearch = BeamSearch(),
) -> dict[str, float | str]:
    """Captioning loss of a set, and captions generated for its first images.

    Args:
      data: the set.
      text_generator: the model's decoder.
      variables: the model's variables.
      batches: divides the images among batches and hosts, as `TaskContext.batches`.
      threads: threads that decode images.
      search: how captions are generated.
    Returns:
      caption_loss: mean of -log p in nats over the tokens of each image's first caption,
        teacher-forced.
      captions: a text with the generated and the true captions of the first images.
    """

    def pairs(numbers: Sequence[int] | np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        return pairs_of(data, text_generator, threads, numbers)

    sums, counts = text_generator.token_losses(variables, batches(len(data), pairs))
    first = list(pairs(range(min(SHOWN, len(data)))))
    written = text_generator.captions(variables, [pixels for pixels, _ in first], search)
    lines = [
        f"{number + 1}. {caption}\n   true: {true}"
        for number, (caption, (_, true)) in enumerate(zip(written, first, strict=True))
    ]
    return {
        "caption_loss": float(sums.sum() / max(counts.sum(), 1)),
        "captions": "\n".join(lines) + "\n",
    }


def pairs_of(
    data: "EvaluationSet",
    text_generator: TextGenerator,
    threads: int,
    numbers: Sequence[int] | np.ndarray,
) -> Iterator[tuple[np.ndarray, str]]:
    """The pixels and the first caption of the images `numbers`."""
    chosen = [int(number) for number in numbers]
    pixels = data.pixels(text_generator.predictor.preprocessor, threads, chosen)
    for number, image in zip(chosen, pixels, strict=True):
        yield image, data.captions[data.captions_of_image[number][0]]
