"""The encodings and heads that a config trains, which determine the possible evaluator tasks."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from vlp_jax.errors import ConfigError
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.objectives.pretraining_module import encodings_trained

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

EMBEDDINGS = {"image_embedding", "text_embedding"}


def trained(experiment: "Experiment") -> set[str]:
    """The names of the encodings that the objectives of an experiment train."""
    return encodings_trained(experiment.objectives)


def lacks_embeddings(experiment: "Experiment") -> str | None:
    """What would train the embeddings of images and captions; None where an objective does."""
    wanted = "an objective on the embeddings of images and of captions, such as kind='clip'"
    return None if trained(experiment) >= EMBEDDINGS else wanted


def lacks_objective(experiment: "Experiment", kinds: Collection[str]) -> str | None:
    """An objective of one of these kinds, in words; None where there is one."""
    there = any(objective.kind in kinds for objective in experiment.objectives.values())
    return None if there else f"an objective of kind {' or '.join(map(repr, kinds))}"


def check_negatives(config: "Experiment") -> None:
    """Checks that negative pairs are drawn only by embeddings that are trained.

    Raises:
      ConfigError: they are drawn by embeddings that no objective of `config` trains.
    """
    for name, objective in config.objectives.items():
        drawn = isinstance(objective, MatchingConfig) and objective.negatives == "similar"
        if drawn and lacks_embeddings(config):
            raise ConfigError(f"objectives.{name}.negatives: 'similar' draws by the embeddings of images and captions, which no "
                              "objective trains; add one, such as kind='clip', or set negatives='uniform'")
