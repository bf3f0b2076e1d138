"""The Optax chain that a config describes, with per-parameter rules given by regexes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from vlp_jax.config.fields import between, positive, section
from vlp_jax.config.section import Section
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.parameter_sharding import Axes, is_boxed, logical_axes, path_of
from vlp_jax.training.adafactor import axes_at, clip_by_parameter_rms, is_masked, own_axes, scale_by_factored_moments
from vlp_jax.training.schedule import ScheduleConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    """An Optax chain: clipping, moments, weight decay, learning rate. Rules are (regex, value) pairs.

    A regex is searched in the parameter's path (`model/image/blocks_0/mlp/in/kernel`). The first
    rule that matches applies, and a rule that matches no parameter is an error.
    """

    kind: Literal["adamw", "adam", "sgd", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float = between(1e-3, 0.0)
    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)  # adam, adamw, muon
    momentum: float = between(0.9, 0.0, 0.999999)  # sgd
    newton_schulz_steps: int = between(5, 1)  # muon: iterations that orthogonalise an update, of three products each
    weight_decay: float = between(0.0, 0.0)
    # The factor of weight decay. learning_rate: as in PyTorch's AdamW, an update subtracts weight_decay * learning_rate of each
    # parameter. schedule: its multiple from 0 to 1 alone, as in big_vision; its 1e-4 equals AdamW's 0.1 at a learning rate of 1e-3.
    decay_coupling: Literal["learning_rate", "schedule"] = "learning_rate"
    decay_multipliers: tuple[tuple[str, float], ...] = ((r"(bias|scale)$", 0.0),)  # multiples of weight_decay
    lr_multipliers: tuple[tuple[str, float], ...] = ()  # multiples of learning_rate
    frozen: tuple[str, ...] = ()  # regexes of constant parameters; a fully frozen BatchNorm keeps its statistics
    clip_norm: float | None = positive(None)  # of the global gradient norm
    schedule: ScheduleConfig = section(ScheduleConfig)


def build_optimizer(config: OptimizerConfig, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
    """Clips by the global norm, scales by moments, adds weight decay and multiplies by the learning rate.

    With `decay_coupling="schedule"` an update subtracts weight_decay * schedule(step) /
    learning_rate of a parameter, whatever its learning-rate multiplier.

    Args:
      config: the optimizer section of the config.
      schedule: step -> learning rate.
      params: the parameters or their shapes, in boxes with their logical axes where they have some
        (see `boxed_parameters`). Only paths, structure and axes are read. Frozen parameters have no
        moments, are left out of the norm, and never change.
    Raises:
      ConfigError: a rule is no regex or matches no parameter, or all parameters are frozen.
    """
    axes, params = named_axes(params), nn.meta.unbox(params)
    if config.decay_coupling == "schedule" and config.weight_decay and not config.learning_rate:
        raise ConfigError("optimizer.decay_coupling: 'schedule' divides by optimizer.learning_rate, which is 0")
    if config.kind == "adam" and config.weight_decay:
        raise ConfigError("optimizer.weight_decay: must be 0 with kind='adam'; with weight decay use kind='adamw'")
    frozen = match_rules("optimizer.frozen", [(pattern, 1.0) for pattern in config.frozen], params, default=0.0)
    if config.frozen and all(jax.tree.leaves(frozen)):
        raise ConfigError(f"optimizer.frozen: {', '.join(map(repr, config.frozen))} finds every parameter, and leaves none to be "
                          "trained; name fewer")
    decay = match_rules("optimizer.decay_multipliers", config.decay_multipliers, params, default=1.0)
    rates = match_rules("optimizer.lr_multipliers", config.lr_multipliers, params, default=1.0)
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    chain += scale_by_moments(config, axes)
    by_rate = config.decay_coupling == "learning_rate"
    strength = config.weight_decay / (1.0 if by_rate else config.learning_rate)
    decayed = [add_weight_decay(jax.tree.map(lambda factor: factor * strength, decay))] if config.weight_decay else []
    multiplied = [optax.stateless(lambda updates, _: jax.tree.map(_times, updates, rates, is_leaf=is_masked))] if (
        config.lr_multipliers) else []
    chain += [*decayed, *multiplied] if by_rate else [*multiplied, *decayed]
    chain.append(optax.scale_by_learning_rate(schedule))
    if not config.frozen:
        return optax.chain(*chain)
    labels = jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen)
    return optax.partition({"trained": optax.chain(*chain), "frozen": optax.set_to_zero()}, labels)


def only_where_trained(optimizer: optax.GradientTransformation, boxed: Any) -> optax.GradientTransformation:
    """`optimizer`, but a parameter whose gradient is 0 everywhere stays unchanged.

    Moments and weight decay would otherwise move parameters that are trained only by an objective
    whose weight is currently 0. Each layer of a scanned stack counts by itself.

    Args:
      optimizer: the optimizer.
      boxed: as `params` of `build_optimizer`.
    """
    axes = named_axes(boxed)

    def update(gradients, state, params=None):
        updates, state = optimizer.update(gradients, state, params)

        def moved(path, update, gradient):
            trained = (gradient != 0).any(axis=own_axes(axes_at(axes, path, gradient)), keepdims=True)
            return jnp.where(trained, update, 0)

        return jax.tree_util.tree_map_with_path(moved, updates, gradients), state

    return optax.GradientTransformation(optimizer.init, update)


def named_axes(boxed: Any) -> dict[str, Axes]:
    """{path: logical axes} of the parameters that have them."""
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_boxed)
    return {path_of(path): logical_axes(leaf) for path, leaf in leaves if is_boxed(leaf)}


def scale_by_moments(config: OptimizerConfig, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
    """The transformations that turn a gradient into a direction, by `config.kind`.

    Args:
      config: the optimizer section of the config.
      axes: {path: logical axes} of the parameters.
    """
    if config.kind in ("adam", "adamw"):
        return [optax.scale_by_adam(config.b1, config.b2, config.epsilon)]
    if config.kind == "sgd":
        return [optax.trace(config.momentum)] if config.momentum else []
    if config.kind == "muon":
        # A learning rate of -1: the end of the chain multiplies by the real one, and by -1. consistent_rms gives matrices
        # Adam's update size, so that one learning rate fits both (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4).
        # All other parameters use Adam with Nesterov momentum.
        return [optax.contrib.muon(-1.0, beta=config.b1, eps=config.epsilon, adam_b1=config.b1, adam_b2=config.b2,
                                   muon_weight_dimension_numbers=matrix_axes, consistent_rms=0.2,
                                   ns_steps=config.newton_schulz_steps)]
    if config.kind == "lion":
        return [optax.scale_by_lion(config.b1, config.b2)]
    # Adafactor without its relative step size: factored second moments, their decay 1 - t^-0.8 up to b2, clipped updates,
    # momentum b1 (Shazeer & Stern 2018; momentum and b2 as in Zhai et al. 2022, section 3.4).
    momentum = [optax.ema(config.b1, debias=False)] if config.b1 else []
    factored = scale_by_factored_moments(axes, lambda step: jnp.minimum(1.0 - (step + 1.0)**-0.8, config.b2))
    return [factored, clip_by_parameter_rms(axes, 1.0), *momentum]


def matrix_axes(params: Any) -> Any:
    """The input and output axes of each kernel, for Muon.

    None for parameters that Muon does not treat as matrices.

    These are embeddings, biases, scales and the last layer of a `TargetHead`, as output layers are
    better trained by Adam (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
    networks"). The inputs of a convolution kernel are its height, width and channels. A leading
    axis of layers is neither input nor output.
    """
    def axes(path, leaf):
        name = path_of(path)
        if not name.endswith("kernel") or re.search(r"^objectives_[^/]+/head/out/kernel$", name):
            return None
        if leaf.ndim > 2 and re.search(r"/(query|key|value|nodes)/kernel$", name):  # heads follow the inputs
            return optax.contrib.MuonDimensionNumbers((-3,), (-2, -1))
        if leaf.ndim > 2 and re.search(r"(?<!/mlp)/(out|hidden_0)/kernel$", name):  # heads, or the positions of a VGG, precede them
            return optax.contrib.MuonDimensionNumbers((-3, -2), (-1,))
        if "/convolution" in name:
            return optax.contrib.MuonDimensionNumbers((-4, -3, -2), (-1,))
        return optax.contrib.MuonDimensionNumbers((-2,), (-1,))

    return jax.tree_util.tree_map_with_path(axes, params)


def add_weight_decay(factors: Any) -> optax.GradientTransformation:
    """Adds factor * parameter to each update (Loshchilov & Hutter 2019)."""
    def update(updates, params):
        return jax.tree.map(lambda update, param, factor: update if is_masked(update) else update + factor * param,
                            updates, params, factors, is_leaf=is_masked)

    return optax.stateless(update)


def match_rules(name: str, rules: Sequence[tuple[str, float]], params: Any, default: float) -> Any:
    """The value of the first matching rule for each parameter, as a tree like `params`.

    A rule matches where its regex is found in the path.

    Args:
      name: config key of the rules, for messages.
      rules: (regex, value) pairs.
      params: the parameters or their shapes.
      default: the value of parameters that no rule matches.
    Raises:
      ConfigError: a pattern is no regex or matches no parameter.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in rules:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise ConfigError(f"{name}: {pattern!r} is not a regular expression: {error}") from error
        if not found:
            raise ConfigError(f"{name}: {pattern!r} matches no parameter; paths look like {paths[0]}")

    def value(path, _):
        return next((value for pattern, value in rules if re.search(pattern, path_of(path))), default)

    return jax.tree_util.tree_map_with_path(value, params)


def _times(update: Any, factor: float) -> Any:
    return update if is_masked(update) else update * factor
