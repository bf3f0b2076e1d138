"""Learning-rate schedules and the length of a run."""

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component
from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

MOST_STEPS = 2**31 - 1  # the state counts steps in int32


class Moment(NamedTuple):
    """A point of a run, for a schedule.

    Attributes:
      step: completed updates, float32.
      after: those after the warm-up, float32.
      progress: `after` as a fraction of the run after the warm-up, float32, at most 1.
      steps: the length of the run.
    """

    step: jax.Array
    after: jax.Array
    progress: jax.Array
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Component):
    """The learning rate over time, as a multiple of `optimizer.learning_rate`.

    It starts with a linear warm-up from 0. Lengths are in steps; one below 1 is a fraction of the
    run.
    """

    kinds: ClassVar[Kinds] = Kinds(
        {
            "cosine": "vlp_jax.training.schedule:CosineConfig",
            "linear": "vlp_jax.training.schedule:LinearConfig",
            "rsqrt": "vlp_jax.training.schedule:RsqrtConfig",
            "constant": "vlp_jax.training.schedule:ConstantConfig",
            "exponential": "vlp_jax.training.schedule:ExponentialConfig",
            "warmup_stable_decay": "vlp_jax.training.schedule:WarmupStableDecayConfig",
        },
        default="cosine",
    )

    warmup: float = between(0.0, 0.0)  # below 1 a fraction of the run, else steps

    def shape(self, at: Moment) -> jax.Array | float:
        """The multiple of the peak learning rate at a step, without the warm-up."""
        raise NotImplementedError

    def decay_steps(self, steps: int) -> int:
        """The length of the final decay in a run of `steps` steps; 0: none."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineConfig(ScheduleConfig):
    """Half a cosine, down to `final` at the last step."""

    final: float = between(0.0, 0.0, 1.0)

    def shape(self, at: Moment) -> jax.Array:
        """Half a cosine from 1 to `final`."""
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + jnp.cos(jnp.pi * at.progress))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearConfig(ScheduleConfig):
    """A line, down to `final` at the last step."""

    final: float = between(0.0, 0.0, 1.0)

    def shape(self, at: Moment) -> jax.Array:
        """A line from 1 to `final`."""
        return self.final + (1.0 - self.final) * (1.0 - at.progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantConfig(ScheduleConfig):
    """The peak learning rate to the end."""

    def shape(self, at: Moment) -> float:
        """1."""
        return 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExponentialConfig(ScheduleConfig):
    """factor^n in the n-th `period` counted from the first step, or `final` where that is more
    (BLIP's epochs)."""

    factor: float = between(0.9, 1e-6, 1.0)  # multiplies the learning rate once per `period`
    period: float = between(1000.0, 0.0)  # below 1 a fraction of the run, else steps
    final: float = between(0.0, 0.0, 1.0)  # lower bound

    def shape(self, at: Moment) -> jax.Array:
        """The power of `factor` that belongs to the step, at least `final`."""
        period = max(1, _length(self.period, at.steps))
        return jnp.maximum(self.factor ** jnp.floor(at.step / period), self.final)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupStableDecayConfig(ScheduleConfig):
    """The peak learning rate, then a line down to `final` at the last step (Hu et al. 2024)."""

    # length of the line: below 1 a fraction of the run, else steps; 0: none
    decay: float = between(0.1, 0.0)
    final: float = between(0.0, 0.0, 1.0)

    def shape(self, at: Moment) -> jax.Array | float:
        """1 up to the last `decay` steps, then a line to `final`."""
        decay = self.decay_steps(at.steps)
        cooling = jnp.clip((at.steps - at.step) / decay, 0.0, 1.0) if decay else 1.0
        return self.final + (1.0 - self.final) * cooling

    def decay_steps(self, steps: int) -> int:
        """The key `decay`, in steps."""
        return _length(self.decay, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RsqrtConfig(WarmupStableDecayConfig):
    """sqrt(timescale / (timescale + t)) for t steps after the warm-up, times a final line (Zhai et
    al. 2022)."""

    timescale: float = between(10_000.0, 1.0)  # in steps

    def shape(self, at: Moment) -> jax.Array:
        """The reciprocal square root of the steps after the warm-up, times the final line."""
        return jnp.sqrt(self.timescale / (self.timescale + at.after)) * super().shape(at)


def total_steps(config: "Experiment", examples_per_epoch: int) -> int:
    """The length of a run in steps, rounded up.

    It follows from the one of steps, examples and epochs that the config gives.

    Raises:
      ConfigError: the length is more than an int32 step counter can hold.
    """
    examples = (
        config.examples
        if config.examples is not None
        else (config.epochs or 0) * examples_per_epoch
    )
    steps = (
        config.steps
        if config.steps is not None
        else max(1, math.ceil(examples / config.data.batch_size))
    )
    if steps > MOST_STEPS:
        key = next(
            name for name in ("steps", "examples", "epochs") if getattr(config, name) is not None
        )
        raise ConfigError(
            f"{key}: {getattr(config, key)} are {steps} steps; a run has at most {MOST_STEPS}"
        )
    return steps


def build_schedule(config: ScheduleConfig, rate: float, steps: int) -> optax.Schedule:
    """step -> learning rate; step counts completed updates, from 0.

    Args:
      config: the schedule section of the optimizer's config.
      rate: the peak learning rate.
      steps: the length of the run.
    Raises:
      ConfigError: warm-up and decay together are longer than the run.
    """
    warmup, decay = _length(config.warmup, steps), config.decay_steps(steps)
    if warmup + decay > steps:
        raise ConfigError(
            f"optimizer.schedule: warmup ({warmup} steps) and decay ({decay}) are "
            f"longer than the run ({steps})"
        )

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum(step / warmup, 1.0) if warmup else 1.0
        after = jnp.maximum(step - warmup, 0.0)
        progress = jnp.clip(after / max(steps - warmup, 1), 0.0, 1.0)
        return rate * rising * config.shape(Moment(step, after, progress, steps))

    return schedule


def _length(value: float, steps: int) -> int:
    """A number of steps, given as a fraction of the run (below 1) or as the number itself."""
    return round(value * steps) if value < 1 else round(value)
