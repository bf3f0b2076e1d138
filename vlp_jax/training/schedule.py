"""Learning-rate schedules and the length of a run."""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import optax

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.errors import ConfigError

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

MOST_STEPS = 2**31 - 1  # the state counts steps in int32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Section):
    """The learning rate over time, as a multiple of `optimizer.learning_rate`.

    Lengths are in steps; a fraction is of the run.
    """

    kind: Literal["cosine", "linear", "rsqrt", "constant", "exponential", "warmup_stable_decay"] = "cosine"
    warmup: float = between(0.0, 0.0)  # below 1 a fraction of the run, else steps; so is `decay`
    decay: float = between(0.1, 0.0)  # final part of warmup_stable_decay, and of rsqrt (there 0: none)
    timescale: float = between(10_000.0, 1.0)  # of rsqrt, in steps
    factor: float = between(0.9, 1e-6, 1.0)  # exponential: multiplies the learning rate once per `period`
    period: float = between(1000.0, 0.0)  # below 1 a fraction of the run, else steps
    final: float = between(0.0, 0.0, 1.0)  # at the end of cosine, linear, warmup_stable_decay, rsqrt; lower bound of exponential


def total_steps(config: "Experiment", examples_per_epoch: int) -> int:
    """The length of a run in steps, rounded up.

    It follows from the one of steps, examples and epochs that the config gives.

    Raises:
      ConfigError: the length is more than an int32 step counter can hold.
    """
    examples = config.examples if config.examples is not None else (config.epochs or 0) * examples_per_epoch
    steps = config.steps if config.steps is not None else max(1, math.ceil(examples / config.data.batch_size))
    if steps > MOST_STEPS:
        key = next(name for name in ("steps", "examples", "epochs") if getattr(config, name) is not None)
        raise ConfigError(f"{key}: {getattr(config, key)} are {steps} steps; a run has at most {MOST_STEPS}")
    return steps


def build_schedule(config: ScheduleConfig, rate: float, steps: int) -> optax.Schedule:
    """step -> learning rate; step counts completed updates, from 0.

    All kinds start with a linear warm-up from 0. Then:
      cosine, linear: fall to `final` at the last step.
      constant: stays.
      rsqrt: sqrt(timescale / (timescale + t)) for t steps after the warm-up (Zhai et al. 2022),
        with a linear cooldown to `final`.
      warmup_stable_decay: stays, then falls linearly to `final` (Hu et al. 2024).
      exponential: factor^n in the n-th `period` counted from the first step, or `final` where that
        is more (BLIP's epochs).

    Args:
      config: the schedule section of the optimizer's config.
      rate: the peak learning rate.
      steps: the length of the run.
    Raises:
      ConfigError: warm-up and decay together are longer than the run.
    """
    warmup = _length(config.warmup, steps)
    decay = _length(config.decay, steps) if config.kind in ("rsqrt", "warmup_stable_decay") else 0
    if warmup + decay > steps:
        raise ConfigError(f"optimizer.schedule: warmup ({warmup} steps) and decay ({decay}) are longer than the run ({steps})")
    final, period = config.final, max(1, _length(config.period, steps))

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum(step / warmup, 1.0) if warmup else 1.0
        after = jnp.maximum(step - warmup, 0.0)
        progress = jnp.clip(after / max(steps - warmup, 1), 0.0, 1.0)
        cooling = jnp.clip((steps - step) / decay, 0.0, 1.0) if decay else 1.0
        shape = {
            "cosine": final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
            "linear": final + (1.0 - final) * (1.0 - progress),
            "constant": 1.0,
            "exponential": jnp.maximum(config.factor**jnp.floor(step / period), final),
            "rsqrt": jnp.sqrt(config.timescale / (config.timescale + after)) * (final + (1.0 - final) * cooling),
            "warmup_stable_decay": final + (1.0 - final) * cooling,
        }[config.kind]
        return rate * rising * shape

    return schedule


def _length(value: float, steps: int) -> int:
    """A number of steps, given as a fraction of the run (below 1) or as the number itself."""
    return round(value * steps) if value < 1 else round(value)
