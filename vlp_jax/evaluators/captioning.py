"""Evaluation of captioning: loss of the true captions, generated captions and their metrics."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.data.samples import SampleError, check_captions
from vlp_jax.data.sources.columns import pick
from vlp_jax.errors import DataError
from vlp_jax.evaluators.requirements import trained
from vlp_jax.evaluators.shares import Share
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.text_generator import TextGenerator
from vlp_jax.metrics.captions.scores import CAPTION_SCORES, caption_scores
from vlp_jax.models.decoder.generation import BeamSearch

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

CAPTION_METRICS = ("caption_loss",)
SHOWN = 5  # number of images whose captions are shown


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
    """The loss of the true captions, and generated captions with their metrics."""

    # number of images, from the first one, for which captions are generated; None: all. Metrics of
    # the generated captions are computed where they are more than 5.
    generate: int | None = between(SHOWN, 1)
    # metadata field of the true captions with which generated ones are compared, a text or a list;
    # None: the captions of the sample
    references: str | None = None

    @property
    def scored(self) -> bool:
        """Whether metrics of the generated captions are computed."""
        return self.generate is None or self.generate > SHOWN

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the decoder."""
        return None if "decoding" in trained(experiment) else "an objective of kind 'captioning'"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `CAPTION_METRICS`, and in `CAPTION_SCORES` where these are computed."""
        return (*CAPTION_METRICS, *(CAPTION_SCORES if self.scored else ()))

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Checks that every image has a caption, and true captions to compare with.

        Raises: DataError where one has none.
        """
        context.data.require_captions(self.kind)
        for number in range(len(context.data) if self.references is not None else 0):
            references_of(context.data, number, self.references, f"{where}references")

    def run(self, context: "TaskContext") -> dict[str, float | str]:
        """The loss of the true captions, generated ones as texts, and metrics of these."""
        assert context.text_generator is not None
        return captioning(
            context.data,
            context.text_generator,
            context.variables,
            context.batches,
            context.threads,
            self,
        )


# (number of items, indices of items -> items) -> this host's shares of the batches, with the items
Batches = Callable[[int, Callable[[np.ndarray], Iterable]], Iterator[tuple[Share, list]]]


def captioning(
    data: "EvaluationSet",
    text_generator: TextGenerator,
    variables: Any,
    batches: Batches,
    threads: int,
    task: CaptionsTaskConfig,
) -> dict[str, float | str]:
    """Captioning loss of a set, captions generated for its images, and metrics of these.

    Args:
      data: the set.
      text_generator: the model's decoder.
      variables: the model's variables.
      batches: divides the images among batches and hosts, as `TaskContext.batches`.
      threads: threads that decode images.
      task: for how many images captions are generated, how, and what they are compared with.
    Returns:
      caption_loss: mean of -log p in nats over the tokens of each image's first caption,
        teacher-forced.
      captions: a text with the generated and the true captions of the first images.
      captions.json: the generated captions in COCO's format of results, and the metrics of
        `caption_scores` (metrics/captions/scores.py), where `task.scored`.
    """

    def pixels(numbers: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        chosen = [int(number) for number in numbers]
        return data.pixels(text_generator.predictor.preprocessor, threads, chosen)

    def pairs(numbers: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        return pairs_of(data, text_generator, threads, numbers)

    first = [data.captions[numbers[0]] for numbers in data.captions_of_image]
    sums, counts = text_generator.token_losses(variables, batches(len(data), pairs))
    number = len(first) if task.generate is None else min(task.generate, len(first))
    if number > SHOWN:
        written = text_generator.batched_captions(variables, batches(number, pixels), task.search)
    else:
        written = text_generator.captions(variables, [*pixels(range(number))], task.search)
    lines = [
        f"{place + 1}. {caption}\n   true: {true}\n"
        for place, (caption, true) in enumerate(zip(written[:SHOWN], first, strict=False))
    ]
    found: dict[str, float | str] = {
        "caption_loss": float(sums.sum() / max(counts.sum(), 1)),
        "captions": "".join(lines),
    }
    if task.scored:
        true = [
            references_of(data, place, task.references, "references") for place in range(number)
        ]
        found |= caption_scores(written, true)
        found["captions.json"] = coco_results(data, written)
    return found


def references_of(data: "EvaluationSet", number: int, field: str | None, setting: str) -> list[str]:
    """The true captions of an image.

    Args:
      data: the set.
      number: index of the image.
      field: the metadata field that holds them; None: the captions of the sample.
      setting: the setting that names the field, for messages.
    Raises:
      DataError: the field holds no texts.
    """
    if field is None:
        return [data.captions[caption] for caption in data.captions_of_image[number]]
    value = pick(data.metadata[number], field)
    try:
        return list(check_captions([(field, value)], data.keys[number]))
    except SampleError as error:
        raise DataError(
            f"{data.keys[number]}: an evaluation needs a text or a list of texts in the metadata "
            f"field {field!r} ({setting}), {data.found(number, field)}"
        ) from error


def coco_results(data: "EvaluationSet", captions: Sequence[str]) -> str:
    """Captions of the first images of a set as JSON in COCO's format of results: a list of
    {"image_id", "caption"}.

    The identifier is the one in the metadata field `image_id`, else the key of the sample.
    """
    keys = (key.removeprefix(f"{data.source.spec}: ") for key in data.keys)
    rows = [
        {"image_id": metadata.get("image_id", key), "caption": caption}
        for caption, key, metadata in zip(captions, keys, data.metadata, strict=False)
    ]
    return json.dumps(rows) + "\n"


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
