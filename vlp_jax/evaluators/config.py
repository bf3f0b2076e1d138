"""The `evaluators` section of a config."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between, section
from vlp_jax.config.section import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatorConfig(Section):
    """An evaluation set and its metrics. The name of the entry is the prefix of the metrics."""

    source: str = "embedded:emoji/val_vendor"
    tasks: tuple[Literal["retrieval", "zero_shot", "matching", "captions", "classification", "regression", "answers"], ...] = (
        "retrieval",)
    every_steps: int | None = between(None, 1)  # None: after the last step only
    batch_size: int = between(256, 1)
    # retrieval. True: equal captions are one text, and any image that has it is correct. False: each caption is a text of its own,
    # and only its own image is correct, the protocol of COCO and CLIP_benchmark.
    merge_equal_captions: bool = False
    # zero_shot: metadata field of the class, with dots as in `Target`; None: the source's own, "class" in folders
    class_field: str | None = None
    templates: tuple[str, ...] = ("{}",)  # prompts, with {} for the class; "imagenet": CLIP's 80; or a file with one per line
    # zero_shot: better names for each class, by class; or the names of classes 0, 1 and so on; or "imagenet" for its 1,000; or a
    # file with one per line.
    class_names: dict[str, tuple[str, ...]] | tuple[str, ...] = section(dict)
    captions_per_class: int = between(400, 0)  # zero_shot by descriptions: training captions kept per class
    objective: str | None = None  # classification, regression, answers: the objective with the head; None: the first
    by: str | None = None  # classification: metadata field, as above; accuracy is also reported per value
    num_beams: int = between(1, 1)  # captions and answers: number of beams; 1: greedy
    # Beam search, as in transformers' `generate`. length_penalty: a finished text's log-probability is divided by its length to
    # this power. early_stopping: when the search ends (see `BeamSearch` in models/decoder/generation.py).
    length_penalty: float = 1.0
    early_stopping: Literal[False, True, "never"] = False
