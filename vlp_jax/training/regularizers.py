"""Penalties on parameters, as the `regularizers` section of a config names them: terms of the loss that look at no example."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vlp_jax.config import schema
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.freeze import is_frozen
from vlp_jax.training.optimizer import match_rules

Metrics = dict[str, jax.Array]


def penalty(regularizer: schema.Regularizer, frozen: Sequence[str], params: Any) -> jax.Array:
    """l1 * sum |w| + l2 * sum w^2 of the numbers w of all parameters that `regularizer.pattern` is found in the path of, but for
    frozen ones: with l2 = 0 the lasso's, with l1 = 0 that of ridge regression, with both the naive elastic net's (Zou & Hastie
    2005, equation 3). There is no half in front: w's gradient is l1 * sign(w) + 2 * l2 * w, and sign(0) = 0.

    params: float32, on whatever devices. Returns: float32 [].
    """
    def of(path, w):
        if not _counts(regularizer, frozen, path_of(path)):
            return jnp.zeros((), jnp.float32)
        size = w * jax.lax.stop_gradient(jnp.sign(w))  # jnp.abs has the slope 1 at 0
        return regularizer.l1 * size.sum() + regularizer.l2 * jnp.square(w).sum()

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(of, params)))


def with_penalties(config: schema.Config, params: Any, gradients: Any, metrics: Metrics) -> tuple[Any, Metrics]:
    """The gradients and metrics of an update's loss, once its penalties are part of it: they are in `loss`, and by themselves
    `regularizer/NAME`. To be called once an update, however many microbatches it has. Where objectives' weights are planned, a
    parameter that none of them trains now is left alone."""
    if not config.regularizers:
        return gradients, metrics

    def total(params):
        parts = {name: penalty(spec, config.optimizer.frozen, params) for name, spec in config.regularizers.items()}
        return sum(parts.values()), parts

    slopes, parts = jax.grad(total, has_aux=True)(params)
    metrics = {**metrics, "loss": metrics["loss"] + sum(parts.values()),
               **{f"regularizer/{name}": value for name, value in parts.items()}}
    if any(objective.planned for objective in config.objectives.values()):  # see `optimizer.only_where_trained`
        slopes = jax.tree.map(lambda slope, gradient: jnp.where((gradient != 0).any(), slope, 0.0), slopes, gradients)
    return jax.tree.map(jnp.add, gradients, slopes), metrics


def check_regularizers(regularizers: Mapping[str, schema.Regularizer], frozen: Sequence[str], params: Any) -> None:
    """Raises: ConfigError naming a pattern that is no regex, or is found in the path of no parameter that moves. params: shapes are
    enough."""
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for name, regularizer in regularizers.items():
        match_rules(f"regularizers.{name}.pattern", [(regularizer.pattern, 1.0)], params, default=0.0)
        if not any(_counts(regularizer, frozen, path) for path in paths):
            raise ConfigError(f"regularizers.{name}.pattern: {regularizer.pattern!r} matches none but parameters that "
                              "optimizer.frozen keeps as they are")


def _counts(regularizer: schema.Regularizer, frozen: Sequence[str], path: str) -> bool:
    return bool(re.search(regularizer.pattern, path)) and not is_frozen(path, frozen)
