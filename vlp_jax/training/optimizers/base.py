"""The base of all kinds of optimizers."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import optax

from vlp_jax.config.fields import between, positive
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component, component
from vlp_jax.sharding.parameter_sharding import Axes, path_of
from vlp_jax.training.schedule import ScheduleConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Component):
    """An Optax chain: clipping, moments, weight decay, learning rate.

    Rules are (regex, value) pairs.

    A regex is searched in the parameter's path (`model/image/blocks_0/mlp/in/kernel`). The first
    rule that matches applies, and a rule that matches no parameter is an error.
    """

    kinds: ClassVar[Kinds] = Kinds(
        {
            "adamw": "vlp_jax.training.optimizers.adam:AdamWConfig",
            "adam": "vlp_jax.training.optimizers.adam:AdamConfig",
            "sgd": "vlp_jax.training.optimizers.sgd:SgdConfig",
            "adafactor": "vlp_jax.training.optimizers.adafactor:AdafactorConfig",
            "lion": "vlp_jax.training.optimizers.lion:LionConfig",
            "muon": "vlp_jax.training.optimizers.muon:MuonConfig",
        },
        default="adamw",
    )

    learning_rate: float = between(1e-3, 0.0)
    weight_decay: float = between(0.0, 0.0)
    # The factor of weight decay. learning_rate: as in PyTorch's AdamW, an update subtracts
    # weight_decay * learning_rate of each parameter. schedule: its multiple from 0 to 1 alone, as
    # in big_vision; its 1e-4 equals AdamW's 0.1 at a learning rate of 1e-3.
    decay_coupling: Literal["learning_rate", "schedule"] = "learning_rate"
    # Multiples of weight_decay. The default matches every path that ends so: biases, the scales of
    # norms, `layer_scale` of residual branches, and the biases of relative positions and of
    # vocabularies. Kernels, embeddings, positions and temperatures decay.
    decay_multipliers: tuple[tuple[str, float], ...] = ((r"(bias|scale)$", 0.0),)
    lr_multipliers: tuple[tuple[str, float], ...] = ()  # multiples of learning_rate
    # regexes of constant parameters; a fully frozen BatchNorm keeps its statistics
    frozen: tuple[str, ...] = ()
    clip_norm: float | None = positive(None)  # of the global gradient norm
    schedule: ScheduleConfig = component(ScheduleConfig)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """The transformations that turn a gradient into a direction.

        Args:
          axes: {path: logical axes} of the parameters; those of absent parameters are unnamed.
        """
        raise NotImplementedError

    def problems(self, where: str) -> Iterator[str]:
        """The problems of the optimizer by itself, as messages; `where` is the section's key."""
        if self.decay_coupling == "schedule" and self.weight_decay and not self.learning_rate:
            yield f"{where}.decay_coupling: 'schedule' divides by {where}.learning_rate, which is 0"

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also the messages of `problems`."""
        yield from super().validate(where, experiment)
        yield from self.problems(where)

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`decay_coupling`, where there is no weight decay."""
        return {} if self.weight_decay else {"decay_coupling": "with weight_decay=0"}


def axes_at(axes: Mapping[str, Axes], path: tuple, leaf: jax.Array) -> Axes:
    """The logical axes of the parameter at a key path; all None for a parameter without names."""
    return axes.get(path_of(path), (None,) * leaf.ndim)


def is_masked(leaf: Any) -> bool:
    """Whether `optax.partition` has masked this leaf."""
    return isinstance(leaf, optax.MaskedNode)
