"""Stochastic gradient descent."""

import dataclasses
from collections.abc import Mapping

import optax

from vlp_jax.config.fields import between
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.training.optimizers.base import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    momentum: float = between(0.9, 0.0, 0.999999)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """The momentum, where there is any."""
        return [optax.trace(self.momentum)] if self.momentum else []
