"""The interface of objectives: what turns encodings into a loss.

An objective is a declaration, a frozen dataclass that derives from `ObjectiveConfig`, and the
Linen module that it builds, which derives from `Objective`, holds the declaration as its field
`config` and has heads of its own. A config selects the declaration by its `kind`; one of your own
code as `kind="package.module:Class"`. The fields of the declaration are keys of the config. What
else the rest of the package reads of it are class variables, or properties where they depend on the
fields:

  needs: names of the encodings that the objective reads (listed in `PretrainingModule.encode`);
    each is computed once per step for all objectives.
  trains: names of the encodings, of `needs` or computed by the objective itself, that receive a
    gradient.
  inputs: names of the arrays of the batch that it reads in addition to texts and ids; the pipeline
    provides them only if they are named here (`data/batch_spec.py`).
  teacher_needs: names of the encodings by the EMA parameters that it, or its `teacher_outputs`,
    reads in `batch["teacher"]`.
  teacher_dropout: whether the EMA parameters are applied with dropout, for all objectives that use
    the teacher.
  uses_teacher: whether it reads the result of `teacher_outputs`, under its own name next to the
    encodings, in `batch["teacher"]`.
  uses_fusion, uses_decoder: whether it applies `model.fusion`, or `model.decoder`.
  takes_packed: whether it supports packed rows of texts (`data.text.packing`), or reads no text.
  couples_batch: whether the loss of an example depends on the rest of the batch, so that the mean
    of the microbatches' losses is not the loss of the batch. Any other loss is a mean over
    examples.
  couples_through: for an objective that couples the batch, the encodings through which it does,
    each a small array [B, ...]. Where these are all the encodings that it reads, gradient
    accumulation can keep them for the whole batch and is exact; the objective is then called with
    the whole batch, except `image`.
  reads_pixels: whether it reads the pixels of the batch itself, with or without encodings of them.
  learns_scale: whether it learns a scale of cosines, as a `ScaledObjective` does.
  needs_mask_token: whether the vocabulary of the model needs an id beyond those of the tokenizer.
  target: the name in `data.targets` of what it predicts; None for other objectives. Its module has
    `answers`, or `scores` where it `generates` (see `PretrainingModule.predict`).
  generates: whether it predicts its target as a text, token by token.
  tasks: the evaluator tasks that its head serves.

Methods of the declaration: `build`, `flops`, `check_tokenizer`, and those of every section
(`validate`, `ignored`, `completed`, `smoke`).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.data.text.tokenizer import Tokenizer
from vlp_jax.models.config import ModelConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment
    from vlp_jax.models.vision_language import VisionLanguageModel

NO_DECODER = (
    "model.decoder: an objective predicts words by it, and there is none; set it, such "
    "as dict(preset='B')"
)
NO_ROW_EACH = "needs a row for each text, and packed rows hold several; set packing=None"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Component):
    """The weight of an objective, and its schedule. Fields shared by all objectives."""

    kinds: ClassVar[Kinds] = Kinds(
        {
            "clip": "vlp_jax.objectives.contrastive:SoftmaxContrastiveConfig",
            "siglip": "vlp_jax.objectives.contrastive:SigmoidContrastiveConfig",
            "triplet": "vlp_jax.objectives.triplet:TripletConfig",
            "momentum_contrastive": "vlp_jax.objectives.momentum_contrastive:MomentumContrastiveConfig",  # noqa: E501
            "matching": "vlp_jax.objectives.matching:MatchingConfig",
            "masked_language": "vlp_jax.objectives.masked_language:MaskedLanguageConfig",
            "captioning": "vlp_jax.objectives.captioning:CaptioningConfig",
            "masked_autoencoder": "vlp_jax.objectives.masked_autoencoder:MaskedAutoencoderConfig",
            "simclr": "vlp_jax.objectives.simclr:SimclrConfig",
            "masked_image": "vlp_jax.objectives.masked_image:MaskedImageConfig",
            "masked_joint": "vlp_jax.objectives.masked_joint:MaskedJointConfig",
            "classification": "vlp_jax.objectives.supervised:ClassificationConfig",
            "regression": "vlp_jax.objectives.supervised:RegressionConfig",
            "answering": "vlp_jax.objectives.answering:AnsweringConfig",
        }
    )

    weight: float = between(1.0, 0.0)
    weight_start: int = between(0, 0)  # updates with weight 0 at the start
    weight_warmup: int = between(0, 0)  # updates over which the weight then grows from 0
    weight_end: int | None = between(None, 1)  # updates after which the weight is 0

    needs: ClassVar[tuple[str, ...]] = ()  # this and the following as in the module's docstring
    inputs: ClassVar[tuple[str, ...]] = ()
    teacher_needs: ClassVar[tuple[str, ...]] = ()
    takes_packed: ClassVar[bool] = False
    couples_batch: ClassVar[bool] = False
    couples_through: ClassVar[tuple[str, ...]] = ()
    reads_pixels: ClassVar[bool] = False
    learns_scale: ClassVar[bool] = False
    needs_mask_token: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:
        teacher_dropout: bool = False
        target: str | None = None
        length: int | None = None
        initial_scale: float = 1.0
    else:  # keys of some kinds; an annotation here would decide their place among the keys
        teacher_dropout = False
        target = None

    @property
    def trains(self) -> tuple[str, ...]:
        """All encodings in `needs`."""
        return self.needs

    @property
    def uses_teacher(self) -> bool:
        """Whether it names encodings of the teacher."""
        return bool(self.teacher_needs)

    @property
    def uses_fusion(self) -> bool:
        """Whether it reads the encoding "fused"."""
        return "fused" in self.needs

    @property
    def uses_decoder(self) -> bool:
        """Whether it reads the encoding "decoding"."""
        return "decoding" in self.needs

    @property
    def planned(self) -> bool:
        """Whether its weight changes during a run."""
        return bool(self.weight_start or self.weight_warmup or self.weight_end)

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """A schedule of the weight 0, and an end before the start."""
        unused = {"weight": "as 0 with a plan for it"} if self.weight == 0 and self.planned else {}
        if self.weight_end is not None and self.weight_end <= self.weight_start:
            unused["weight_end"] = (
                "with a weight_start that is not before it: the objective would never count"
            )
        return unused

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Messages about a fusion or decoder that the model lacks, and packed texts that it does
        not take."""
        yield from super().validate(where, experiment)
        if self.uses_fusion and experiment.model.fusion is None:
            yield f"model.fusion: {where} needs one, such as kind='cross_attention'"
        if self.uses_decoder and experiment.model.decoder is None:
            yield NO_DECODER
        if experiment.data.text.packing is not None and not self.takes_packed:
            yield f"data.text.packing: {where} {NO_ROW_EACH}"

    def check_tokenizer(self, where: str, tokenizer: Tokenizer, experiment: "Experiment") -> None:
        """Checks that the tokenizer has what the objective needs, before the first batch.

        Args:
          where: the objective's key, for messages.
          tokenizer: of the experiment.
          experiment: the whole config.
        Raises: ConfigError where it has not.
        """
        if "word_start" in self.inputs:
            # looked up now, so that a vocabulary without marks fails before the first batch
            tokenizer.word_marks  # noqa: B018

    def build(self) -> "Objective":
        """The Linen module."""
        raise NotImplementedError

    def flops(self, model: ModelConfig, batch: int) -> int:
        """FLOPs of the forward matrix products on a batch, without those of the encodings that it
        needs."""
        return 0


