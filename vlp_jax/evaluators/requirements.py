"""The encodings and heads that a config trains, which determine the possible evaluator tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.supervised import HEADS
from vlp_jax.objectives.base import encodings_trained

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

EMBEDDINGS = {"image_embedding", "text_embedding"}


def check_trained(name: str, tasks: Sequence[str], config: "Experiment") -> None:
    """Checks that the objectives of `config` train what the tasks measure.

    Args:
      name: config key or flag of the tasks, for messages.
      tasks: the tasks.
      config: the config of the run.
    Raises:
      ConfigError: no objective trains what a task measures.
    """
    trained = encodings_trained(config.objectives)
    embedded = trained >= EMBEDDINGS
    served = {task for objective in config.objectives.values() for task in objective.tasks}
    needs = {"retrieval": (embedded, "an objective on the embeddings of images and of captions, such as kind='clip'"),
             "zero_shot": (embedded, "an objective on the embeddings of images and of captions, such as kind='clip'"),
             "matching": ("matching" in served, "an objective of kind 'matching'"),
             "captions": ("decoding" in trained, "an objective of kind 'captioning'"),
             **{task: (task in served, f"an objective of kind {' or '.join(map(repr, kinds))}") for task, kinds in HEADS.items()}}
    possible = [task for task, (there, _) in needs.items() if there]
    for task in tasks:
        there, need = needs[task]
        if not there:
            raise ConfigError(f"{name}: {task!r} needs {need}, and there is none; possible: {', '.join(possible) or 'no task'}")


def check_heads(name: str, spec: EvaluatorConfig, config: "Experiment") -> None:
    """Checks that the objective that an evaluator names has a head for its tasks.

    Args:
      name: config key or flag of the objective, for messages.
      spec: the config of the evaluator.
      config: the config of the run.
    Raises:
      ConfigError: it has none.
    """
    if spec.objective is None:
        return
    tasks = [task for task in HEADS if task in spec.tasks]
    possible = [name for name, objective in config.objectives.items() if {*tasks} & {*objective.tasks}]
    if spec.objective not in possible:
        raise ConfigError(f"{name}: {spec.objective!r} is no objective of a kind among its tasks, {', '.join(spec.tasks)} "
                          f"(there are: {', '.join(possible) or 'none'})")
    served = config.objectives[spec.objective].tasks
    able, unable = ([task for task in tasks if (task in served) == does] for does in (True, False))
    if unable:
        raise ConfigError(f"{name}: {spec.objective!r} cannot do both {able[0]} and {unable[0]}; make two evaluators")
