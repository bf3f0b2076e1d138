"""Which tasks an evaluator can have: those for which the config's objectives train something."""

from collections.abc import Sequence

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.module import encodings_needed

EMBEDDINGS = {"image_embedding", "text_embedding"}


def check_trained(name: str, tasks: Sequence[str], config: schema.Config) -> None:
    """Raises: ConfigError naming a task that measures what no objective of `config` trains. name: where the tasks stand."""
    embedded = encodings_needed(config.objectives) >= EMBEDDINGS
    matched = any(objective.kind == "matching" for objective in config.objectives.values())
    needs = {"retrieval": (embedded, "an objective on the embeddings of pictures and of captions, such as kind='softmax'"),
             "zero_shot": (embedded, "an objective on the embeddings of pictures and of captions, such as kind='softmax'"),
             "matching": (matched, "an objective of kind 'matching'"),
             "captions": (config.model.decoder is not None, "a model.decoder")}
    possible = [task for task, (there, _) in needs.items() if there]
    for task in tasks:
        there, need = needs[task]
        if not there:
            raise ConfigError(f"{name}: {task!r} needs {need}, and there is none; possible: {', '.join(possible) or 'no task'}")
