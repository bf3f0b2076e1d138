"""Lion (Chen et al. 2023)."""

import dataclasses
from collections.abc import Mapping

import optax

from vlp_jax.config.fields import between
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.training.optimizers.base import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig(OptimizerConfig):
    """Lion: the sign of an interpolation between momentum and gradient."""

    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """The sign of the interpolation."""
        return [optax.scale_by_lion(self.b1, self.b2)]
