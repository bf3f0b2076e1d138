"""Results with the names of CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark), for its tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.errors import ConfigError

# {task: (its name there, {metric here: metric there})}
NAMES: dict[str, tuple[str, dict[str, str]]] = {
    "zero_shot": (
        "zeroshot_classification",
        {
            "zero_shot_accuracy": "acc1",
            "zero_shot_top_5": "acc5",
            "zero_shot_mean_per_class_recall": "mean_per_class_recall",
            "zero_shot_mean_average_precision": "mean_average_precision",
        },
    ),
    "retrieval": (
        "zeroshot_retrieval",
        {
            f"{here}_recall@{k}": f"{there}_retrieval_recall@{k}"
            for k in (1, 5, 10)
            for here, there in (("text_to_image", "image"), ("image_to_text", "text"))
        },
    ),
    "linear_probe": (
        "linear_probe",
        {
            "linear_probe_accuracy": "lp_acc1",
            "linear_probe_top_5": "lp_acc5",
            "linear_probe_mean_per_class_recall": "lp_mean_per_class_recall",
        },
    ),
    "composition": (
        "image_caption_selection",
        {
            "composition_accuracy": "text_acc",
            "composition_text_score": "text_acc",
            "composition_image_score": "image_acc",
            "composition_group_score": "acc",
        },
    ),
}


def check_known(tasks: Sequence[str], where: str) -> None:
    """Checks that CLIP_benchmark has the tasks; `where` names the setting in messages.

    Raises:
      ConfigError: it lacks one of them.
    """
    for task in tasks:
        if task not in NAMES:
            raise ConfigError(
                f"{where}: CLIP_benchmark has no task like {task!r}; it has those like "
                f"{', '.join(NAMES)}"
            )


def clip_benchmark_results(
    results: Mapping[str, Any],
    tasks: Sequence[str],
    *,
    dataset: str,
    model: str,
    pretrained: str,
    language: str = "en",
) -> list[dict[str, Any]]:
    """One result for each task, as CLIP_benchmark's `cli.py` writes to a file of its own.

    Args:
      results: the metrics by name.
      tasks: the tasks, all of them in `NAMES`.
      dataset: name of the evaluation set.
      model: name of the model.
      pretrained: name of its parameters.
      language: that of the texts.
    """
    return [
        {
            "dataset": dataset,
            "model": model,
            "pretrained": pretrained,
            "task": NAMES[task][0],
            "metrics": {
                there: results[here] for here, there in NAMES[task][1].items() if here in results
            },
            "language": language,
        }
        for task in tasks
    ]
