"""Zero-shot segmentation: the class of a patch is the one whose texts are nearest to it.

The tokens of the image tower are projected into the shared space, as the dense features of MaskCLIP
(Zhou et al. 2022) and TIPS (Maninis et al. 2025) are compared with texts.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vlp_jax.config.problems import Problems
from vlp_jax.data.images.masks import read_mask, visible_mask
from vlp_jax.data.images.preprocessing import evaluation_view
from vlp_jax.data.samples import NamesClasses
from vlp_jax.data.sources.columns import pick
from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.prompts import names_in, templates_of
from vlp_jax.evaluators.requirements import lacks_patches
from vlp_jax.evaluators.similarity_maps import enlarged, similarity_maps
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.zero_shot import class_means
from vlp_jax.metrics.per_class import confusion_matrix
from vlp_jax.metrics.segmentation import segmentation_scores

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

SEGMENTATION_METRICS = tuple(
    f"segmentation_{name}"
    for name in ("images", "classes", "mean_iou", "pixel_accuracy", "majority", "majority_mean_iou")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationTaskConfig(TaskConfig):
    """Mean IoU of patches classified by prompts."""

    # Metadata field, with dots as in targets, of the mask: an image file with one channel, whose
    # values are classes, or rows of numbers. Values that are no class are not counted, such as 255.
    mask_field: str = "mask"
    # prompts and class names as of zero_shot; without names, those that the source has for the mask
    templates: tuple[str, ...] = ("{}",)
    mask_classes: tuple[str, ...] = ()  # the names of classes 0, 1 and so on, or a file of them

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings, and a tower whose tokens can be projected."""
        return lacks_patches(experiment)

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `SEGMENTATION_METRICS`."""
        return SEGMENTATION_METRICS

    def check_files(self, name: Callable[[str], str]) -> None:
        """Reads the files of `templates` and `mask_classes`.

        Raises: ConfigError, or ConfigErrors where both are invalid.
        """
        problems = Problems()
        with problems.noted():
            templates_of(name("templates"), self.templates)
        with problems.noted():
            self.listed(name("mask_classes"))
        problems.report()

    def listed(self, where: str) -> tuple[str, ...]:
        """The names of `mask_classes`; `where` names the setting in messages."""
        names = names_in(where, self.mask_classes)
        if isinstance(names, Mapping):
            raise ConfigError(f"{where}: must be a list of names, in the order of the classes")
        return tuple(names)

    def names(self, data: "EvaluationSet", where: str = "") -> tuple[str, ...]:
        """The names of the classes.

        Raises:
          DataError: neither the settings nor the source name them.
        """
        source = data.source
        own = (
            source.class_names.get(self.mask_field, ()) if isinstance(source, NamesClasses) else ()
        )
        names = self.listed(f"{where}mask_classes") or tuple(own)
        if not names:
            raise DataError(
                f"{source.spec}: nothing names the classes in the masks: give {where}mask_classes, "
                "the names of classes 0, 1 and so on"
            )
        return names

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Reads all masks, and finds the names of their classes.

        Raises: DataError where a mask or names are missing.
        """
        self.names(context.data, where)
        for number in range(len(context.data)):
            mask_of(context.data, number, self.mask_field, f"{where}mask_field")

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The `SEGMENTATION_METRICS` of the set."""
        names = self.names(context.data)
        templates = templates_of("templates", self.templates)
        prompts = {str(i): [t.format(name) for t in templates] for i, name in enumerate(names)}
        return segmentation(
            context.feature_batches(context.data, "patches"),
            class_means(prompts, context.embed_texts),
            self.masks(context),
        )

    def masks(self, context: "TaskContext") -> Iterator[np.ndarray]:
        """The visible part of each mask, at the resolution of the model's images."""
        data, preprocessor = context.data, context.predictor.preprocessor
        for number in range(len(data)):
            image = preprocessor.opened(data.source[number].image, data.keys[number])
            view = evaluation_view(image, preprocessor.image_size, preprocessor.images)
            mask = mask_of(data, number, self.mask_field)
            yield visible_mask(mask, view, preprocessor.image_size, outside=-1)


def mask_of(
    data: "EvaluationSet", number: int, field: str, setting: str = "mask_field"
) -> np.ndarray:
    """The mask of an image, int64 [H, W].

    Raises:
      DataError: it has none.
    """
    value = pick(data.metadata[number], field)
    mask = None if value is None else read_mask(value)
    if mask is None:
        there = ", ".join(sorted(data.metadata[number])) or "none"
        raise DataError(
            f"{data.keys[number]}: segmentation needs an image file with one channel, or rows of "
            f"whole numbers, in the metadata field {field!r} ({setting}); there are: {there}"
        )
    return mask


def segmentation(
    patches: Iterable[np.ndarray], classes: np.ndarray, masks: Iterable[np.ndarray]
) -> dict[str, float]:
    """Mean IoU and pixel accuracy of the nearest class of each pixel.

    Similarities of patches are interpolated to pixels bilinearly, as in MaskCLIP, before the
    highest is taken.

    Args:
      patches: batches [B, side, side, E] of unit vectors.
      classes: [C, E], unit vectors.
      masks: of each image, int [size, size]; pixels whose value is none of 0 ... C - 1 are not
        counted.
    Returns: the `SEGMENTATION_METRICS`. The mean IoU is over the classes that occur in masks or
      predictions; "majority" is the pixel accuracy of the most frequent class everywhere, and
      "majority_mean_iou" its mean IoU.
    Raises:
      ValueError: embeddings are not finite, or no pixel has a class.
    """
    count, images, masks = len(classes), 0, iter(masks)
    confusion = np.zeros((count, count), np.int64)
    for batch in patches:
        if not np.isfinite(batch).all():
            raise ValueError("embeddings of patches are not finite")
        for image, mask in zip(batch, itertools.islice(masks, len(batch)), strict=True):
            confusion += of_image(image, classes, mask)
            images += 1
    if not confusion.sum():
        raise ValueError("no pixel of any mask has a class")
    support = confusion.sum(axis=1)
    constant = np.zeros_like(confusion)
    constant[:, support.argmax()] = support
    values = (
        images,
        count,
        segmentation_scores(confusion).mean_iou,
        np.trace(confusion) / support.sum(),
        support.max() / support.sum(),
        segmentation_scores(constant).mean_iou,
    )
    return {name: float(value) for name, value in zip(SEGMENTATION_METRICS, values, strict=True)}


def of_image(patches: np.ndarray, classes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The confusion matrix int64 [C, C] of an image's pixels, rows being true classes."""
    scores = enlarged(similarity_maps(patches, classes), mask.shape)
    known = (mask >= 0) & (mask < len(classes))
    return confusion_matrix(scores.argmax(axis=-1)[known], mask[known], len(classes))
