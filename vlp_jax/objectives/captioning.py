"""Captioning: each token of a text from those before it, and from a picture where the decoder looks at one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.objective import Loss, Objective

FADING = 0.999  # of the counts of tokens, by a batch


def token_losses(logits: jax.Array, text: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 [B, L - 1] twice: -log p of the next token, and the mean of -log p over the vocabulary.
    logits: [B, L, V]; text: int32 [B, L]."""
    log_probabilities = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    own = jnp.take_along_axis(log_probabilities, text[:, 1:, None], axis=-1)[..., 0]
    return -own, -log_probabilities.mean(axis=-1)


def next_token_loss(logits: jax.Array, text: jax.Array, mask: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of the next token, the mean over all tokens to be predicted, a float32 scalar.

    logits: [B, L, V], those at place i predict text[:, i + 1]; text: int32 [B, L].
    mask: bool [B, L], the tokens to be predicted; a row's first one never is.
    label_smoothing: s of the target is spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    own, even = token_losses(logits, text)
    return masked_mean((1.0 - label_smoothing) * own + label_smoothing * even, mask[:, 1:])


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of `values` where `mask`; 0 where that is nowhere."""
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def entropy_of(counts: jax.Array) -> jax.Array:
    """Entropy in nats of the frequencies that counts [V] have; 0 for none at all."""
    frequencies = counts / jnp.maximum(counts.sum(), 1e-9)
    return -jnp.where(counts > 0, frequencies * jnp.log(jnp.where(counts > 0, frequencies, 1.0)), 0.0).sum()


class Captioning(Objective):
    """`next_token_loss` of the decoder's logits, the mean over the tokens of a batch: with microbatches, of each.

    Metrics: `cross_entropy` (the loss without smoothing), `token_accuracy`, and their reference `unigram_entropy`: what a model
    loses that knows no more than how frequent each token is.
    label_smoothing: see `next_token_loss`. unigram: `running` counts the tokens of all batches, the older the less, in a collection
      of its own, which microbatches cannot; `batch` those of the batch, whose entropy is lower, as it is of few.
    """

    label_smoothing: float = 0.0
    unigram: str = "running"

    needs = ("decoding",)

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        decoding, text = encodings["decoding"], batch["text"]
        wanted = batch["text_mask"] & (jnp.arange(text.shape[1]) >= decoding.prefix[:, None])
        loss = next_token_loss(decoding.logits, text, wanted, self.label_smoothing)
        own, _ = token_losses(decoding.logits, text)
        right = decoding.logits[:, :-1].argmax(axis=-1) == text[:, 1:]
        counts = self.counted(text[:, 1:], wanted[:, 1:], decoding.logits.shape[-1])
        return Loss(loss, {"cross_entropy": masked_mean(own, wanted[:, 1:]), "unigram_entropy": entropy_of(counts),
                           "token_accuracy": masked_mean(right.astype(jnp.float32), wanted[:, 1:])})

    def counted(self, tokens: jax.Array, mask: jax.Array, vocab_size: int) -> jax.Array:
        """float32 [V], how often each token was to be predicted."""
        counts = jnp.zeros(vocab_size, jnp.float32).at[tokens].add(mask.astype(jnp.float32))
        if self.unigram == "batch":
            return counts
        kept = self.variable("unigram", "counts", jnp.zeros, (vocab_size,), jnp.float32)
        counts = FADING * kept.value + counts
        if not self.is_initializing() and self.is_mutable_collection("unigram"):
            kept.value = counts
        return counts
