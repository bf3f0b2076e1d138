"""Generated answers to a fused image and text: generative question answering, and dialogue replies."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.data.batch_spec import TARGET
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.fusion.base import FusedEncoding
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss, ObjectiveConfig
from vlp_jax.objectives.captioning import WordPrediction, token_losses

NOT_LISTED = -1e6  # added to the score of an answer whose first token is too unlikely to be ranked in full


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweringConfig(ObjectiveConfig):
    """A target text, token by token, by `model.decoder` from the fused image and text of `model.fusion`."""

    target: str = ""  # its name in `data.targets`; required
    label_smoothing: float = between(0.0, 0.0, 0.999)
    unigram: Literal["running", "batch"] = "running"  # as in CaptioningObjective
    shortlist: int = between(32, 1)  # evaluation: number of answers, by their first tokens, that are ranked in full
    length: int | None = between(None, 2)  # of the target; None: filled in when a config is loaded


class Answering(WordPrediction):
    """`next_token_loss` of a target text, by the decoder from the text's tokens after fusion.

    The text is an answer, as in BLIP (Li et al. 2022, section 4.4), or a reply in a dialogue about
    the image (Das et al. 2017, "Visual Dialog"). A row without an answer contributes no
    predictions.

    Metrics: those of `WordPrediction`, and `target_rate`, the fraction of rows with an answer.

    Attributes:
      length: of the target, in tokens.
      shortlist: number of answers that `scores` ranks in full.
    """

    target: str = ""
    length: int | None = None
    shortlist: int = 32

    needs = ("fused",)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (TARGET + self.target,)

    def flops(self, model: ModelConfig, batch: int) -> int:
        shapes = model.shapes()
        memory = shapes.text.tokens, model.fusion.fused_width(shapes)
        return batch * model.decoder.flops(shapes, length=self.length, memory=memory)

    @nn.compact
    def __call__(self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel) -> Loss:
        ids = batch[TARGET + self.target]
        text, mask = jnp.maximum(ids, 0), ids >= 0
        logits = model.answer(encodings["fused"], text, mask, self.training)
        loss = self.predicted(logits, text, mask)
        return Loss(loss.value, {**loss.metrics, "target_rate": mask[:, 0].mean(dtype=jnp.float32)})

    def scores(self, fused: FusedEncoding, model: VisionLanguageModel, candidates: np.ndarray) -> jax.Array:
        """log p of each candidate answer, ranked as in BLIP (appendix B.2).

        Only the `shortlist` of answers with the likeliest first tokens is scored in full; others
        get NOT_LISTED or less.

        Args:
          fused: Encoding of the pairs.
          model: the VisionLanguageModel.
          candidates: int32 [K, L], -1 after their ends.
        Returns: float32 [B, K].
        """
        candidates = jnp.asarray(candidates)
        count = min(self.shortlist, len(candidates))
        pure, variables = model.clone(parent=None), model.variables

        def log_likelihood(ids: jax.Array) -> jax.Array:
            """log p float32 [B] of one answer per row, int32 [B, L]."""
            text, mask = jnp.maximum(ids, 0), ids >= 0
            logits = pure.apply(variables, fused, text, mask, method="answer")
            return -jnp.where(mask[:, 1:], token_losses(logits, text)[0], 0.0).sum(axis=1)

        starts = jnp.broadcast_to(candidates[:1, :1], (len(fused.tokens), 1))
        first = jax.nn.log_softmax(model.answer(fused, starts, starts >= 0)[:, 0].astype(jnp.float32))[:, candidates[:, 1]]
        chosen = jax.lax.top_k(first, count)[1]
        found = jax.lax.map(log_likelihood, candidates[chosen.T]).T
        return (first + NOT_LISTED).at[jnp.arange(len(chosen))[:, None], chosen].set(found)
