"""Objectives that predict a target from a sample's metadata: a class, scores of classes, or a
number."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.data.batch_spec import TARGET
from vlp_jax.data.target import TargetConfig
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.options import present
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

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

FADING = 0.999  # decay of the sums of targets per batch
PARTS = {"image": "image_pooled", "text": "text_pooled", "fused": "fused"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedConfig(ObjectiveConfig):
    """Fields shared by the objectives that predict a target of `data.targets`."""

    target: str = ""  # its name there; required
    # the tower's pooled vector, or a fusion of both
    features: Literal["image", "text", "fused"] = "fused"
    # of a hidden layer with a norm; None: the head is linear
    hidden_dim: int | None = between(None, 1)
    norm_epsilon: float = between(1e-6, 0.0, 1.0)  # of that norm
    dropout: float = between(0.0, 0.0, 1.0)  # of the input of the head's last layer
    initial_bias: float = 0.0  # of the head's last layer; a low one suits scores that are mostly 0
    # targets counted for `reference`; microbatches need "batch"
    prior: Literal["running", "batch"] = "running"
    # of the head; None: as the target has, filled in when a config is loaded
    outputs: int | None = between(None, 1)

    @property
    def needs(self) -> tuple[str, ...]:
        """The encoding that `features` names."""
        return (PARTS[self.features],)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The array of the target."""
        return (TARGET + self.target,)

    @property
    def target_kind(self) -> str:
        """The kind of target that the loss needs."""
        raise NotImplementedError

    @property
    def named_loss(self) -> str:
        """The setting that decides `target_kind`, for messages."""
        raise NotImplementedError

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`norm_epsilon`, where there is no hidden layer."""
        unused = {"norm_epsilon": "without hidden_dim"} if self.hidden_dim is None else {}
        return {**super().ignored(experiment), **unused}

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about features that are not pooled, and a target that is missing or of
        another kind or size."""
        yield from super().validate(where, experiment)
        if self.features == "image" and not experiment.model.image.pools:
            yield (
                f"{where}.features: 'image' reads what model.image.pooling='none' does not "
                "pool; set it, such as 'mean'"
            )
        yield from unknown_target(where, self.target, experiment.data.targets)
        target = experiment.data.targets.get(self.target)
        if target is None:
            return
        name, outputs = f"data.targets.{self.target}", target.outputs
        if target.kind != self.target_kind:
            yield (
                f"{where}.target: {self.named_loss} needs a target of kind "
                f"{self.target_kind!r}, {name} is one of kind {target.kind!r}"
            )
        if self.outputs not in (None, outputs):
            yield f"{where}.outputs: is {self.outputs}, {name} has {outputs}; leave it out"

    def completed(self, where: str, experiment: "Experiment") -> Self:
        """With as many `outputs` as the target."""
        return dataclasses.replace(self, outputs=experiment.data.targets[self.target].outputs)

    def smoke(self, sizes: Sizes) -> Self:
        """A narrow hidden layer, where there is one."""
        return dataclasses.replace(
            super().smoke(sizes), hidden_dim=None if self.hidden_dim is None else sizes.mlp_dim
        )

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The head's layers on a batch."""
        width = {
            "image": lambda: model.image.pooled_width,
            "text": lambda: model.text.pooled_width,
            "fused": lambda: present(model.fusion).pooled_width(model.shapes()),
        }[self.features]()
        hidden, outputs = self.hidden_dim, present(self.outputs)
        return (
            2 * batch * (width * outputs if hidden is None else width * hidden + hidden * outputs)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(SupervisedConfig):
    """Prediction of a class."""

    # softmax and hinge: of one class; binary: of scores of all
    loss: Literal["softmax", "binary", "hinge"] = "softmax"
    label_smoothing: float = between(0.0, 0.0, 0.999)  # softmax
    margin: float = between(1.0, 0.0)  # hinge

    tasks = ("classification",)

    @property
    def target_kind(self) -> str:
        """ "scores" with the binary loss, else "class"."""
        return "scores" if self.loss == "binary" else "class"

    @property
    def named_loss(self) -> str:
        """The key `loss` with its value."""
        return f"loss={self.loss!r}"

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """The settings of the other losses."""
        users = {"label_smoothing": "softmax", "margin": "hinge"}
        unused = {
            key: f"with {self.named_loss}" for key, loss in users.items() if loss != self.loss
        }
        return {**super().ignored(experiment), **unused}

    def build(self) -> "Classification":
        """The classification head of these settings."""
        return Classification(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig(SupervisedConfig):
    """Prediction of a number, with the squared error."""

    tasks = ("regression",)
    target_kind = "number"
    named_loss = "kind='regression'"

    def build(self) -> "Regression":
        """The regression head of these settings."""
        return Regression(self)


def unknown_target(where: str, name: str, targets: Mapping[str, TargetConfig]) -> Iterator[str]:
    """The problem of an objective at the key `where` whose target is none of the targets of the
    config."""
    if name not in targets:
        known = ", ".join(targets) or (
            "none; set data.targets.NAME=dict(kind='class', field=..., classes=...)"
        )
        yield f"{where}.target: {name!r} is no name of data.targets (there are: {known})"


class Supervised(Objective):
    """Base class of the two.

    The loss is the mean over all rows of a batch; those without a target contribute 0.

    Metrics: `target_rate`, the fraction of rows that have a target, and `reference`, the least loss
    of a constant prediction, from the frequencies of the targets, for a batch with this
    `target_rate`. With microbatches, metrics are means over these.

    The targets whose frequencies `reference` uses are, with prior `running`, a decayed sum over all
    batches, in a collection of its own, which microbatches do not support; with `batch`, those of
    the batch.
    """

    config: SupervisedConfig

    def setup(self) -> None:
        """The sums of the targets of earlier batches, where `prior` is "running"."""
        if self.config.prior == "running":
            size = jax.eval_shape(lambda: self.sums(*self.checked(self.no_targets()))).shape
            self.kept = self.variable("targets", "sums", jnp.zeros, size, jnp.float32)

    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        """The loss and metrics of the rows that have a target."""
        wanted, given = self.checked(batch[TARGET + self.config.target])
        answers = self.answers(encodings, model)
        loss = jnp.where(given, self.losses(answers, wanted), 0.0).mean()
        rate = given.mean(dtype=jnp.float32)
        reference = rate * self.reference(self.counted(self.sums(wanted, given)))
        return Loss(
            loss,
            {**self.metrics(answers, wanted, given), "target_rate": rate, "reference": reference},
        )

    @nn.compact
    def answers(self, encodings: dict, model: VisionLanguageModel) -> jax.Array:
        """The predictions float32 [B, outputs] from the encodings in `needs`."""
        config = self.config
        part = encodings[PARTS[config.features]]
        pooled = part.pooled if config.features == "fused" else part
        head = TargetHead(
            config.hidden_dim,
            present(config.outputs),
            config.dropout,
            config.initial_bias,
            model.precision,
            config.norm_epsilon,
            name="head",
        )
        return constrain(head(pooled, self.training), ("batch", None))

    def counted(self, sums: jax.Array) -> jax.Array:
        """The sums for `reference`: of the batch, or of all batches up to this one."""
        if self.config.prior == "batch":
            return sums
        sums = self.added(self.kept.value, sums)
        if not self.is_initializing() and self.is_mutable_collection("targets"):
            self.kept.value = sums
        return sums

    def added(self, kept: jax.Array, sums: jax.Array) -> jax.Array:
        """The sums of all batches up to this one: those of earlier batches, decayed, plus this
        one's."""
        return FADING * kept + sums

    def no_targets(self) -> jax.Array:
        """Targets of zero rows, as in a batch."""
        raise NotImplementedError

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The targets with missing ones replaced by a finite value, and bool [B], True where there
        is a target."""
        raise NotImplementedError

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        """The losses of the rows, float32 [B]."""
        raise NotImplementedError

    def metrics(
        self, answers: jax.Array, wanted: jax.Array, given: jax.Array
    ) -> dict[str, jax.Array]:
        """Metrics over the rows that have a target."""
        raise NotImplementedError

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        """The statistics of a batch's targets for `reference`, float32 [S]; `added` over
        batches."""
        raise NotImplementedError

    def reference(self, sums: jax.Array) -> jax.Array:
        """The least mean loss of a constant prediction over rows whose targets have these sums, a
        scalar."""
        raise NotImplementedError


class Classification(Supervised):
    """Prediction of a class, or of scores of classes.

    Metrics: `accuracy`, or for scores `soft_accuracy`, the score of the predicted class (Antol et
    al. 2015).

    The loss is `softmax` cross-entropy or multi-class `hinge`, of a class, int32 [B], -1 for none;
    or `binary` cross-entropy, of scores, float32 [B, C], all 0 for none.
    """

    config: ClassificationConfig = ClassificationConfig()

    def no_targets(self) -> jax.Array:
        """float32 [0, C] scores with the binary loss, else int32 [0] classes."""
        return (
            jnp.zeros((0, self.config.outputs), jnp.float32)
            if self.config.loss == "binary"
            else jnp.zeros(0, jnp.int32)
        )

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores as they are, given where one is above 0; classes with -1 replaced by 0."""
        if self.config.loss == "binary":
            return wanted, (wanted > 0).any(axis=1)
        return jnp.maximum(wanted, 0), wanted >= 0

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        """The binary, hinge or softmax loss of each row."""
        if self.config.loss == "binary":
            return binary_losses(answers, wanted)
        if self.config.loss == "hinge":
            return hinge_losses(answers, wanted, self.config.margin)
        return softmax_losses(answers, wanted, self.config.label_smoothing)

    def metrics(
        self, answers: jax.Array, wanted: jax.Array, given: jax.Array
    ) -> dict[str, jax.Array]:
        """`accuracy`, or `soft_accuracy` with the binary loss."""
        answered = answers.argmax(axis=1)
        if self.config.loss == "binary":
            return {
                "soft_accuracy": mean_where(
                    jnp.take_along_axis(wanted, answered[:, None], axis=1)[:, 0], given
                )
            }
        return {"accuracy": mean_where((answered == wanted).astype(jnp.float32), given)}

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        """The number of rows per class, float32 [C]; for scores their sums and the number of rows,
        [C + 1]."""
        weights = given.astype(jnp.float32)
        if self.config.loss == "binary":
            return jnp.append(wanted.sum(axis=0), weights.sum())
        return jnp.zeros(self.config.outputs, jnp.float32).at[wanted].add(weights)

    def reference(self, sums: jax.Array) -> jax.Array:
        """The least binary, hinge or softmax loss of a constant prediction."""
        if self.config.loss == "binary":
            return binary_reference(sums[:-1], sums[-1])
        if self.config.loss == "hinge":
            return hinge_reference(sums, self.config.margin)
        return softmax_reference(sums, self.config.label_smoothing)


class Regression(Supervised):
    """Prediction of a number, float32 [B], NaN for none, with the squared error.

    The reference is the variance.
    """

    config: RegressionConfig = RegressionConfig()

    def no_targets(self) -> jax.Array:
        """float32 [0] numbers."""
        return jnp.zeros(0, jnp.float32)

    def checked(self, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Numbers with NaN replaced by 0, and where they are finite."""
        given = jnp.isfinite(wanted)
        return jnp.where(given, wanted, 0.0), given

    def losses(self, answers: jax.Array, wanted: jax.Array) -> jax.Array:
        """The squared errors."""
        return jnp.square(answers[:, 0] - wanted)

    def metrics(
        self, answers: jax.Array, wanted: jax.Array, given: jax.Array
    ) -> dict[str, jax.Array]:
        """`absolute_error`, its mean."""
        return {"absolute_error": mean_where(jnp.abs(answers[:, 0] - wanted), given)}

    def sums(self, wanted: jax.Array, given: jax.Array) -> jax.Array:
        """The `moments` of the batch's numbers, float32 [3]."""
        return moments(wanted, given)

    def added(self, kept: jax.Array, sums: jax.Array) -> jax.Array:
        """The moments of both, with the earlier ones' weight and squares decayed, but not their
        mean."""
        return moments_of_both(kept * jnp.array([FADING, 1.0, FADING], jnp.float32), sums)

    def reference(self, sums: jax.Array) -> jax.Array:
        """The variance, the squared error of the mean."""
        return variance(sums[0], sums[2])
