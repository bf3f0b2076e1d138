"""Zero-shot classification of images with several classes each, as in CLIP_benchmark."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.data.samples import NamesClasses
from vlp_jax.data.target_kinds import ClassTargetConfig
from vlp_jax.errors import DataError
from vlp_jax.evaluators.prompts import Classes, names_in, own_class_field, prompts_of
from vlp_jax.metrics.classification import average_precision
from vlp_jax.metrics.ranking import similarities

if TYPE_CHECKING:
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.evaluators.zero_shot import ZeroShotTaskConfig

MULTI_LABEL_METRICS = ("classes", "zero_shot_mean_average_precision")


def several_classes(
    data: "EvaluationSet", task: "ZeroShotTaskConfig", where: str = ""
) -> tuple[Classes, np.ndarray]:
    """The classes of a set whose images have a list of them: all that `class_names` or the source
    names, else those that occur.

    Args:
      data: the set.
      task: the settings.
      where: prefix of the settings, for messages.
    Returns: the classes, and bool [N, C], which of them each image has.
    Raises:
      DataError: no image has a class, or one has a class that is not among those listed.
    """
    field = task.class_field or own_class_field(data.metadata[0])
    if field is None:
        raise DataError(
            f"{data.source.spec}: zero_shot with multi_label reads a list of classes: name its "
            f"metadata field by {where}class_field"
        )
    reader = ClassTargetConfig(field=field)
    held = [reader.values(metadata) for metadata in data.metadata]
    given = names_in(f"{where}class_names", task.class_names)
    source = data.source
    own = source.class_names.get(field, ()) if isinstance(source, NamesClasses) else ()
    listed = [*own] if isinstance(given, Mapping) else [*given]
    names = listed or sorted({value for values in held for value in values})
    if not names or not any(held):
        raise DataError(
            f"{source.spec}: no image has a class in the metadata field {field!r} "
            f"({where}class_field), {data.found(0, field)}"
        )
    place = {name: number for number, name in enumerate(names)}
    place |= {str(number): number for number in range(len(names)) if listed}
    truth = np.zeros((len(held), len(names)), bool)
    for number, values in enumerate(held):
        for value in values:
            if value not in place:
                raise DataError(
                    f"{data.keys[number]}: class {value!r} in the metadata field {field!r} is none "
                    f"of the {len(names)} that are listed"
                )
            truth[number, place[value]] = True
    words = given if isinstance(given, Mapping) else {}
    templates = prompts_of(data, task, where)
    return Classes(field, names, np.arange(0), words, templates), truth


def multi_label(
    images: np.ndarray,
    truth: np.ndarray,
    classes: Classes,
    means_of: Callable[[Mapping[str, Sequence[str]]], np.ndarray],
) -> dict[str, float]:
    """Mean average precision of the similarities with the prompts of each class.

    As in CLIP_benchmark, the mean is over all classes, and a class without images has 0. Images
    with equal similarities count as one threshold, where CLIP_benchmark has some order of them.

    Args:
      images: [N, E] embeddings.
      truth: bool [N, C].
      classes: the classes.
      means_of: {class: prompts} -> unit vectors [C, E].
    Returns: the `MULTI_LABEL_METRICS`.
    Raises:
      ValueError: embeddings are not finite.
    """
    prompts = {
        name: [
            template.format(word)
            for word in classes.words.get(name, (name,))
            for template in classes.templates
        ]
        for name in classes.names
    }
    scores = similarities(images, means_of(prompts))
    if not np.isfinite(scores).all():
        raise ValueError("embeddings are not finite")
    each = [
        average_precision(scores[:, own], truth[:, own]) if truth[:, own].any() else 0.0
        for own in range(truth.shape[1])
    ]
    return dict(zip(MULTI_LABEL_METRICS, (truth.shape[1], float(np.mean(each))), strict=True))
