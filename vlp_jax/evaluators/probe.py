"""Parts that are shared by the probes, which learn classes from frozen features."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from vlp_jax.errors import ConfigError, DataError
from vlp_jax.evaluators.prompts import CLASS_FIELDS, own_class_field
from vlp_jax.evaluators.requirements import trained
from vlp_jax.evaluators.task import TaskConfig

if TYPE_CHECKING:
    from vlp_jax.evaluators.context import TaskContext
    from vlp_jax.evaluators.evaluation_set import EvaluationSet
    from vlp_jax.experiment import Experiment

IMAGE_ENCODINGS = {"image", "image_embedding", "image_pooled"}


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Features of images with their classes.

    Attributes:
      features: float32 [N, D].
      labels: int [N], indices into the names of the training set's classes.
    """

    features: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeTaskConfig(TaskConfig):
    """Fields shared by the probes: a training set, and the features and classes that are read."""

    train: str | None = None  # the source of the training set, such as embedded:emoji/train
    # metadata field of the class, with dots as in targets; None: the source's own
    class_field: str | None = None
    # "embedding": unit vectors of the shared space, as in CLIP_benchmark; "pooled": the pooled
    # vector before the projection, as in Radford et al. 2021, appendix A.3, and big_vision
    features: Literal["embedding", "pooled"] = "embedding"

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that trains what the features are computed from."""
        if self.features == "embedding":
            wanted = "an objective on the embeddings of images, such as kind='clip'"
            return None if "image_embedding" in trained(experiment) else wanted
        there = trained(experiment) & {*IMAGE_ENCODINGS, "fused"}
        return None if there else "an objective that trains the image tower"

    def problems(self, name: Callable[[str], str], experiment: "Experiment") -> Iterator[str]:
        """A message about pooled features of a tower that does not pool."""
        if self.features == "pooled" and not experiment.model.image.pools:
            yield (
                f"{name('features')}: 'pooled' needs an image tower with a pooled vector, and "
                "model.image.pooling is 'none'"
            )

    def check_files(self, name: Callable[[str], str]) -> None:
        """Checks that a training set is named.

        Raises: ConfigError where none is.
        """
        if self.train is None:
            raise ConfigError(
                f"{name('train')}: {self.kind} learns from a training set: name its source, such "
                "as embedded:emoji/train"
            )

    @property
    def other_sources(self) -> tuple[str, ...]:
        """The sources, besides the evaluation set, whose images are read."""
        return () if self.train is None else (self.train,)

    def check(self, context: "TaskContext", where: str = "") -> None:
        """Opens the further sources and checks that all classes are known.

        Raises: DataError for an image without a class, or a class without training images.
        """
        for data in (context.data, *map(context.other, self.other_sources)):
            self.labels(context, data, where)

    def field(self, context: "TaskContext", where: str) -> str:
        """The metadata field of the class.

        Raises: DataError where none is set and the training set has none of the usual ones.
        """
        assert self.train is not None
        data = context.other(self.train)
        field = self.class_field or own_class_field(data.metadata[0])
        if field is None:
            raise DataError(
                f"{data.source.spec}: {self.kind} looks for the class of an image in the metadata "
                f"fields {', '.join(CLASS_FIELDS)}; name another one by {where}class_field (there "
                f"are: {', '.join(sorted(data.metadata[0])) or 'none'})"
            )
        return field

    def names(self, context: "TaskContext", where: str = "") -> list[str]:
        """The names of the training set's classes, sorted."""
        assert self.train is not None
        return context.other(self.train).labels(self.field(context, where), f"{where}class_field")[
            0
        ]

    def labels(self, context: "TaskContext", data: "EvaluationSet", where: str = "") -> np.ndarray:
        """The class of each image of a set, int [N], as an index into `names`.

        Raises: DataError for an image without a class, or a class without training images.
        """
        field, known = self.field(context, where), self.names(context, where)
        names, labels = data.labels(field, f"{where}class_field")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DataError(
                f"{data.source.spec}: class {unknown[0]!r} in the metadata field {field!r} "
                f"({where}class_field) has no image in the training set {self.train}, whose "
                f"{len(known)} classes are such as {known[0]!r}"
            )
        return np.array([known.index(name) for name in names])[labels]

    def tested(self, context: "TaskContext") -> Labelled:
        """The evaluation set."""
        features = context.features(context.data, self.features)
        return finite(Labelled(features, self.labels(context, context.data)))

    def learned_from(self, context: "TaskContext", spec: str | None) -> Labelled:
        """The set of a further source."""
        assert spec is not None
        features = context.other_features(spec, self.features)
        return finite(Labelled(features, self.labels(context, context.other(spec))))


def finite(data: Labelled) -> Labelled:
    """`data`.

    Raises:
      ValueError: features are not finite.
    """
    if not np.isfinite(data.features).all():
        raise ValueError("features are not finite")
    return data
