"""Answers written word by word, from what a fusion made of a picture and a text: generative question answering, and replies."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config import schema
from vlp_jax.data.batch_spec import TARGET
from vlp_jax.models.flops import decoder_flops
from vlp_jax.models.fusion.attention import FusedEncoding
from vlp_jax.models.fusions import fused_width
from vlp_jax.models.text.text_towers import text_tokens
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss
from vlp_jax.objectives.captioning import WordPrediction, token_losses

NOT_LISTED = -1e6  # the score of an answer whose first word is too unlikely to be looked at further


class Answering(WordPrediction):
    """`next_token_loss` of a target that is a text: the decoder looks at the text's tokens after fusion, and writes the answer, as
    BLIP does (Li et al. 2022, section 4.4), or a reply to a dialogue about the picture (Das et al. 2017, "Visual Dialog").

    A row without an answer predicts nothing. Metrics: those of `WordPrediction`, and `target_rate`, the share of rows with one.
    length: of the target, in tokens. shortlist: how many answers `scores` compares in full.
    """

    target: str = ""
    length: int | None = None
    shortlist: int = 32

    needs = ("fused",)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (TARGET + self.target,)

    def flops(self, model: schema.Model, batch: int) -> int:
        return batch * decoder_flops(model, length=self.length, memory=(text_tokens(model.text), fused_width(model)))

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        ids = batch[TARGET + self.target]
        text, mask = jnp.maximum(ids, 0), ids >= 0
        logits = model.answer(encodings["fused"], text, mask, self.training)
        loss = self.predicted(logits, text, mask)
        return Loss(loss.value, {**loss.metrics, "target_rate": mask[:, 0].mean(dtype=jnp.float32)})

    def scores(self, fused: FusedEncoding, model: VisionLanguageModel, candidates: np.ndarray) -> jax.Array:
        """float32 [B, K]: log p of each answer, as BLIP ranks them (appendix B.2): those of the `shortlist` whose first words are
        the likeliest; NOT_LISTED or less for others. candidates: int32 [K, L], -1 behind their ends."""
        candidates = jnp.asarray(candidates)
        count = min(self.shortlist, len(candidates))
        pure, variables = model.clone(parent=None), model.variables

        def log_likelihood(ids: jax.Array) -> jax.Array:
            """float32 [B] of one answer a row, int32 [B, L]."""
            text, mask = jnp.maximum(ids, 0), ids >= 0
            logits = pure.apply(variables, fused, text, mask, method="answer")
            return -jnp.where(mask[:, 1:], token_losses(logits, text)[0], 0.0).sum(axis=1)

        starts = jnp.broadcast_to(candidates[:1, :1], (len(fused.tokens), 1))
        first = jax.nn.log_softmax(model.answer(fused, starts, starts >= 0)[:, 0].astype(jnp.float32))[:, candidates[:, 1]]
        chosen = jax.lax.top_k(first, count)[1]
        found = jax.lax.map(log_likelihood, candidates[chosen.T]).T
        return (first + NOT_LISTED).at[jnp.arange(len(chosen))[:, None], chosen].set(found)
