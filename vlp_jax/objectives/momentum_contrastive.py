"""Contrastive learning against the EMA model, with a queue and soft targets (Li et al. 2021,
"ALBEF")."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.config import ModelConfig, embedding_dim
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, grown
from vlp_jax.objectives.contrastive import EMBEDDINGS, ScaledConfig, ScaledObjective
from vlp_jax.objectives.contrastive_losses import cosines
from vlp_jax.sharding.layout import constrain

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentumContrastiveConfig(ScaledConfig):
    """InfoNCE against the EMA model's embeddings and a queue, with soft targets (Li et al.
    2021)."""

    # a candidate that shares one is positive
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")
    initial_scale: float = between(1 / 0.07, 1e-6)
    minimum_scale: float = between(1.0, 1e-6)
    maximum_scale: float = between(1000.0, 1e-6)
    queue: int = between(65_536, 1)  # pairs kept, at least a batch
    alpha: float = between(0.4, 0.0, 1.0)  # weight of the EMA model's similarities in the targets
    alpha_warmup: int = between(0, 0)  # updates over which alpha grows from 0
    # Whether the EMA model drops activations as the trained one does, for all objectives that use
    # it, as in the paper's code
    teacher_dropout: bool = False

    needs = EMBEDDINGS
    teacher_needs = EMBEDDINGS
    couples_batch = True
    couples_through = EMBEDDINGS

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message about a queue that is shorter than a batch."""
        yield from super().validate(where, experiment)
        if self.queue < experiment.data.batch_size:
            yield f"{where}.queue: {self.too_short(experiment.data.batch_size)}"

    def too_short(self, size: int) -> str:
        """The message for a queue that is shorter than a batch of `size` pairs."""
        return (
            f"a momentum_contrastive queue of {self.queue} holds no batch of {size}; set "
            f"queue={size} or more"
        )

    def smoke(self, sizes: Sizes) -> Self:
        """A queue of two batches, and a warm-up of at most 10 updates."""
        return dataclasses.replace(
            super().smoke(sizes),
            queue=2 * sizes.batch_size,
            alpha_warmup=min(self.alpha_warmup, 10),
        )

    def build(self) -> "MomentumContrastive":
        """The loss with its queue of these settings."""
        return MomentumContrastive(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """Four matrices of similarities with the batch and the queue: student and teacher, in both
        directions."""
        return 4 * 2 * batch * (batch + self.queue) * embedding_dim(model)


@flax.struct.dataclass
class Queue:
    """A ring buffer of pairs.

    Attributes:
      image, text: float32 [Q, E], embeddings by the EMA model.
      caption_id, image_id: int32 [Q, 2].
      place: int32, the row that is written next; it is the oldest where all are filled.
      filled: int32, the number of filled rows.
    """

    image: jax.Array
    text: jax.Array
    caption_id: jax.Array
    image_id: jax.Array
    place: jax.Array
    filled: jax.Array

    @classmethod
    def empty(cls, size: int, dim: int) -> "Queue":
        """A queue without any pairs."""
        zero, ids = jnp.zeros((), jnp.int32), jnp.zeros((size, 2), jnp.int32)
        return cls(jnp.zeros((size, dim)), jnp.zeros((size, dim)), ids, ids, zero, zero)

    def push(
        self, image: jax.Array, text: jax.Array, caption_id: jax.Array, image_id: jax.Array
    ) -> "Queue":
        """The queue after adding a batch of at most its size."""
        size, count = len(self.image), len(image)
        rows = (self.place + jnp.arange(count)) % size

        def put(kept, new):
            return constrain(kept.at[rows].set(new), (None, None))

        return Queue(
            put(self.image, image),
            put(self.text, text),
            put(self.caption_id, caption_id),
            put(self.image_id, image_id),
            (self.place + count) % size,
            jnp.minimum(self.filled + count, size),
        )

    def with_batch(
        self, batch: dict[str, jax.Array], kinds: tuple[str, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """The valid candidates and the positives among a batch's B pairs followed by the queue's.

        Args:
          batch: with `caption_id` and `image_id`.
          kinds: which of "caption" and "image" make a candidate that shares it a positive.
        Returns: bool [B + Q], the candidates that are present; and bool [B, B + Q], the positives
          of each example of the batch: itself and those that share its caption or image.
        """
        size = len(batch["image_id"])
        known = jnp.arange(size + len(self.image)) < size + self.filled
        positives = jnp.eye(size, len(known), dtype=bool)
        for kind in kinds:
            own = batch[f"{kind}_id"]
            positives |= (
                own[:, None] == jnp.concatenate([own, getattr(self, f"{kind}_id")])[None]
            ).all(axis=-1)
        return known, positives & known


class MomentumContrastive(ScaledObjective):
    """Images against the EMA model's texts, and texts against its images, of the batch and of a
    queue.

    The queue holds embeddings of earlier batches; it starts empty, and its unfilled rows are no
    candidates. Targets are `alpha` times the EMA model's own softmax plus 1 - alpha times the
    matched pair, as in equation 6; candidates that share a caption or an image with it count as
    matches, all with equal weights, which the paper has not.

    Metrics: `scale`, `alpha`, `candidates`, and the references `uniform` (the loss of a uniform
    guess: ln(candidates)) and `target_entropy`, the lower bound of the loss.
    """

    config: MomentumContrastiveConfig = MomentumContrastiveConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        student = encodings["image_embedding"], encodings["text_embedding"]
        teacher = jax.tree.map(
            jax.lax.stop_gradient, tuple(batch["teacher"][name] for name in EMBEDDINGS)
        )
        (size, dim), config = student[0].shape, self.config
        if size > config.queue and not self.is_initializing():
            raise ConfigError(f"objectives: {config.too_short(size)}")
        queue = self.variable("queue", "pairs", Queue.empty, config.queue, dim)
        updates = self.variable("queue", "updates", jnp.zeros, (), jnp.int32)
        alpha = grown(config.alpha, config.alpha_warmup, updates.value)
        kept, scale = queue.value, self.scale()
        known, positives = kept.with_batch(batch, config.positives)
        candidates = [
            jnp.concatenate([new, old])
            for new, old in zip(teacher, (kept.image, kept.text), strict=True)
        ]
        parts = [
            soft_contrastive(student[a], teacher[a], candidates[b], scale, alpha, positives, known)
            for a, b in ((0, 1), (1, 0))
        ]
        loss, entropy = (0.5 * (one + other) for one, other in zip(*parts, strict=True))
        if not self.is_initializing() and self.is_mutable_collection("queue"):
            image, text = teacher
            queue.value = kept.push(image, text, batch["caption_id"], batch["image_id"])
            updates.value += 1
        count = known.sum().astype(jnp.float32)
        return Loss(
            loss,
            {
                "scale": scale,
                "alpha": alpha,
                "candidates": count,
                "uniform": jnp.log(count),
                "target_entropy": entropy,
            },
        )


def soft_contrastive(
    student: jax.Array,
    teacher: jax.Array,
    candidates: jax.Array,
    scale: jax.Array,
    alpha: jax.Array | float,
    positives: jax.Array,
    known: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of softmax(scale student candidates^T) with soft targets.

    The targets are alpha softmax(scale teacher candidates^T) + (1 - alpha) y, without gradient.

    Args:
      student, teacher: unit vectors [B, E] of the same items.
      candidates: [C, E], the vectors that they are compared with.
      scale: scalar that multiplies cosines.
      alpha: weight of the teacher's softmax.
      positives: [B, C] bool; y is uniform over those of a row.
      known: [C] bool, False hides a candidate.
    Returns: the mean over rows, float32, and the mean entropy of the targets.
    """
    logits, teacher_logits = (
        jnp.where(known, scale * cosines(rows, candidates), -1e30) for rows in (student, teacher)
    )
    own = positives / positives.sum(axis=1, keepdims=True)
    targets = jax.lax.stop_gradient(alpha * jax.nn.softmax(teacher_logits) + (1.0 - alpha) * own)
    loss = -jnp.where(known, targets * jax.nn.log_softmax(logits), 0.0).sum(axis=1).mean()
    return loss, jax.scipy.special.entr(targets).sum(axis=1).mean()
