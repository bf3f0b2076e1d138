"""Where an image shows what a text says: points and boxes from maps of patch-text similarity.

The point is the maximum of the map, as in the pointing game (Zhang et al. 2018). The box is that
around the largest connected region above a fraction of the map's range, as Zhou et al. 2016 ("CAM",
section 3.2) take it from class activation maps. No part of the model predicts boxes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.config.problems import Problems
from vlp_jax.data.images.boxes import BoxesConfig, View, boxes_in
from vlp_jax.data.images.preprocessing import evaluation_view
from vlp_jax.data.sources.columns import pick
from vlp_jax.data.sources.image_groups import ImageGroups
from vlp_jax.errors import DataError
from vlp_jax.evaluators.map_boxes import Guess, located
from vlp_jax.evaluators.prompts import templates_of
from vlp_jax.evaluators.requirements import lacks_patches
from vlp_jax.evaluators.similarity_maps import similarity_maps
from vlp_jax.evaluators.task import TaskConfig
from vlp_jax.evaluators.zero_shot import class_means
from vlp_jax.metrics.boxes import box_iou, from_corners, hit
from vlp_jax.metrics.detection import Objects, coco_scores

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

GROUNDING_METRICS = (
    "grounding_texts",
    "grounding_pointing_accuracy",
    "grounding_pointing_centre",
    "grounding_pointing_chance",
    "grounding_accuracy",
    "grounding_mean_iou",
    "grounding_whole_image_accuracy",
    "grounding_whole_image_mean_iou",
)
DETECTION_METRICS = ("grounding_ap", "grounding_ap_50", "grounding_ap_75")
CORRECT = 0.5  # the IoU from which on a box counts as correct


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundingTaskConfig(TaskConfig):
    """Pointing accuracy, and accuracy of boxes at an IoU of 0.5, of texts about parts of images."""

    # Metadata field, with dots as in targets, of the boxes of a sample, [left, top, right, bottom]
    boxes_field: str = "boxes"
    unit: Literal["pixels", "fraction"] = "pixels"  # as of data.boxes
    # Metadata field of a list with a text for each box, such as its class. None: each caption of a
    # sample is about all of its boxes, and one of them is to be found.
    texts_field: str | None = None
    templates: tuple[str, ...] = ("{}",)  # prompts as of zero_shot
    # from its minimum (0) to its maximum (1), where the region of a map begins
    threshold: float = between(0.5, 0.0, 1.0)
    # With texts_field: each text of the set is also looked for in each image, with the map's
    # maximum as its score, for COCO's average precision.
    detection: bool = False

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains the embeddings, and a tower whose tokens can be projected."""
        return lacks_patches(experiment)

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """A message about detection without a text for each box."""
        if self.detection and self.texts_field is None:
            yield f"{name('detection')}: needs texts_field, a class for each box"

    def metric_names(self, experiment: "Experiment") -> tuple[str, ...]:
        """The names in `GROUNDING_METRICS`, with `detection` also in `DETECTION_METRICS`."""
        return GROUNDING_METRICS + (DETECTION_METRICS if self.detection else ())

    def check_files(self, name: Callable[[str], str]) -> None:
        """Reads the file of `templates`.

        Raises: ConfigError, or ConfigErrors.
        """
        problems = Problems()
        with problems.noted():
            templates_of(name("templates"), self.templates)
        problems.report()

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Reads all boxes and their texts.

        Raises: DataError where they are missing.
        """
        if not any(self.asked(context.data, where)):
            raise DataError(
                f"{context.data.source.spec}: no sample has a box in the metadata field "
                f"{self.boxes_field!r} ({where}boxes_field)"
            )

    def asked(self, data: "EvaluationSet", where: str = "") -> list[list["Asked"]]:
        """The texts about each image of a set, with the boxes that they mean."""
        groups = data.source.groups if isinstance(data.source, ImageGroups) else None
        samples = groups or [[number] for number in range(len(data))]
        own = data.by_sample
        return [[one for i in group for one in self.of_sample(own, i, where)] for group in samples]

    def of_sample(self, data: "EvaluationSet", number: int, where: str) -> list["Asked"]:
        """The texts about a sample.

        Raises:
          DataError: it has no box and captions that mean one, or not a text for each box.
        """
        key, metadata = data.keys[number], data.metadata[number]
        boxes = boxes_in(key, metadata, BoxesConfig(field=self.boxes_field))
        if self.texts_field is None:
            captions = [data.captions[caption] for caption in data.captions_of_image[number]]
            if not len(boxes) and captions:
                raise DataError(
                    f"{key}: grounding needs boxes [left, top, right, bottom] in the metadata "
                    f"field {self.boxes_field!r} ({where}boxes_field), "
                    f"{data.found(number, self.boxes_field)}"
                )
            return [Asked(caption, boxes) for caption in captions]
        texts = pick(metadata, self.texts_field)
        texts = [] if texts is None else texts
        if not isinstance(texts, list | tuple) or [str(text) for text in texts] != [*texts]:
            texts = None
        if texts is None or len(texts) != len(boxes):
            raise DataError(
                f"{key}: grounding needs a list with a text for each of its {len(boxes)} boxes in "
                f"the metadata field {self.texts_field!r} ({where}texts_field), "
                f"{data.found(number, self.texts_field)}"
            )
        means = np.array(texts)
        return [Asked(text, boxes[means == text]) for text in dict.fromkeys(texts)]

    def run(self, context: "TaskContext") -> Mapping[str, float]:
        """The `GROUNDING_METRICS` of the set, and `DETECTION_METRICS` with `detection`."""
        asked = self.asked(context.data)
        texts = list(dict.fromkeys(one.text for image in asked for one in image))
        templates = templates_of("templates", self.templates)
        prompts = {text: [template.format(text) for template in templates] for text in texts}
        vectors = class_means(prompts, context.embed_texts)
        places = {text: number for number, text in enumerate(texts)}
        found, truth, detected = [], [], []
        patches = itertools.chain.from_iterable(
            context.feature_batches(context.data, "patches")
        )  # one image after another
        for image, view, own in zip(patches, self.views(context), asked, strict=True):
            if not np.isfinite(image).all():
                raise ValueError("embeddings of patches are not finite")
            size = context.predictor.preprocessor.image_size
            numbers = np.array([places[one.text] for one in own], np.int64)
            wanted = np.arange(len(texts)) if self.detection else numbers
            if not len(wanted):
                continue
            guesses = located(similarity_maps(image, vectors[wanted]), view, size, self.threshold)
            scale = 1 if self.unit == "pixels" else (*view.shape, *view.shape)
            boxes = [one.boxes * scale for one in own]
            mine = [guesses[number] for number in numbers] if self.detection else guesses
            found += [judged(*pair, view.shape) for pair in zip(mine, boxes, strict=True)]
            if self.detection:
                truth.append(objects_of(boxes, numbers))
                detected.append(detections_of(guesses))
        values = (len(found), *np.mean(found, axis=0).tolist())
        results = dict(zip(GROUNDING_METRICS, map(float, values), strict=True))
        if self.detection:
            scores = coco_scores(truth, detected)
            results |= {f"grounding_{name}": scores[name] for name in ("ap", "ap_50", "ap_75")}
        return results

    def views(self, context: "TaskContext") -> Iterator[View]:
        """The visible part of each image of the set."""
        data, preprocessor = context.data, context.predictor.preprocessor
        for number in range(len(data)):
            image = preprocessor.opened(data.source[number].image, data.keys[number])
            yield evaluation_view(image, preprocessor.image_size, preprocessor.images)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A text, and the boxes [K, 4] (left, top, right, bottom) of which it means one."""

    text: str
    boxes: np.ndarray


