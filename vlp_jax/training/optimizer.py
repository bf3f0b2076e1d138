"""The Optax chain that a config describes, with per-parameter rules by regex."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.parameter_sharding import Axes, is_boxed, logical_axes, path_of
from vlp_jax.training.adafactor import axes_at, clip_by_parameter_rms, is_masked, own_axes, scale_by_factored_moments


def build_optimizer(config: schema.Optimizer, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
    """Clip by global norm, scale by moments, add weight decay, multiply by the learning rate.

    With `decay_coupling="schedule"` an update takes weight_decay * schedule(step) / rate of a parameter, whatever its rate rule.

    params: the parameters or their shapes, in boxes with their logical axes where they have some (see `boxed_parameters`); only
      paths, structure and axes are read. Frozen parameters have no moments, count in no norm, and never change.
    Raises: ConfigError naming a rule that is no regex or matches no parameter, and where all are frozen.
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
    """`optimizer`, but a parameter all of whose gradient is 0 (of scanned layers, each by itself) stays as it is: moments and
    weight decay would move what only an objective trains that does not count now. boxed: as `params` of `build_optimizer`."""
    axes = named_axes(boxed)

    def update(gradients, state, params=None):
        updates, state = optimizer.update(gradients, state, params)

        def moved(path, update, gradient):
            trained = (gradient != 0).any(axis=own_axes(axes_at(axes, path, gradient)), keepdims=True)
            return jnp.where(trained, update, 0)

        return jax.tree_util.tree_map_with_path(moved, updates, gradients), state

    return optax.GradientTransformation(optimizer.init, update)


def named_axes(boxed: Any) -> dict[str, Axes]:
    """{path: logical axes} of the parameters that carry them."""
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_boxed)
    return {path_of(path): logical_axes(leaf) for path, leaf in leaves if is_boxed(leaf)}


def scale_by_moments(config: schema.Optimizer, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
    """What turns a gradient into a direction, by `config.kind`. axes: {path: logical axes} of the parameters."""
    if config.kind in ("adam", "adamw"):
        return [optax.scale_by_adam(config.b1, config.b2, config.epsilon)]
    if config.kind == "sgd":
        return [optax.trace(config.momentum)] if config.momentum else []
    if config.kind == "muon":
        # A learning rate of -1: the chain multiplies by the real one, and by -1, at its end. consistent_rms gives matrices
        # Adam's update size, so that one rate serves both (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4).
        # What is no matrix goes through Adam with Nesterov's momentum.
        return [optax.contrib.muon(-1.0, beta=config.b1, eps=config.epsilon, adam_b1=config.b1, adam_b2=config.b2,
                                   muon_weight_dimension_numbers=matrix_axes, consistent_rms=0.2,
                                   ns_steps=config.newton_schulz_steps)]
    if config.kind == "lion":
        return [optax.scale_by_lion(config.b1, config.b2)]
    # Adafactor without its relative step size: second moments factored, their decay 1 - t^-0.8 up to b2, updates clipped,
    # momentum b1 (Shazeer & Stern 2018; momentum and b2 as Zhai et al. 2022, section 3.4, use them).
    momentum = [optax.ema(config.b1, debias=False)] if config.b1 else []
    factored = scale_by_factored_moments(axes, lambda step: jnp.minimum(1.0 - (step + 1.0)**-0.8, config.b2))
    return [factored, clip_by_parameter_rms(axes, 1.0), *momentum]


def matrix_axes(params: Any) -> Any:
    """Which axes of each kernel are its inputs and outputs, for Muon; None for what is not a matrix: embeddings, biases,
    scales; and for the last layer of a `TargetHead`, as outputs are better left to Adam (Jordan et al. 2024, "Muon: an optimizer
    for hidden layers in neural networks"). Convolution kernels take height, width and channels as inputs; a leading axis of layers
    stands apart."""
    def axes(path, leaf):
        name = path_of(path)
        if not name.endswith("kernel") or re.search(r"^objectives_[^/]+/head/out/kernel$", name):
            return None
        if leaf.ndim > 2 and re.search(r"/(query|key|value|nodes)/kernel$", name):  # heads stand behind the inputs
            return optax.contrib.MuonDimensionNumbers((-3,), (-2, -1))
        if leaf.ndim > 2 and re.search(r"(?<!/mlp)/(out|hidden_0)/kernel$", name):  # or in front, as a VGG's places
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
    """A tree like `params` holding, for each, the value of the first rule whose regex is found in its path."""
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
