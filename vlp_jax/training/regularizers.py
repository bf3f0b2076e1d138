"""Penalties on parameters, given by the `regularizers` section: loss terms without examples."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section
from vlp_jax.errors import ConfigError
from vlp_jax.sharding.parameter_sharding import path_of
from vlp_jax.training.freeze import is_frozen
from vlp_jax.training.optimizer import match_rules

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizerConfig(Section):
    """l1 * sum |w| + l2 * sum w^2, added to the loss; with both, an elastic net.

    Unlike weight decay, its gradient enters the optimizer's moments.
    """

    l1: float = between(0.0, 0.0)
    l2: float = between(0.0, 0.0)
    # regex, searched in the path of each parameter, as in `optimizer`, to select w
    pattern: str = r"kernel$"

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also a message where both factors are 0."""
        yield from super().validate(where, experiment)
        if not (self.l1 or self.l2):
            yield f"{where}: has no effect with l1=0 and l2=0"


def penalty(regularizer: RegularizerConfig, frozen: Sequence[str], params: Any) -> jax.Array:
    """l1 * sum |w| + l2 * sum w^2 over all numbers w of the parameters that the regularizer applies
    to.

    These are the parameters whose path `regularizer.pattern` is found in, without frozen ones. With
    l2 = 0 this is the lasso penalty, with l1 = 0 that of ridge regression, with both that of the
    naive elastic net (Zou & Hastie 2005, equation 3). There is no factor of one half: the gradient
    of w is l1 * sign(w) + 2 * l2 * w, and sign(0) = 0.

    Args:
      regularizer: pattern, l1 and l2.
      frozen: regexes of frozen parameters.
      params: float32, on any devices.
    Returns: scalar, float32.
    """

    def of(path, w):
        if not _counts(regularizer, frozen, path_of(path)):
            return jnp.zeros((), jnp.float32)
        size = w * jax.lax.stop_gradient(jnp.sign(w))  # jnp.abs has gradient 1 at 0
        return regularizer.l1 * size.sum() + regularizer.l2 * jnp.square(w).sum()

    return jnp.asarray(sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(of, params))))


def with_penalties(
    config: "Experiment", params: Any, gradients: Any, metrics: Metrics
) -> tuple[Any, Metrics]:
    """The gradients and metrics of an update with the penalties added.

    The penalties are part of the metric `loss`, and each is reported as `regularizer/NAME`. To be
    called once per update, however many microbatches it has. Where the weights of objectives are
    scheduled, a parameter that no objective currently trains gets no penalty.

    Args:
      config: the config of the run.
      params: the parameters.
      gradients: gradients of the objectives.
      metrics: metrics of the objectives.
    Returns: gradients and metrics.
    """
    if not config.regularizers:
        return gradients, metrics

    def total(params):
        parts = {
            name: penalty(spec, config.optimizer.frozen, params)
            for name, spec in config.regularizers.items()
        }
        return sum(parts.values()), parts

    slopes, parts = jax.grad(total, has_aux=True)(params)
    metrics = {
        **metrics,
        "loss": metrics["loss"] + sum(parts.values()),
        **{f"regularizer/{name}": value for name, value in parts.items()},
    }
    # see `optimizer.only_where_trained`
    if any(objective.planned for objective in config.objectives.values()):
        slopes = jax.tree.map(
            lambda slope, gradient: jnp.where((gradient != 0).any(), slope, 0.0), slopes, gradients
        )
    return jax.tree.map(jnp.add, gradients, slopes), metrics


def check_regularizers(
    regularizers: Mapping[str, RegularizerConfig], frozen: Sequence[str], params: Any
) -> None:
    """Checks the patterns of the regularizers.

    Args:
      regularizers: {name: regularizer}.
      frozen: regexes of frozen parameters.
      params: the parameters; shapes are enough.
    Raises:
      ConfigError: a pattern is no regex, or matches no trained parameter.
    """
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for name, regularizer in regularizers.items():
        match_rules(
            f"regularizers.{name}.pattern", [(regularizer.pattern, 1.0)], params, default=0.0
        )
        if not any(_counts(regularizer, frozen, path) for path in paths):
            raise ConfigError(
                f"regularizers.{name}.pattern: {regularizer.pattern!r} matches none "
                "but parameters that optimizer.frozen keeps as they are"
            )


def _counts(regularizer: RegularizerConfig, frozen: Sequence[str], path: str) -> bool:
    return bool(re.search(regularizer.pattern, path)) and not is_frozen(path, frozen)
