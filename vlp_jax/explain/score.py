"""The scores that are explained: a number for each pair of an image and a text."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.evaluators.requirements import lacks_embeddings, lacks_head
from vlp_jax.objectives.captioning import token_losses

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.objectives.pretraining_module import PretrainingModule


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreConfig(Component):
    """A score of pairs.

    Attributes:
      needs: encodings of both that are computed with all tokens.
    """

    kinds: ClassVar[Kinds] = Kinds(
        {
            "retrieval": "vlp_jax.explain.score:RetrievalScoreConfig",
            "matching": "vlp_jax.explain.score:MatchingScoreConfig",
            "answer": "vlp_jax.explain.score:AnswerScoreConfig",
            "caption": "vlp_jax.explain.score:CaptionScoreConfig",
        },
        default="retrieval",
    )
    needs: ClassVar[tuple[str, ...]] = ("image", "text")

    def lacks(self, experiment: "Experiment") -> str | None:
        """What the experiment would have to train for this score; None where it trains it."""
        raise NotImplementedError

    def values(self, module: "PretrainingModule", batch: Mapping[str, Any]) -> jax.Array:
        """The scores float32 [B] of the pairs of a batch.

        Args:
          module: bound to its variables.
          batch: as in `PretrainingModule.__call__`; further arrays are named in the kinds.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalScoreConfig(ScoreConfig):
    """The cosine similarity of the embeddings."""

    needs = ("image", "text", "image_embedding", "text_embedding")

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective on embeddings."""
        return lacks_embeddings(experiment)

    def values(self, module: "PretrainingModule", batch: Mapping[str, Any]) -> jax.Array:
        """The cosines."""
        encodings = module.encode(dict(batch), set(self.needs), train=False)
        return (encodings["image_embedding"] * encodings["text_embedding"]).sum(axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingScoreConfig(ScoreConfig):
    """The log-odds of a match by the matching head: its logit minus that of no match."""

    def lacks(self, experiment: "Experiment") -> str | None:
        """A matching objective."""
        return lacks_head(experiment, "matching") or lacks_plain_fusion(experiment)

    def values(self, module: "PretrainingModule", batch: Mapping[str, Any]) -> jax.Array:
        """The log-odds."""
        logits = module.match(dict(batch))
        return logits[:, 1] - logits[:, 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerScoreConfig(ScoreConfig):
    """The score of an answer to a question about the image.

    Of a head over classes, it is the logit of the class `batch["label"]`, int32 [B]. Of an
    objective that generates answers, it is log p of `batch["answer"]`, int32 [B, L], -1 after the
    end.
    """

    def lacks(self, experiment: "Experiment") -> str | None:
        """An objective that answers from a fused image and text."""
        if answering(experiment) is None:
            return (
                "an objective of kind 'classification' with features='fused', or of kind "
                "'answering'"
            )
        return lacks_plain_fusion(experiment)

    def values(self, module: "PretrainingModule", batch: Mapping[str, Any]) -> jax.Array:
        """The logits or log-likelihoods."""
        rest = {key: value for key, value in batch.items() if key not in ("label", "answer")}
        name = next(name for name, own in module.objectives_config.items() if answers(own))
        if "label" in batch:
            return jnp.take_along_axis(module.predict(name, rest), batch["label"][:, None], axis=1)[
                :, 0
            ]
        fused = module.encode(rest, {"fused"}, train=False)["fused"]
        text, mask = jnp.maximum(batch["answer"], 0), batch["answer"] >= 0
        logits = module.model.answer(fused, text, mask)
        return -jnp.where(mask[:, 1:], token_losses(logits, text)[0], 0.0).sum(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionScoreConfig(ScoreConfig):
    """log p of tokens of the text as caption of the image, given the tokens before them.

    `batch["predicted"]`, bool [B, L], are these tokens.
    """

    def lacks(self, experiment: "Experiment") -> str | None:
        """A captioning objective with a decoder that reads the image."""
        decoder = experiment.model.decoder
        if decoder is None or not decoder.reads_image:
            return "a decoder that reads the image"
        kinds = {objective.kind for objective in experiment.objectives.values()}
        return None if "captioning" in kinds else "an objective of kind 'captioning'"

    def values(self, module: "PretrainingModule", batch: Mapping[str, Any]) -> jax.Array:
        """The log-likelihoods."""
        encodings = module.encode(
            {key: value for key, value in batch.items() if key != "predicted"},
            {"decoding"},
            train=False,
        )
        own, _ = token_losses(encodings["decoding"].logits, batch["text"])
        return -jnp.where(batch["predicted"][:, 1:], own, 0.0).sum(axis=1)


def answers(objective: Any) -> bool:
    """Whether an objective predicts an answer from a fused pair."""
    return "classification" in objective.tasks and "fused" in objective.needs


def answering(experiment: "Experiment") -> str | None:
    """The name of the first objective that answers; None where there is none."""
    names = (name for name, own in experiment.objectives.items() if answers(own))
    return next(names, None)


def pools_a_fusion(score: ScoreConfig) -> bool:
    """Whether a score is of the pooled vector of a fusion."""
    return score.kind in ("matching", "answer")


def lacks_plain_fusion(experiment: "Experiment") -> str | None:
    """A fusion of an image and a text alone; None where the experiment has one, or none at all."""
    fusion = experiment.model.fusion
    if fusion is None or not (fusion.reads_boxes or fusion.reads_dependencies):
        return None
    return "a fusion that reads neither boxes nor parses"