def judged(guess: Guess, boxes: np.ndarray, shape: tuple[int, int]) -> tuple[float, ...]:
    """The `GROUNDING_METRICS` but the first of a text, and those of answers that ignore it.

    Args:
      guess: where it is found.
      boxes: [K, 4], (left, top, right, bottom), where it may be.
      shape: (width, height) of the image.
    """
    true = from_corners(boxes)
    whole = np.array([[0.0, 0.0, *shape]])
    iou = box_iou(from_corners(guess.box[None]), true).max()
    constant = box_iou(whole, true).max()
    points = (guess.point, np.array(shape) / 2)
    hits = [float(hit(point, true, 0.0)) for point in points]
    accurate = float(iou >= CORRECT), float(iou), float(constant >= CORRECT), float(constant)
    return (*hits, covered(boxes, shape), *accurate)


def covered(boxes: np.ndarray, shape: tuple[int, int]) -> float:
    """The fraction of the pixels of an image whose centres lie in one of some boxes."""
    x, y = (np.arange(side) + 0.5 for side in shape)
    union = np.zeros((len(y), len(x)), bool)
    for left, top, right, bottom in boxes:
        union |= ((y >= top) & (y <= bottom))[:, None] & (x >= left) & (x <= right)
    return float(union.mean())


def objects_of(boxes: Sequence[np.ndarray], categories: np.ndarray) -> Objects:
    """The true objects of an image: the boxes of each category, as corners."""
    counts = np.array([len(own) for own in boxes], np.int64)
    corners = np.concatenate([*boxes, np.zeros((0, 4))])
    return Objects(from_corners(corners), np.repeat(categories, counts))


def detections_of(guesses: Sequence[Guess]) -> Objects:
    """The guesses of all categories in an image, in their order."""
    boxes = np.array([guess.box for guess in guesses])
    scores = np.array([guess.score for guess in guesses])
    return Objects(from_corners(boxes), np.arange(len(guesses)), scores)
