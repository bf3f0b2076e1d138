"""Hinge losses with a margin between matched and unmatched pairs (Faghri et al. 2018, "VSE++")."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.config import ModelConfig, embedding_dim
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.contrastive import EMBEDDINGS, shared_positives
from vlp_jax.objectives.contrastive_losses import cosines, top1_accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class TripletConfig(ObjectiveConfig):
    """Hinge loss with a margin between matched and unmatched pairs (Faghri et al. 2018)."""

    margin: float = between(0.2, 0.0)  # of cosines
    # of a batch: only the nearest, or the sum over all within the margin
    negatives: Literal["hardest", "all"] = "hardest"
    # a pair that shares one is no negative
    positives: tuple[Literal["caption", "image"], ...] = ("caption", "image")

    needs = EMBEDDINGS
    couples_batch = True
    couples_through = EMBEDDINGS

    def build(self) -> "Triplet":
        """The triplet loss of these settings."""
        return Triplet(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The similarities of all pairs."""
        return 2 * batch**2 * embedding_dim(model)


class Triplet(Objective):
    """`triplet_contrastive` or `hinge_contrastive` on a batch, without parameters.

    Metrics: `batch_accuracy`, `violated` (the fraction of images and texts with a negative within
    the margin), and a reference: `uniform`, the loss with equal cosines for all pairs, where
    positives are no negatives either.
    """

    config: TripletConfig = TripletConfig()

    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        """The loss and metrics of all pairs of the batch."""
        image, text, margin = (
            encodings["image_embedding"],
            encodings["text_embedding"],
            self.config.margin,
        )
        positives = shared_positives(batch, self.config.positives)
        of_images, of_texts = violations(image, text, margin, positives)
        violated = 0.5 * (
            (of_images > 0).any(axis=1).mean(dtype=jnp.float32)
            + (of_texts > 0).any(axis=0).mean(dtype=jnp.float32)
        )
        loss = {"hardest": triplet_contrastive, "all": hinge_contrastive}[self.config.negatives]
        # equal for images and texts
        others = ~positives if self.config.negatives == "all" else (~positives).any(axis=1)[:, None]
        uniform = 2.0 * margin * others.sum(axis=1).mean(dtype=jnp.float32)
        return Loss(
            loss(image, text, margin, positives),
            {
                "batch_accuracy": top1_accuracy(image, text, positives),
                "violated": violated,
                "uniform": uniform,
            },
        )


def triplet_contrastive(
    image: jax.Array, text: jax.Array, margin: float = 0.2, positives: jax.Array | None = None
) -> jax.Array:
    """The hinge loss with the hardest negative (Faghri et al. 2018, equation 6).

    For image i and text c with cosine s(i, c):

      max_c' [margin + s(i, c') - s(i, c)]_+ + max_i' [margin + s(i', c) - s(i, c)]_+.

    Args:
      image, text: [B, E] unit vectors; row k of both is a pair.
      margin: of cosines.
      positives: [B, B] bool, True where image i and text j are a match, and so no negatives of each
        other. None: the identity.
    Returns: the mean over pairs of the sum of both directions, float32; a row without negatives
      gives 0.
    """
    of_images, of_texts = violations(image, text, margin, positives)
    return (of_images.max(axis=1) + of_texts.max(axis=0)).mean()


def hinge_contrastive(
    image: jax.Array, text: jax.Array, margin: float = 0.2, positives: jax.Array | None = None
) -> jax.Array:
    """The hinge loss summed over all negatives (Kiros et al. 2014; Faghri et al. 2018, section
    3.1).

      sum_c' [margin + s(i, c') - s(i, c)]_+ + sum_i' [margin + s(i', c) - s(i, c)]_+.

    Args:
      image, text, margin, positives: as in `triplet_contrastive`.
    Returns: the mean over pairs of the sum of both directions, float32.
    """
    of_images, of_texts = violations(image, text, margin, positives)
    return (of_images.sum(axis=1) + of_texts.sum(axis=0)).mean()


def violations(
    image: jax.Array, text: jax.Array, margin: float, positives: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Margin violations of every pair, in both directions; arguments as in `triplet_contrastive`.

    Returns: [B, B] float32 twice, at image i and text j: [margin + s_ij - s_ii]_+, with text j as a
      negative of image i, and [margin + s_ij - s_jj]_+, with image i as a negative of text j; 0
      where these are a match.
    """
    similarity = cosines(image, text)
    own = jnp.diagonal(similarity)
    allowed = ~(jnp.eye(len(image), dtype=bool) if positives is None else positives)
    of_images, of_texts = (
        jax.nn.relu(margin + similarity - pair) for pair in (own[:, None], own[None, :])
    )
    return jnp.where(allowed, of_images, 0.0), jnp.where(allowed, of_texts, 0.0)
