"""What an objective is: a Linen module with its own head that turns encodings into a loss, and declares its needs."""

from typing import Any, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from vlp_jax.config import schema


@flax.struct.dataclass
class Loss:
    """A scalar to minimise, float32, and scalars to report beside it."""

    value: jax.Array
    metrics: dict[str, jax.Array]


class Objective(nn.Module):
    """Base of all objectives. `__call__(encodings, batch, model) -> Loss`.

    model: the VisionLanguageModel, for what an objective computes beside the shared encodings, such as a fusion of pairs that
      it chose itself.

    needs: names of the encodings it reads (`pretraining_module.py` lists them); each is computed once a step for all objectives.
    trains: names of the encodings, of `needs` or made by the objective itself, that it gives a gradient.
    inputs: names of the arrays that it reads in the batch beside texts and ids: those that the pipeline makes only where they are
      asked for (`data/batch_spec.py`).
    teacher_needs: names of the encodings by the averaged parameters that it, or its `teacher_outputs`, reads in `batch["teacher"]`.
    teacher_dropout: whether the averaged parameters are applied with dropout, for all objectives that use the teacher.
    uses_teacher: whether it reads, in `batch["teacher"]` next to the encodings, the result of `teacher_outputs` under its own name.
    takes_packed: whether it knows texts that are packed into rows (`data.text.packing`), or reads none.
    couples_batch: whether an example's loss depends on the rest of the batch, so that the mean of the microbatches'
      losses is not the loss of the batch. A loss that does not is a mean over examples.
    reads_pixels: whether it reads the pixels of the batch itself, beside or instead of encodings of them.
    couples_through: of an objective that couples the batch, the encodings through which it does, each a small array [B, ...].
      Where these are all that it reads of the encodings, accumulation can keep them for the whole batch and stay exact;
      the objective is then called with the whole batch, but for `image`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ()
    teacher_needs: ClassVar[tuple[str, ...]] = ()
    teacher_dropout: ClassVar[bool] = False
    takes_packed: ClassVar[bool] = False
    couples_batch: ClassVar[bool] = False
    reads_pixels: ClassVar[bool] = False
    couples_through: ClassVar[tuple[str, ...]] = ()

    @property
    def trains(self) -> tuple[str, ...]:
        return self.needs

    @property
    def uses_teacher(self) -> bool:
        return bool(self.teacher_needs)

    def teacher_outputs(self, encodings: dict, batch: dict[str, jax.Array], model: nn.Module) -> Any:
        """What the student, called next with the same batch, reads in `batch["teacher"][self.name]`; called with the averaged
        parameters and their encodings, without dropout unless an objective has `teacher_dropout`. What is drawn for the two is
        drawn here, from the stream "teacher"."""
        return None

    @property
    def training(self) -> bool:
        """Whether the model is to drop activations: where there is randomness for it, as in a train step."""
        return self.has_rng("dropout")

    def flops(self, model: schema.Model, batch: int) -> int:
        """Operations of the forward matrix products on a batch, beside those of the encodings that it needs."""
        return 0

    def constrain(self, params: dict) -> dict:
        """The objective's own parameters after an update, brought back into their allowed range."""
        return params


def weight_at(config: schema.Weighted, updates: jax.Array | None) -> float | jax.Array:
    """How much an objective counts in the update after `updates` [] others; None, or where nothing is planned: its full weight."""
    if updates is None or not config.planned:
        return config.weight
    weight = grown(config.weight, config.weight_warmup, updates - config.weight_start)
    counts = (updates >= config.weight_start) & (config.weight_end is None or updates < config.weight_end)
    return jnp.where(counts, weight, 0.0)


def grown(share: float, warmup: int, updates: jax.Array) -> jax.Array:
    """A share that grows linearly from 0 over the first `warmup` updates, after `updates` [] of them; float32."""
    return share * jnp.minimum(1.0, updates / max(warmup, 1) if warmup else 1.0)
