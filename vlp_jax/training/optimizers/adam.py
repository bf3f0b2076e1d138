"""Adam (Kingma and Ba 2015), with and without decoupled weight decay (Loshchilov and Hutter
2019)."""

import dataclasses
from collections.abc import Iterator, Mapping

import optax

from vlp_jax.config.fields import between, positive
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.training.optimizers.base import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """Adam with decoupled weight decay."""

    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """Adam's first and second moments."""
        return [optax.scale_by_adam(self.b1, self.b2, self.epsilon)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamConfig(AdamWConfig):
    """Adam; its weight decay has to be 0."""

    def problems(self, where: str) -> Iterator[str]:
        """Also a message about weight decay, which is for kind 'adamw'."""
        yield from super().problems(where)
        if self.weight_decay:
            yield (
                f"{where}.weight_decay: must be 0 with kind='adam'; with weight decay use "
                "kind='adamw'"
            )
