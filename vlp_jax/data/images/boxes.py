"""The regions of an image: from boxes in a sample's metadata to positions in the square of the
model's input."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.data.samples import Reason, SampleError
from vlp_jax.data.sources.columns import pick

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxesConfig(Section):
    """Regions of a sample's image, each [left, top, right, bottom].

    An image without any is one region.
    """

    field: str = ""  # of the metadata, with dots as in `Target`: a list of boxes. Required
    count: int = between(36, 1)  # largest number per image; the first ones are used
    # of the image in its file, upright; or fractions of its width and height
    unit: Literal["pixels", "fraction"] = "pixels"

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """Messages about a missing field, a fusion that reads no boxes, and augmentations that do
        not move boxes along."""
        yield from super().validate(where, experiment)
        if not getattr(experiment.model.fusion, "reads_boxes", False):
            yield f"{where}: has no effect without model.fusion.kind='graph' with regions='boxes'"
        if not self.field:
            yield f"{where}.field: is missing; name the field of the metadata that holds them"
        augmentation = experiment.data.augmentation
        for key, used in (
            ("rotation", augmentation.rotation),
            ("randaugment.operations", augmentation.randaugment.operations),
        ):
            if used:
                yield (
                    f"data.augmentation.{key}: is {used}, and {where} are not moved along; set "
                    "it to 0"
                )


@dataclasses.dataclass(frozen=True)
class View:
    """The part of an image that fills the model's square.

    Attributes:
      shape: (width, height) of the upright image in its file, in pixels.
      seen: the part of it that is visible; it may extend beyond the image.
      mirrored: whether left and right are swapped.
    """

    shape: tuple[int, int]
    seen: Box
    mirrored: bool = False

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in the coordinates of the square.

        Args:
          boxes: [N, 4], float64, in pixels of the image.

        Returns: [N, 4], float64, fractions of the square, clipped to the image and to the square.
        """
        corners = np.clip(boxes.reshape(-1, 2, 2), 0, self.shape)
        begin, end = np.array(self.seen).reshape(2, 2)
        corners = np.clip((corners - begin) / (end - begin), 0.0, 1.0)
        if self.mirrored:
            corners[..., 0] = 1.0 - corners[:, ::-1, 0]
        return corners.reshape(-1, 4)

    def in_image(self, points: np.ndarray) -> np.ndarray:
        """Points of the square in pixels of the image; not of a mirrored one.

        Args:
          points: [..., 2], (x, y), fractions of the square.

        Returns: [..., 2], float64, clipped to the image.
        """
        begin, end = np.array(self.seen).reshape(2, 2)
        return np.clip(begin + points * (end - begin), 0, self.shape)


def boxes_of(key: str, metadata: Mapping[str, Any], spec: BoxesConfig, view: View) -> np.ndarray:
    """The first R boxes of a sample that are at least partly visible, in their order.

    Args:
      key: key of the sample in errors.
      metadata: metadata of the sample.
      spec: field, unit and number R of the boxes.
      view: the visible part of the image.

    Returns: [R, 4], float32, fractions of the square; NaN after the last box. Without a visible
      box, the whole image is the only region.

    Raises:
      SampleError: as `boxes_in`.
    """
    width, height = view.shape
    given = boxes_in(key, metadata, spec) * (
        1 if spec.unit == "pixels" else (width, height, width, height)
    )
    seen = shown(view(given))
    seen = seen if len(seen) else shown(view(np.array([[0.0, 0.0, width, height]])))
    boxes = np.full((spec.count, 4), np.nan, np.float32)
    boxes[: len(seen)] = seen[: spec.count]
    return boxes


def shown(boxes: np.ndarray) -> np.ndarray:
    """The boxes of [N, 4] with a positive area, float32."""
    boxes = boxes.astype(np.float32)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def boxes_in(key: str, metadata: Mapping[str, Any], spec: BoxesConfig) -> np.ndarray:
    """The boxes in a metadata field, [N, 4] float64; N = 0 where the field is missing or empty.

    Raises:
      SampleError: with WRONG_BOXES, unless each box is four finite numbers with left < right and
        top < bottom.
    """
    held = pick(metadata, spec.field)
    if held is None or isinstance(held, list | tuple | np.ndarray) and not len(held):
        return np.zeros((0, 4))
    try:
        boxes = np.asarray(held)
    except ValueError:  # lists of different lengths
        boxes = np.zeros((0, 0))
    if boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype.kind in "iuf":
        boxes = boxes.astype(np.float64)
        wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1))
        if not wrong.any():
            return boxes
        held = boxes[wrong][0].tolist()
    raise SampleError(
        Reason.WRONG_BOXES,
        key,
        f"its {spec.field} holds {str(held)[:100]}; a box "
        "is four finite numbers [left, "
        "top, right, bottom] with left < right and top < bottom",
    )
