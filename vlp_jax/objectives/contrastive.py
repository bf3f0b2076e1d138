"""Contrastive objectives: a contrastive loss with a learned scale (and bias), on the embeddings of
a batch."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.config import ModelConfig, embedding_dim
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.contrastive_blocks import CHUNK, loss_and_accuracy
from vlp_jax.objectives.contrastive_losses import (
    sigmoid_contrastive,
    softmax_contrastive,
    top1_accuracy,
)
from vlp_jax.objectives.mixup import mixed, neighbour
from vlp_jax.objectives.pair_losses import PairLoss, SigmoidPairs, SoftmaxPairs
from vlp_jax.sharding.collectives import Exchange

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

EMBEDDINGS = ("image_embedding", "text_embedding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledConfig(ObjectiveConfig):
    """Fields shared by objectives with a learned scale of cosines.

    The learned parameter is the logarithm of the scale (CLIP), or its inverse (ALBEF). The inverse
    changes by the learning rate itself: at 1e-4 it goes from 0.07 to 0.02 in 500 updates instead of
    12,500.
    """

    if TYPE_CHECKING:
        initial_scale: float = 1.0
        minimum_scale: float = 1.0
        maximum_scale: float = 1.0

    scale_parameter: Literal["log_scale", "temperature"] = "log_scale"

    learns_scale = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ScaledConfig):
    """Fields shared by the two contrastive objectives."""

    # a pair that shares one is positive
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")
    # how pairs are computed; results are equal
    implementation: Literal["dense", "chunked", "ring"] = "dense"
    chunk_size: int = between(CHUNK, 1)  # chunked and ring: texts that a device processes at once

    needs = EMBEDDINGS
    trains = EMBEDDINGS
    couples_batch = True
    couples_through = EMBEDDINGS

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`chunk_size`, where all pairs are computed at once."""
        unused = {
            "chunk_size": (
                "with implementation='dense', which holds all pairs; use 'chunked' or 'ring'"
            )
        }
        return {**super().ignored(experiment), **(unused if self.implementation == "dense" else {})}

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The similarities of all pairs."""
        return 2 * batch**2 * embedding_dim(model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxContrastiveConfig(ContrastiveConfig):
    """InfoNCE in both directions (Radford et al. 2021)."""

    initial_scale: float = between(1 / 0.07, 1e-6)  # multiplies cosine similarities
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(100.0, 1e-6)
    label_smoothing: float = between(0.0, 0.0, 0.999)
    # x of the weight from Beta(x, x) that mixes images and losses in pairs; 0: none
    mixup: float = between(0.0, 0.0)

    @property
    def needs(self) -> tuple[str, ...]:
        """Both embeddings, or with mixup only the texts'; the mixed images are encoded by the
        objective."""
        return ("text_embedding",) if self.mixup else EMBEDDINGS

    @property
    def couples_through(self) -> tuple[str, ...]:
        """All embeddings in `needs`."""
        return self.needs

    @property
    def reads_pixels(self) -> bool:
        """True with mixup, which mixes pixels."""
        return self.mixup > 0

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about an odd batch, which mixup cannot pair."""
        yield from super().validate(where, experiment)
        if self.mixup and experiment.data.batch_size % 2:
            yield (
                f"{where}.mixup: mixes the examples of a batch in pairs, and "
                f"{experiment.data.batch_size} is an odd number; change data.batch_size"
            )

    def build(self) -> "SoftmaxContrastive":
        """The softmax loss of these settings."""
        return SoftmaxContrastive(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The similarities, and with mixup another set of them and the image tower."""
        pairs = super().flops(model, batch)
        return (
            2 * pairs + batch * model.image.flops(embedding_dim(model), tokens=False)
            if self.mixup
            else pairs
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmoidContrastiveConfig(ContrastiveConfig):
    """Pairwise sigmoid loss (Zhai et al. 2023)."""

    initial_scale: float = between(10.0, 1e-6)
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(1e6, 1e-6)
    initial_bias: float = -10.0

    def build(self) -> "SigmoidContrastive":
        """The sigmoid loss of these settings."""
        return SigmoidContrastive(self)


def shared_positives(batch: dict[str, jax.Array], kinds: tuple[str, ...]) -> jax.Array:
    """The positive pairs (image i, text j): the diagonal, and pairs whose examples share a caption
    or an image.

    Args:
      batch: with `caption_id` and `image_id`, int32 [B, 2] fingerprints.
      kinds: which of "caption" and "image" count.
    Returns: [B, B] bool.
    """
    positives = jnp.eye(len(batch["text"]), dtype=bool)
    for kind in kinds:
        identity = batch[f"{kind}_id"]
        positives |= (identity[:, None] == identity[None, :]).all(axis=-1)
    return positives


class ScaledObjective(Objective):
    """Base class of objectives with a learned scale of cosines, clamped after each update.

    The parameter is `log_scale` (Radford et al. 2021), or `temperature`, the scale's inverse (Li et
    al. 2021).
    """

    config: ScaledConfig

    def scale(self) -> jax.Array:
        """The scale, float32 []. To be called inside a compact method."""
        name, initial = self.config.scale_parameter, self.config.initial_scale
        first = jnp.log(initial) if name == "log_scale" else 1.0 / initial
        return self.scale_of(
            {name: self.param(name, nn.initializers.constant(first), (), jnp.float32)}
        )

    def scale_of(self, params: dict) -> jax.Array:
        """The scale given by the objective's own parameters."""
        return (
            jnp.exp(params["log_scale"])
            if self.config.scale_parameter == "log_scale"
            else 1.0 / params["temperature"]
        )

    def constrain(self, params: dict) -> dict:
        """The parameters with the scale clamped to its range."""
        low, high = self.config.minimum_scale, self.config.maximum_scale
        if self.config.scale_parameter == "temperature":
            return {**params, "temperature": jnp.clip(params["temperature"], 1.0 / high, 1.0 / low)}
        return {**params, "log_scale": jnp.clip(params["log_scale"], jnp.log(low), jnp.log(high))}


