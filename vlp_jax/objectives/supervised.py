"""Objectives that predict a target from a sample's metadata: a class, scores of classes, or a number."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.data.batch_spec import TARGET
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.target_head import TargetHead
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.supervised_losses import (
    binary_losses,
    binary_reference,
    hinge_losses,
    hinge_reference,
    moments,
    moments_of_both,
    softmax_losses,
    softmax_reference,
    variance,
)
from vlp_jax.objectives.tokens import mean_where
from vlp_jax.sharding.layout import constrain

FADING = 0.999  # decay of the sums of targets per batch
PARTS = {"image": "image_pooled", "text": "text_pooled", "fused": "fused"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedConfig(ObjectiveConfig):
    """Fields shared by the objectives that predict a target of `data.targets`."""

    target: str = ""  # its name there; required
    features: Literal["image", "text", "fused"] = "fused"  # the tower's pooled vector, or a fusion of both
    hidden_dim: int | None = between(None, 1)  # of a hidden layer with a norm; None: the head is linear
    dropout: float = between(0.0, 0.0, 1.0)  # of the input of the head's last layer
    initial_bias: float = 0.0  # of the head's last layer; a low one suits scores that are mostly 0
    prior: Literal["running", "batch"] = "running"  # targets counted for `reference`; microbatches need "batch"
    outputs: int | None = between(None, 1)  # of the head; None: as the target has, filled in when a config is loaded


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(SupervisedConfig):
    """Prediction of a class."""

    loss: Literal["softmax", "binary", "hinge"] = "softmax"  # softmax and hinge: of one class; binary: of scores of all
    label_smoothing: float = between(0.0, 0.0, 0.999)  # softmax
    margin: float = between(1.0, 0.0)  # hinge


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig(SupervisedConfig):
    """Prediction of a number, with the squared error."""

    kind: Literal["regression"] = "regression"


class Supervised(Objective):
    """Base class of the two. The loss is the mean over all rows of a batch; those without a target contribute 0.

    Metrics: `target_rate`, the fraction of rows that have a target, and `reference`, the least loss
    of a constant prediction, from the frequencies of the targets, for a batch with this
    `target_rate`. With microbatches, metrics are means over these.

    Attributes:
      prior: the targets whose frequencies `reference` uses. `running`: a decayed sum over all
        batches, in a collection of its own, which microbatches do not support; `batch`: those of
        the batch.
    """

    target: str = ""
    features: str = "fused"
    hidden_dim: int | None = None
    dropout: float = 0.0
    initial_bias: float = 0.0
    prior: str = "running"
    outputs: int | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (PARTS[self.features],)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (TARGET + self.target,)

    def flops(self, model: ModelConfig, batch: int) -> int:
        width = {"image": lambda: model.image.pooled_width, "text": lambda: model.text.pooled_width,
                 "fused": lambda: model.fusion.pooled_width(model.shapes())}[self.features]()
        hidden = self.hidden_dim
        return 2 * batch * (width * self.outputs if hidden is None else width * hidden + hidden * self.outputs)

    def setup(self):
        if self.prior == "running":
            size = jax.eval_shape(lambda: self.sums(*self.checked(self.no_targets()))).shape
            self.kept = self.variable("targets", "sums", jnp.zeros, size, jnp.float32)

    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        wanted, given = self.checked(batch[TARGET + self.target])
        answers = self.answers(encodings, model)
        loss = jnp.where(given, self.losses(answers, wanted), 0.0).mean()
        rate = given.mean(dtype=jnp.float32)
        reference = rate * self.reference(self.counted(self.sums(wanted, given)))
        return Loss(loss, {**self.metrics(answers, wanted, given), "target_rate": rate, "reference": reference})

    @nn.compact
    def answers(self, encodings: dict, model: VisionLanguageModel) -> jax.Array:
        """The predictions float32 [B, outputs] from the encodings in `needs`."""
        part = encodings[PARTS[self.features]]
        pooled = part.pooled if self.features == "fused" else part
        head = TargetHead(self.hidden_dim, self.outputs, self.dropout, self.initial_bias, model.precision, name="head")
        return constrain(head(pooled, self.training), ("batch", None))

    def counted(self, sums: jax.Array) -> jax.Array:
        """The sums for `reference`: of the batch, or of all batches up to this one."""
        if self.prior == "batch":
            return sums
        sums = self.added(self.kept.value, sums)
        if not self.is_initializing() and self.is_mutable_collection("targets"):
            self.kept.value = sums
        return sums

    def added(self, kept: jax.Array, sums: jax.Array) -> jax.Array:
        """The sums of all batches up to this one: those of earlier batches, decayed, plus this one's."""
        return FADING * kept + sums

    def no_targets(self) -> jax.Array:
        """Targets of zero rows, as in a batch."""
        raise NotImplementedError

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The targets with missing ones replaced by a finite value, and bool [B], True where there is a target."""
        raise NotImplementedError

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        """The losses of the rows, float32 [B]."""
        raise NotImplementedError

    def metrics(self, answers: jax.Array, wanted: jax.Array, given: jax.Array) -> dict[str, jax.Array]:
        """Metrics over the rows that have a target."""
        raise NotImplementedError

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        """The statistics of a batch's targets for `reference`, float32 [S]; `added` over batches."""
        raise NotImplementedError

    def reference(self, sums: jax.Array) -> jax.Array:
        """The least mean loss of a constant prediction over rows whose targets have these sums, a scalar."""
        raise NotImplementedError


