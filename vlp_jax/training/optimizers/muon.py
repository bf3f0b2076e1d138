"""Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks")."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax
import optax.contrib

from vlp_jax.config.fields import between, positive
from vlp_jax.sharding.parameter_sharding import Axes, path_of
from vlp_jax.training.optimizers.base import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for kernels, whose updates are orthogonalised; all other parameters use Adam with Nesterov momentum."""

    b1: float = between(0.9, 0.0, 0.999999)
    b2: float = between(0.98, 0.0, 0.999999)
    epsilon: float = positive(1e-6)
    newton_schulz_steps: int = between(5, 1)  # iterations that orthogonalise an update, of three products each

    def moments(self, axes: Mapping[str, Axes]) -> list[optax.GradientTransformation]:
        """Muon's orthogonalised momentum for matrices, Adam's moments for all other parameters."""
        # A learning rate of -1: the end of the chain multiplies by the real one, and by -1. consistent_rms gives matrices
        # Adam's update size, so that one learning rate fits both (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4).
        return [optax.contrib.muon(-1.0, beta=self.b1, eps=self.epsilon, adam_b1=self.b1, adam_b2=self.b2,
                                   muon_weight_dimension_numbers=matrix_axes, consistent_rms=0.2,
                                   ns_steps=self.newton_schulz_steps)]


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