class ContrastiveObjective(ScaledObjective):
    """Base class of contrastive objectives on the embeddings of matched and unmatched pairs.

    Metrics: `scale`, `batch_accuracy`, and a reference: `uniform`, the loss with equal logits for
    all pairs. The `dense` implementation holds all pairs at once; `chunked` and `ring` (see
    `contrastive_blocks`) do not, and give the same values and gradients.
    """

    config: ContrastiveConfig

    def in_blocks(
        self,
        pairs: PairLoss,
        encodings: dict,
        batch: dict[str, jax.Array],
        scale: jax.Array,
        bias: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and accuracy by the chunked or the ring implementation."""
        exchange = Exchange.in_use(
            ring=self.config.implementation == "ring", chunk=self.config.chunk_size
        )
        identities = tuple(batch[f"{kind}_id"] for kind in self.config.positives)
        return loss_and_accuracy(
            pairs,
            exchange,
            encodings["image_embedding"],
            encodings["text_embedding"],
            scale,
            bias,
            identities,
        )


class SoftmaxContrastive(ContrastiveObjective):
    """`softmax_contrastive` on a batch.

    With `mixup`, an image and its neighbour are mixed with weights w and 1 - w, and so are the
    losses of the pairs with their own texts and with the neighbours' texts, in both directions; w
    is drawn from Beta(mixup, mixup) once per batch (Zhang et al. 2018; for contrastive losses Lee
    et al. 2021, "i-Mix").
    """

    config: SoftmaxContrastiveConfig = SoftmaxContrastiveConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        scale = self.scale()
        if not self.config.mixup:
            loss, accuracy = self.compared(encodings, batch, scale)
            return Loss(
                loss, {"scale": scale, "batch_accuracy": accuracy, "uniform": uniform(batch)}
            )
        pixels, weight = mixed(self.make_rng("dropout"), batch["image"], self.config.mixup)
        image = model.embed_image(model.encode_image(pixels, self.training, tokens=False))
        identities = {name: batch[name] for name in ("text", "caption_id", "image_id")}
        pairs = (
            {"image_embedding": image, "text_embedding": encodings["text_embedding"]},
            identities,
            scale,
        )
        turned = (
            pairs[0] | {"text_embedding": neighbour(encodings["text_embedding"])},
            jax.tree.map(neighbour, identities),
            scale,
        )
        loss, accuracy = (
            weight * own + (1.0 - weight) * other
            for own, other in zip(self.compared(*pairs), self.compared(*turned), strict=True)
        )
        return Loss(
            loss,
            {
                "scale": scale,
                "batch_accuracy": accuracy,
                "uniform": uniform(batch),
                "mixup_weight": weight,
            },
        )

    def compared(
        self, encodings: dict, batch: dict[str, jax.Array], scale: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The loss and the accuracy of each image with the text of the same index.

        Args:
          encodings: with `image_embedding` and `text_embedding`.
          batch: identifies further positives.
          scale: multiplies cosines.
        """
        smoothing = self.config.label_smoothing
        if self.config.implementation != "dense":
            return self.in_blocks(SoftmaxPairs(label_smoothing=smoothing), encodings, batch, scale)
        image, text = encodings["image_embedding"], encodings["text_embedding"]
        positives = shared_positives(batch, self.config.positives)
        return softmax_contrastive(image, text, scale, positives, smoothing), top1_accuracy(
            image, text, positives
        )


def uniform(batch: dict[str, jax.Array]) -> jax.Array:
    """ln(B): the cross-entropy of a uniform guess among the texts of a batch, whichever match an
    image."""
    return jnp.log(jnp.float32(len(batch["text"])))


class SigmoidContrastive(ContrastiveObjective):
    """`sigmoid_contrastive` on a batch.

    Its `uniform` is the least loss with equal logits for all pairs, where one pair of a row is a
    match: B times the entropy of 1 / B.
    """

    config: SigmoidContrastiveConfig = SigmoidContrastiveConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        scale = self.scale()
        bias = self.param(
            "bias", nn.initializers.constant(self.config.initial_bias), (), jnp.float32
        )
        if self.config.implementation == "dense":
            image, text = encodings["image_embedding"], encodings["text_embedding"]
            positives = shared_positives(batch, self.config.positives)
            loss = sigmoid_contrastive(image, text, scale, bias, positives)
            accuracy = top1_accuracy(image, text, positives)
        else:
            loss, accuracy = self.in_blocks(SigmoidPairs(), encodings, batch, scale, bias)
        rate = 1.0 / len(batch["text"])
        entropy = jax.scipy.special.entr(rate) + jax.scipy.special.entr(1.0 - rate)
        return Loss(
            loss,
            {"scale": scale, "bias": bias, "batch_accuracy": accuracy, "uniform": entropy / rate},
        )
