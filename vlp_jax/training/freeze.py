"""Frozen parameters: which they are, and how a train step leaves them and their statistics
unchanged."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.sharding.parameter_sharding import path_of


def is_frozen(name: str, frozen: Sequence[str]) -> bool:
    """Whether one of the regexes `frozen` of `OptimizerConfig` is found in the path of a
    parameter."""
    return any(re.search(pattern, name) for pattern in frozen)


def zero_frozen(gradients: Any, frozen: Sequence[str]) -> Any:
    """`gradients` with those of frozen parameters set to zero, so that XLA does not compute
    them."""
    if not frozen:
        return gradients

    def keep(path, gradient):
        return jnp.zeros_like(gradient) if is_frozen(path_of(path), frozen) else gradient

    return jax.tree_util.tree_map_with_path(keep, gradients)


def is_frozen_norm(name: str, frozen: Sequence[str]) -> bool:
    """Whether all parameters of the BatchNorm at path `name` (`model/image/norm`) are frozen.

    Its running statistics are frozen with them.
    """
    return all(is_frozen(f"{name}/{parameter}", frozen) for parameter in ("scale", "bias"))


def statistics_kept(frozen: Sequence[str]) -> Callable:
    """An interceptor for `nn.intercept_methods` that keeps the statistics of frozen BatchNorms.

    A BatchNorm whose parameters are all frozen uses its running statistics in training too, and
    leaves them unchanged. Otherwise the features of a frozen encoder would change with every
    update, and differ from those in evaluation.
    """

    def intercept(
        call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if (
            isinstance(module, nn.BatchNorm)
            and context.method_name == "__call__"
            and is_frozen_norm("/".join(module.path), frozen)
        ):
            keywords = {**keywords, "use_running_average": True}
        return call(*arguments, **keywords)

    return intercept
