"""Captioning: each token of a text from those before it, and from a picture where the decoder looks at one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, Objective
from vlp_jax.objectives.tokens import entropy_of, log_likelihood, mean_where, rows_of_text

FADING = 0.999  # of the counts of tokens, by a batch


def token_losses(logits: jax.Array, text: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 [B, L - 1] twice: -log p of the next token, and the mean of -log p over the vocabulary.
    logits: [B, L, V]; text: int32 [B, L]."""
    logits = logits[:, :-1].astype(jnp.float32)
    return -log_likelihood(logits, text[:, 1:]), jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)


def next_token_loss(logits: jax.Array, text: jax.Array, mask: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of the next token, the mean over all tokens to be predicted, a float32 scalar.

    logits: [B, L, V], those at place i predict text[:, i + 1]; text: int32 [B, L].
    mask: bool [B, L], the tokens to be predicted; a row's first one never is.
    label_smoothing: s of the target is spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
    """
    own, even = token_losses(logits, text)
    return mean_where((1.0 - label_smoothing) * own + label_smoothing * even, mask[:, 1:])


class WordPrediction(Objective):
    """Base of those whose loss is `next_token_loss`, the mean over the tokens of a batch.

    Metrics: `cross_entropy` (the loss without smoothing), `token_accuracy`, and their reference `unigram_entropy`: what a model
    loses that knows no more than how frequent each token is.
    label_smoothing: see `next_token_loss`. unigram: `running` counts the tokens of all batches, the older the less, in a collection
      of its own, which microbatches cannot; `batch` those of the batch, whose entropy is lower, as it is of few.
    """

    label_smoothing: float = 0.0
    unigram: str = "running"

    couples_batch = True  # by the number of tokens, over which the mean is taken

    def predicted(self, logits: jax.Array, text: jax.Array, wanted: jax.Array) -> Loss:
        """Of the tokens that are to be predicted, bool [B, L]; to be called inside a compact method. logits: [B, L, V]."""
        loss = next_token_loss(logits, text, wanted, self.label_smoothing)
        own, _ = token_losses(logits, text)
        right = logits[:, :-1].argmax(axis=-1) == text[:, 1:]
        counts = self.counted(text[:, 1:], wanted[:, 1:], logits.shape[-1])
        return Loss(loss, {"cross_entropy": mean_where(own, wanted[:, 1:]), "unigram_entropy": entropy_of(counts),
                           "token_accuracy": mean_where(right.astype(jnp.float32), wanted[:, 1:])})

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


class Captioning(WordPrediction):
    """The batch's own texts, by the decoder's logits in `decoding`.

    Texts may be packed: a token is predicted from those before it in its own text. `filled` is the part of the rows that is no
    padding then.
    """

    needs = ("decoding",)
    takes_packed = True

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        decoding, (text, mask, packed) = encodings["decoding"], rows_of_text(batch)
        wanted = mask & (jnp.arange(text.shape[1]) >= decoding.prefix[:, None])
        wanted = wanted if packed is None else wanted & packed.continued()
        loss = self.predicted(decoding.logits, text, wanted)
        return loss if packed is None else loss.replace(metrics={**loss.metrics, "filled": mask.mean(dtype=jnp.float32)})
