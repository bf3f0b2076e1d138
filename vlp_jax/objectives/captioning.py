"""Captioning: prediction of each token of a text from those before it, and from an image.

The image is used where the decoder has a memory.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective, ObjectiveConfig
from vlp_jax.objectives.tokens import entropy_of, log_likelihood, mean_where, rows_of_text

FADING = 0.999  # decay of the counts of tokens per batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordPredictionConfig(ObjectiveConfig):
    """Fields shared by the objectives that predict the next token."""

    label_smoothing: float = between(0.0, 0.0, 0.999)
    # tokens counted for `unigram_entropy`; microbatches need "batch"
    unigram: Literal["running", "batch"] = "running"

    couples_batch = True  # the mean is over the tokens of the whole batch
    uses_decoder = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptioningConfig(WordPredictionConfig):
    """Each token of the text from those before it, by `model.decoder`."""

    needs = ("decoding",)
    takes_packed = True

    def build(self) -> "Captioning":
        """The module that computes the captions' loss."""
        return Captioning(self)


def token_losses(logits: jax.Array, text: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-log p of the next token, and the mean of -log p over the vocabulary.

    Args:
      logits: [B, L, V].
      text: int32 [B, L].
    Returns: float32 [B, L - 1] twice.
    """
    logits = logits[:, :-1].astype(jnp.float32)
    return -log_likelihood(logits, text[:, 1:]), jax.nn.logsumexp(logits, axis=-1) - logits.mean(
        axis=-1
    )


def next_token_loss(
    logits: jax.Array, text: jax.Array, mask: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of the next token, the mean over all predicted tokens.

    Args:
      logits: [B, L, V]; those at position i predict text[:, i + 1].
      text: int32 [B, L].
      mask: bool [B, L], the tokens to be predicted; the first of a row never is.
      label_smoothing: s, the part of the target that is uniform over the vocabulary (Szegedy et al.
        2016, section 7).
    Returns: a float32 scalar.
    """
    own, even = token_losses(logits, text)
    return mean_where((1.0 - label_smoothing) * own + label_smoothing * even, mask[:, 1:])


class WordPrediction(Objective):
    """Base class of objectives with `next_token_loss`, the mean over the tokens of a batch.

    Metrics: `cross_entropy` (the loss without smoothing), `token_accuracy`, and their reference
    `unigram_entropy`: the loss of a model that predicts the frequency of each token.

    The tokens of `unigram_entropy` are counted over all batches (`running`), decayed, in a
    collection of its own, which microbatches do not support; or in the `batch`, with a lower
    entropy, since they are few.
    """

    config: WordPredictionConfig

    def predicted(self, logits: jax.Array, text: jax.Array, wanted: jax.Array) -> Loss:
        """The loss of the tokens to be predicted. To be called inside a compact method.

        Args:
          logits: [B, L, V].
          text: int32 [B, L].
          wanted: bool [B, L], the tokens to be predicted.
        """
        loss = next_token_loss(logits, text, wanted, self.config.label_smoothing)
        own, _ = token_losses(logits, text)
        right = logits[:, :-1].argmax(axis=-1) == text[:, 1:]
        counts = self.counted(text[:, 1:], wanted[:, 1:], logits.shape[-1])
        return Loss(
            loss,
            {
                "cross_entropy": mean_where(own, wanted[:, 1:]),
                "unigram_entropy": entropy_of(counts),
                "token_accuracy": mean_where(right.astype(jnp.float32), wanted[:, 1:]),
            },
        )

    def counted(self, tokens: jax.Array, mask: jax.Array, vocab_size: int) -> jax.Array:
        """How often each token was to be predicted, float32 [V]."""
        counts = jnp.zeros(vocab_size, jnp.float32).at[tokens].add(mask.astype(jnp.float32))
        if self.config.unigram == "batch":
            return counts
        kept = self.variable("unigram", "counts", jnp.zeros, (vocab_size,), jnp.float32)
        counts = FADING * kept.value + counts
        if not self.is_initializing() and self.is_mutable_collection("unigram"):
            kept.value = counts
        return counts


class Captioning(WordPrediction):
    """`next_token_loss` of the batch's own texts, by the decoder's logits in `decoding`.

    Texts may be packed: a token is then predicted from those before it in its own text, and the
    metric `filled` is the fraction of the rows that is not padding.
    """

    config: CaptioningConfig = CaptioningConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        decoding, (text, mask, packed) = encodings["decoding"], rows_of_text(batch)
        wanted = mask & (jnp.arange(text.shape[1]) >= decoding.prefix[:, None])
        wanted = wanted if packed is None else wanted & packed.continued()
        loss = self.predicted(decoding.logits, text, wanted)
        filled = {"filled": mask.mean(dtype=jnp.float32)}
        return (
            loss
            if packed is None
            else dataclasses.replace(loss, metrics={**loss.metrics, **filled})
        )
