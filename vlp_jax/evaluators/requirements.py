"""The encodings and heads that a config trains, which determine the possible evaluator tasks."""

from typing import TYPE_CHECKING

from vlp_jax.objectives.base import ObjectiveConfig, encodings_trained

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


def lacks_head(experiment: "Experiment", task: str) -> str | None:
    """The objectives with a head for a task, in words; None where the experiment has one."""
    there = any(task in objective.tasks for objective in experiment.objectives.values())
    return None if there else f"an objective of kind {kinds_with_head(task)}"


def kinds_with_head(task: str) -> str:
    """The kinds of objectives with a head for a task, in words."""
    return " or ".join(
        repr(kind)
        for kind, declaration in ObjectiveConfig.kinds.items()
        if task in declaration.tasks
    )


def lacks_patches(experiment: "Experiment") -> str | None:
    """The phrase for `lacks` of a task that compares the tokens of images with texts; None where
    this is possible."""
    tower = experiment.model.image
    if lacks_embeddings(experiment) or tower.projects_tokens:
        return lacks_embeddings(experiment)
    return (
        "an image tower whose pooled vector is a token or the mean of the tokens (a ViT with "
        "pooling='cls' or 'mean', norm_before_pooling=True and no pooler, or a ResNet without "
        "attention pooling)"
    )
