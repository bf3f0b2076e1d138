"""Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks")."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax
import optax.contrib

from vlp_jax.config.fields import between, positive
from vlp_jax.sharding.linear_maps import TARGETS, linear_map
from vlp_jax.sharding.parameter_sharding import Axes
from vlp_jax.training.optimizers.base import OptimizerConfig, axes_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for kernels, whose updates are orthogonalised; all other parameters use Adam with
    Nesterov momentum."""

    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)
    # iterations that orthogonalise an update, of three products each
    newton_schulz_steps: int = between(5, 1)

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """Muon's orthogonalised momentum for matrices, Adam's moments for all other parameters."""

        def matrices(params: Any) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: matrix_axes(axes_at(axes, path, leaf)), params
            )

        # A learning rate of -1: the end of the chain multiplies by the real one, and by -1.
        # consistent_rms gives matrices Adam's update size, so that one learning rate fits both (Liu
        # et al. 2025, "Muon is scalable for LLM training", eq. 4).
        return [
            optax.contrib.muon(
                -1.0,
                beta=self.b1,
                eps=self.epsilon,
                adam_b1=self.b1,
                adam_b2=self.b2,
                muon_weight_dimension_numbers=matrices,
                consistent_rms=0.2,
                ns_steps=self.newton_schulz_steps,
            )
        ]


def matrix_axes(axes: Axes) -> optax.contrib.MuonDimensionNumbers | None:
    """The input and output axes of a kernel, counted from the last axis, for Muon.

    A leading axis of layers is neither input nor output.

    Returns: None for parameters that Muon does not treat as matrices. These are all that are no
      kernel, such as embeddings, biases and scales (see `linear_map`), and layers whose outputs are
      targets, as output layers are better trained by Adam (Jordan et al. 2024, "Muon: an optimizer
      for hidden layers in neural networks").
    """
    found = linear_map(axes)
    if found is None or TARGETS in axes:
        return None
    return optax.contrib.MuonDimensionNumbers(
        *(tuple(i - len(axes) for i in side) for side in found)
    )
