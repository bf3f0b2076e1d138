"""What a frozen part of the model keeps beside its parameters."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn


def statistics_kept(frozen: Sequence[str]) -> Callable:
    """An interceptor for `nn.intercept_methods`, under which a BatchNorm whose parameters are all frozen goes by its running
    statistics in training too, and leaves them as they are: else a frozen encoder would give other features with every update, and
    other ones than in evaluation.

    frozen: regexes of parameters, as in `schema.Optimizer`.
    """
    def intercept(call: Callable, arguments: tuple, keywords: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
            names = ["/".join((*module.path, name)) for name in ("scale", "bias")]
            if all(any(re.search(pattern, name) for pattern in frozen) for name in names):
                keywords = {**keywords, "use_running_average": True}
        return call(*arguments, **keywords)

    return intercept
