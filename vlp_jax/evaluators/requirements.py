"""The encodings and heads that a config trains, which determine the possible evaluator tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlp_jax.errors import ConfigError
from vlp_jax.evaluators.config import EvaluatorConfig
from vlp_jax.evaluators.supervised import HEADS
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.objectives.pretraining_module import encodings_trained

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
    matched = any(objective.kind == "matching" for objective in config.objectives.values())
    needs = {"retrieval": (embedded, "an objective on the embeddings of images and of captions, such as kind='clip'"),
             "zero_shot": (embedded, "an objective on the embeddings of images and of captions, such as kind='clip'"),
             "matching": (matched, "an objective of kind 'matching'"),
             "captions": ("decoding" in trained, "an objective of kind 'captioning'"),
             **{task: (any(objective.kind in kinds for objective in config.objectives.values()),
                       f"an objective of kind {' or '.join(map(repr, kinds))}") for task, kinds in HEADS.items()}}
    possible = [task for task, (there, _) in needs.items() if there]
    for task in tasks:
        there, need = needs[task]
        if not there:
            raise ConfigError(f"{name}: {task!r} needs {need}, and there is none; possible: {', '.join(possible) or 'no task'}")


def check_negatives(config: "Experiment") -> None:
    """Checks that negative pairs are drawn only by embeddings that are trained.

    Raises:
      ConfigError: they are drawn by embeddings that no objective of `config` trains.
    """
    for name, objective in config.objectives.items():
        drawn = isinstance(objective, MatchingConfig) and objective.negatives == "similar"
        if drawn and not encodings_trained(config.objectives) >= EMBEDDINGS:
            raise ConfigError(f"objectives.{name}.negatives: 'similar' draws by the embeddings of images and captions, which no "
                              "objective trains; add one, such as kind='clip', or set negatives='uniform'")


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
    kinds = {kind for task in HEADS if task in spec.tasks for kind in HEADS[task]}
    possible = [name for name, objective in config.objectives.items() if objective.kind in kinds]
    if spec.objective not in possible:
        raise ConfigError(f"{name}: {spec.objective!r} is no objective of a kind among its tasks, {', '.join(spec.tasks)} "
                          f"(there are: {', '.join(possible) or 'none'})")
    kind = config.objectives[spec.objective].kind
    able, unable = ([task for task in HEADS if task in spec.tasks and (kind in HEADS[task]) == does] for does in (True, False))
    if unable:
        raise ConfigError(f"{name}: {spec.objective!r} cannot do both {able[0]} and {unable[0]}; make two evaluators")