class Classification(Supervised):
    """Prediction of a class, or of scores of classes.

    Metrics: `accuracy`, or for scores `soft_accuracy`, the score of the predicted class (Antol et
    al. 2015).

    Attributes:
      loss: `softmax` cross-entropy or multi-class `hinge`, of a class, int32 [B], -1 for none; or
        `binary` cross-entropy, of scores, float32 [B, C], all 0 for none.
    """

    loss: str = "softmax"
    label_smoothing: float = 0.0
    margin: float = 1.0

    def no_targets(self) -> jax.Array:
        return jnp.zeros((0, self.outputs), jnp.float32) if self.loss == "binary" else jnp.zeros(0, jnp.int32)

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.loss == "binary":
            return wanted, (wanted > 0).any(axis=1)
        return jnp.maximum(wanted, 0), wanted >= 0

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        if self.loss == "binary":
            return binary_losses(answers, wanted)
        return softmax_losses(answers, wanted, self.label_smoothing) if self.loss == "softmax" else (
            hinge_losses(answers, wanted, self.margin))

    def metrics(self, answers: jax.Array, wanted: jax.Array, given: jax.Array) -> dict[str, jax.Array]:
        answered = answers.argmax(axis=1)
        if self.loss == "binary":
            return {"soft_accuracy": mean_where(jnp.take_along_axis(wanted, answered[:, None], axis=1)[:, 0], given)}
        return {"accuracy": mean_where((answered == wanted).astype(jnp.float32), given)}

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        weights = given.astype(jnp.float32)
        if self.loss == "binary":
            return jnp.append(wanted.sum(axis=0), weights.sum())
        return jnp.zeros(self.outputs, jnp.float32).at[wanted].add(weights)

    def reference(self, sums: jax.Array) -> jax.Array:
        if self.loss == "binary":
            return binary_reference(sums[:-1], sums[-1])
        return softmax_reference(sums, self.label_smoothing) if self.loss == "softmax" else hinge_reference(sums, self.margin)


class Regression(Supervised):
    """Prediction of a number, float32 [B], NaN for none, with the squared error. The reference is the variance."""

    def no_targets(self) -> jax.Array:
        return jnp.zeros(0, jnp.float32)

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        given = jnp.isfinite(wanted)
        return jnp.where(given, wanted, 0.0), given

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        return jnp.square(answers[:, 0] - wanted)

    def metrics(self, answers: jax.Array, wanted: jax.Array, given: jax.Array) -> dict[str, jax.Array]:
        return {"absolute_error": mean_where(jnp.abs(answers[:, 0] - wanted), given)}

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        return moments(wanted, given)

    def added(self, kept: jax.Array, sums: jax.Array) -> jax.Array:
        return moments_of_both(kept * jnp.array([FADING, 1.0, FADING], jnp.float32), sums)

    def reference(self, sums: jax.Array) -> jax.Array:
        return variance(sums[0], sums[2])