@flax.struct.dataclass
class Loss:
    """A scalar loss and its metrics.

    Attributes:
      value: float32 [], to be minimised.
      metrics: scalars to report with it.
    """

    value: jax.Array
    metrics: dict[str, jax.Array]


class Objective(nn.Module):
    """Base class of the modules of all objectives. `__call__(encodings, batch, model) -> Loss`.

    Args of the call:
      encodings: the encodings named in `config.needs`.
      batch: arrays of the pipeline, and `teacher`.
      model: the VisionLanguageModel, for computations in addition to the shared encodings, such as
        a fusion of pairs that the objective chooses itself.

    Attributes:
      config: the declaration.
    """

    config: ObjectiveConfig

    def teacher_outputs(
        self, encodings: dict, batch: dict[str, jax.Array], model: "VisionLanguageModel"
    ) -> Any:
        """The teacher's outputs, which the student reads in `batch["teacher"][self.name]` for the
        same batch.

        It is called with the EMA parameters and their encodings, without dropout unless an
        objective has `teacher_dropout`. What is drawn at random for both is drawn here, from the
        stream "teacher".
        """
        return None

    @property
    def training(self) -> bool:
        """Whether activations are dropped: where there is a "dropout" rng, as in a train step."""
        return self.has_rng("dropout")

    def constrain(self, params: dict) -> dict:
        """The objective's own parameters after an update, projected into their allowed range."""
        return params


def encodings_trained(objectives: Mapping[str, ObjectiveConfig]) -> set[str]:
    """The names of the encodings of `PretrainingModule.encode` that these objectives train."""
    return {name for objective in objectives.values() for name in objective.trains}


def weight_at(config: ObjectiveConfig, updates: jax.Array | None) -> float | jax.Array:
    """The weight of an objective after a number of updates.

    Args:
      config: the objective's.
      updates: int32 [], the number of updates before this one; None: the full weight.
    Returns: the weight; a constant where the config has no schedule of it.
    """
    if updates is None or not config.planned:
        return config.weight
    weight = grown(config.weight, config.weight_warmup, updates - config.weight_start)
    counts = (updates >= config.weight_start) & (
        config.weight_end is None or updates < config.weight_end
    )
    return jnp.where(counts, weight, 0.0)


def grown(share: float, warmup: int, updates: jax.Array) -> jax.Array:
    """A share that grows linearly from 0 over the first `warmup` updates, after `updates` [] of
    them; float32."""
    return share * jnp.minimum(1.0, updates / max(warmup, 1) if warmup else 1.0)
