"""Generated answers to a fused image and text: generative question answering, and dialogue
replies."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlp_jax.config.fields import between
from vlp_jax.data.batch_spec import TARGET
from vlp_jax.data.target_kinds import TextTargetConfig
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.fusion.base import FusedEncoding
from vlp_jax.models.options import present
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.base import Loss
from vlp_jax.objectives.captioning import WordPrediction, WordPredictionConfig, token_losses
from vlp_jax.objectives.supervised import unknown_target

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# added to the score of an answer whose first token is too unlikely to be ranked in full
NOT_LISTED = -1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweringConfig(WordPredictionConfig):
    """A target text, token by token, by `model.decoder` from the fused image and text of
    `model.fusion`."""

    target: str = ""  # its name in `data.targets`; required
    # evaluation: number of answers, by their first tokens, that are ranked in full
    shortlist: int = between(32, 1)
    length: int | None = between(None, 2)  # of the target; None: filled in when a config is loaded

    needs = ("fused",)
    generates = True
    tasks = ("classification", "answers")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The token ids of the target."""
        return (TARGET + self.target,)

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also messages about a target that is no text, missing start or end tokens, and parts that
        cannot answer."""
        yield from super().validate(where, experiment)
        yield from unknown_target(where, self.target, experiment.data.targets)
        yield from self.target_problems(where, experiment)
        text = experiment.data.text
        for key, token, does in (
            ("start_token", text.start_token, "begins"),
            ("end_token", text.end_token, "ends"),
        ):
            if token is None:  # without an end, an answer is ranked above all its continuations
                yield f"data.text.{key}: is None, and {where} {does} an answer with it; set one"
        parts = list(self.part_problems(where, experiment.model))
        yield from parts
        if not parts and any(
            "decoding" in objective.needs for objective in experiment.objectives.values()
        ):
            yield from differing_widths(experiment.model)

    def target_problems(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Why a target cannot be answered: it is no text, or one of another length."""
        target, longest = experiment.data.targets.get(self.target), experiment.model.text.length
        name = f"data.targets.{self.target}"
        if target is None:
            return
        if target.kind != "text":
            yield (
                f"{where}.target: needs a target of kind 'text', {name} is one of kind "
                f"{target.kind!r}"
            )
            return
        length = cast(TextTargetConfig, target).length
        if length > longest:
            yield f"{name}.length: is {length}, more than model.text.length={longest}"
        if self.length not in (None, length):
            yield f"{where}.length: is {self.length}, {name} has {length}; leave it out"

    def part_problems(self, where: str, model: ModelConfig) -> Iterator[str]:
        """Why the model's fusion or decoder cannot generate an answer; one that is absent is found
        elsewhere."""
        if model.fusion is not None and not model.fusion.returns_tokens:
            yield (
                f"model.fusion: {where} reads the text's tokens after fusion; set one that has "
                "some, such as kind='cross_attention'"
            )
        if model.decoder is not None and not model.decoder.answers:
            yield (
                f"model.decoder: {where} writes by a decoder of its own that looks at tokens; "
                "set kind='transformer' with image='cross_attention', or kind='lstm' or 'gru' "
                "with image='attention'"
            )

    def completed(self, where: str, experiment: "Experiment") -> Self:
        """With the `length` of the target."""
        return dataclasses.replace(
            self, length=cast(TextTargetConfig, experiment.data.targets[self.target]).length
        )

    def build(self) -> "Answering":
        """The module that predicts answers."""
        return Answering(self)

    def flops(self, model: ModelConfig, batch: int) -> int:
        """The decoder on texts of `length` tokens, with the fused tokens as memory."""
        shapes = model.shapes()
        memory = shapes.text.tokens, present(model.fusion).fused_width(shapes)
        return batch * present(model.decoder).flops(shapes, length=self.length, memory=memory)


def differing_widths(model: ModelConfig) -> Iterator[str]:
    """The problem of a decoder that attends to images and to fused pairs of another width: one
    matrix projects both."""
    if model.fusion is None or model.decoder is None or not model.decoder.reads_image:
        return
    of_images, fused = model.image.token_width, model.fusion.fused_width(model.shapes())
    if of_images != fused:
        yield (
            f"model.fusion: is {fused} wide and model.image {of_images}; where one decoder "
            "captions and answers, both must have one width"
        )


class Answering(WordPrediction):
    """`next_token_loss` of a target text, by the decoder from the text's tokens after fusion.

    The text is an answer, as in BLIP (Li et al. 2022, section 4.4), or a reply in a dialogue about
    the image (Das et al. 2017, "Visual Dialog"). A row without an answer contributes no
    predictions.

    Metrics: those of `WordPrediction`, and `target_rate`, the fraction of rows with an answer.
    """

    config: AnsweringConfig = AnsweringConfig()

    @nn.compact
    def __call__(
        self, encodings: dict, batch: dict[str, jax.Array], model: VisionLanguageModel
    ) -> Loss:
        ids = batch[TARGET + self.config.target]
        text, mask = jnp.maximum(ids, 0), ids >= 0
        logits = model.answer(encodings["fused"], text, mask, self.training)
        loss = self.predicted(logits, text, mask)
        return Loss(loss.value, {**loss.metrics, "target_rate": mask[:, 0].mean(dtype=jnp.float32)})

    def scores(
        self, fused: FusedEncoding, model: VisionLanguageModel, candidates: np.ndarray | jax.Array
    ) -> jax.Array:
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
        count = min(self.config.shortlist, len(candidates))
        pure, variables = model.clone(parent=None), model.variables

        def log_likelihood(ids: jax.Array) -> jax.Array:
            """log p float32 [B] of one answer per row, int32 [B, L]."""
            text, mask = jnp.maximum(ids, 0), ids >= 0
            logits: Any = pure.apply(variables, fused, text, mask, method="answer")
            return -jnp.where(mask[:, 1:], token_losses(logits, text)[0], 0.0).sum(axis=1)

        starts = jnp.broadcast_to(candidates[:1, :1], (len(present(fused.tokens)), 1))
        first = jax.nn.log_softmax(
            model.answer(fused, starts, starts >= 0)[:, 0].astype(jnp.float32)
        )[:, candidates[:, 1]]
        chosen = jax.lax.top_k(first, count)[1]
        found = jax.lax.map(log_likelihood, candidates[chosen.T]).T
        return (first + NOT_LISTED).at[jnp.arange(len(chosen))[:, None], chosen].set(found)
