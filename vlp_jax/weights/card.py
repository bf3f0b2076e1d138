"""Model cards of exported models."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlp_jax import __version__
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.training.hooks.metric_writers import read_rows

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

TASK = "zero-shot-image-classification"
LIBRARIES = {"huggingface": "transformers", "openclip": "open_clip"}


def model_card(
    workdir: str, step: int, config: "Experiment", license_: str | None, place: str
) -> str:
    """The README.md of an exported model, as the Hugging Face hub reads it.

    Args:
      workdir: that of the run.
      step: of the checkpoint.
      config: of the run.
      license_: identifier of the licence; None: not stated.
      place: FORMAT:DIR.
    """
    kind, _, folder = place.partition(":")
    head = {
        "library_name": LIBRARIES[kind],
        "pipeline_tag": TASK,
        "license": license_ or "unknown",
        "tags": "[vlp_jax]",
    }
    lines = ["---", *(f"{key}: {value}" for key, value in head.items()), "---", ""]
    lines += [f"# {os.path.basename(os.path.abspath(folder))}", ""]
    lines += [f"Trained by vlp_jax {__version__}; the checkpoint of step {step}.", ""]
    lines += ["## Training", ""]
    lines += [f"- data: `{source}`" for source in sources(config)]
    lines += [f"- batch size: {config.data.batch_size}", f"- seed: {config.seed}"]
    lines += [
        f"- objective `{name}`: {objective.kind}" for name, objective in config.objectives.items()
    ]
    lines += [
        f"- optimizer: {config.optimizer.kind}, learning rate {config.optimizer.learning_rate:g}",
        f"- image size: {config.model.image.image_size}",
    ]
    found = metrics(workdir, step)
    if found:
        lines += ["", "## Metrics", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in sorted(found.items())]
    return "\n".join([*lines, ""])


def sources(config: "Experiment") -> list[str]:
    """The training data of a config."""
    train = config.data.train
    if train.mixture:
        return [part.source or "" for part in train.mixture.values()]
    return [train.source or ""]


def metrics(workdir: str, step: int) -> dict[str, float]:
    """The evaluation metrics that the run recorded up to this step, the latest of each."""
    found: dict[str, float] = {}
    for row in read_rows(os.path.join(workdir, "metrics.jsonl")):
        if row.get("step", 0) <= step:
            found |= {
                name: value
                for name, value in row.items()
                if "/" in name
                and not name.startswith(("train/", "goodput/"))
                and isinstance(value, float)
            }
    return found


def image_note(preprocessor: Preprocessor, theirs: str) -> str:
    """A section of the model card about transparent images, where others prepare them in another
    way.

    Args:
      preprocessor: ours.
      theirs: "drop" for a processor that drops the alpha channel, "composite" for one that
        composites over white.
    """
    spec = preprocessor.images
    white = spec.transparency == "drop" or spec.background == (255, 255, 255)
    if spec.transparency == theirs and white:
        return ""
    over = "" if spec.transparency == "drop" else f" over {spec.background}"
    does = "drops the alpha channel" if theirs == "drop" else "composites them over white"
    return (
        "\n## Images\n\nIn training, images with transparency were prepared by "
        f"`transparency={spec.transparency}`{over} (vlp_jax/data/images/preprocessing.py); the "
        f"processor in this folder {does}.\n"
    )


def text_note(left: Sequence[str]) -> str:
    """A section of the model card about changes of a text that the tokenizer does not make."""
    if not left:
        return ""
    return (
        "\n## Text\n\nIn training, captions were changed before tokenization by "
        f"{', '.join(f'`{name}`' for name in left)} "
        "(vlp_jax/data/text/canonicalize.py); the tokenizer in this folder does not do that.\n"
    )
