"""The Optax chain that a config describes, with per-parameter rules given by regexes."""

import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vlp_jax.config.problems import Problems
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.linear_maps import own_axes
from vlp_jax.sharding.parameter_sharding import named_axes, path_of
from vlp_jax.training.optimizers.base import OptimizerConfig, axes_at, is_masked


def build_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, params: Any
) -> optax.GradientTransformation:
    """Clips by the global norm, scales by moments, adds weight decay and multiplies by the learning
    rate.

    With `decay_coupling="schedule"` an update subtracts weight_decay * schedule(step) /
    learning_rate of a parameter, whatever its learning-rate multiplier.

    Args:
      config: the optimizer section of the config.
      schedule: step -> learning rate.
      params: the parameters or their shapes, in boxes with their logical axes where they have some
        (see `boxed_parameters`). Only paths, structure and axes are read. Frozen parameters have no
        moments, are left out of the norm, and never change.
    Raises:
      ConfigError: a rule is no regex or matches no parameter, all parameters are frozen, or
        settings do not fit together.
    """
    axes, params = named_axes(params), nn.meta.unbox(params)
    Problems(config.problems("optimizer")).report()
    frozen = match_rules(
        "optimizer.frozen", [(pattern, 1.0) for pattern in config.frozen], params, default=0.0
    )
    if config.frozen and all(jax.tree.leaves(frozen)):
        raise ConfigError(
            f"optimizer.frozen: {', '.join(map(repr, config.frozen))} finds every "
            "parameter, and leaves none to be trained; name fewer"
        )
    decay = match_rules(
        "optimizer.decay_multipliers", config.decay_multipliers, params, default=1.0
    )
    rates = match_rules("optimizer.lr_multipliers", config.lr_multipliers, params, default=1.0)
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    chain += config.moments(axes)
    by_rate = config.decay_coupling == "learning_rate"
    strength = config.weight_decay / (1.0 if by_rate else config.learning_rate)
    decayed = (
        [add_weight_decay(jax.tree.map(lambda factor: factor * strength, decay))]
        if config.weight_decay
        else []
    )
    multiplied = (
        [
            optax.stateless(
                lambda updates, _: jax.tree.map(_times, updates, rates, is_leaf=is_masked)
            )
        ]
        if (config.lr_multipliers)
        else []
    )
    chain += [*decayed, *multiplied] if by_rate else [*multiplied, *decayed]
    chain.append(optax.scale_by_learning_rate(schedule))
    if not config.frozen:
        return optax.chain(*chain)
    labels = jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen)
    return optax.partition({"trained": optax.chain(*chain), "frozen": optax.set_to_zero()}, labels)


def only_where_trained(
    optimizer: optax.GradientTransformation, boxed: Any
) -> optax.GradientTransformation:
    """`optimizer`, but a parameter whose gradient is 0 everywhere stays unchanged.

    Moments and weight decay would otherwise move parameters that are trained only by an objective
    whose weight is currently 0. Each layer of a scanned stack counts by itself.

    Args:
      optimizer: the optimizer.
      boxed: as `params` of `build_optimizer`.
    """
    axes = named_axes(boxed)

    def update(updates, state, params=None):
        gradients = updates
        updates, state = optimizer.update(gradients, state, params)

        def moved(path, update, gradient):
            trained = (gradient != 0).any(
                axis=own_axes(axes_at(axes, path, gradient)), keepdims=True
            )
            return jnp.where(trained, update, 0)

        return jax.tree_util.tree_map_with_path(moved, updates, gradients), state

    return optax.GradientTransformation(optimizer.init, update)


def add_weight_decay(factors: Any) -> optax.GradientTransformation:
    """Adds factor * parameter to each update (Loshchilov & Hutter 2019)."""

    def update(updates, params):
        return jax.tree.map(
            lambda update, param, factor: update if is_masked(update) else update + factor * param,
            updates,
            params,
            factors,
            is_leaf=is_masked,
        )

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
            raise ConfigError(
                f"{name}: {pattern!r} is not a regular expression: {error}"
            ) from error
        if not found:
            raise ConfigError(
                f"{name}: {pattern!r} matches no parameter; paths look like {paths[0]}"
            )

    def value(path, _):
        return next(
            (value for pattern, value in rules if re.search(pattern, path_of(path))), default
        )

    return jax.tree_util.tree_map_with_path(value, params)


def _times(update: Any, factor: float) -> Any:
    return update if is_masked(update) else update * factor
