"""What all transformers share: the precision they compute in, and the options of a layer."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Precision:
    """Parameters are float32; matrix products and activations use `compute`. Passed down, never decided twice."""

    compute: jnp.dtype = jnp.float32

    def dense(self, features: int | Sequence[int], axes: tuple[str, ...], *, kernel_init: Initializer,
              use_bias: bool = True, axis: int | Sequence[int] = -1, name: str | None = None) -> nn.DenseGeneral:
        """A linear layer whose kernel carries the logical `axes` (inputs first, then outputs)."""
        outputs = len(features) if isinstance(features, Sequence) else 1
        return nn.DenseGeneral(
            features, axis=axis, use_bias=use_bias, dtype=self.compute, param_dtype=jnp.float32, name=name,
            kernel_init=nn.with_logical_partitioning(kernel_init, axes),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[-outputs:]))

    def working_copy(self, params: Any) -> Any:
        """`params` with every kernel in `compute`, as each layer would cast it by itself. Cast before a scan over layers, the
        gradients of the kernels leave the scan in `compute`, half as large, and the numbers are the same."""
        def cast(path, leaf):
            return leaf.astype(self.compute) if jax.tree_util.keystr(path[-1:], simple=True) == "kernel" else leaf

        return jax.tree_util.tree_map_with_path(cast, params)

    def layer_norm(self, epsilon: float, name: str | None = None, axis: str = "embed") -> nn.LayerNorm:
        """Statistics in float32, result in `compute`."""
        return nn.LayerNorm(
            epsilon=epsilon, dtype=self.compute, param_dtype=jnp.float32, name=name,
            scale_init=nn.with_logical_partitioning(nn.initializers.ones, (axis,)),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axis,)))

    def rms_norm(self, epsilon: float, name: str | None = None, axis: str = "embed") -> nn.RMSNorm:
        """Zhang & Sennrich 2019: no mean is taken off, and nothing added. Statistics in float32, result in `compute`."""
        return nn.RMSNorm(epsilon=epsilon, dtype=self.compute, param_dtype=jnp.float32, name=name,
                          scale_init=nn.with_logical_partitioning(nn.initializers.ones, (axis,)))


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), OpenAI CLIP's approximation (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """Everything about a transformer layer except its place in the stack."""

    width: int
    heads: int
    mlp_dim: int
    norm: str = "pre"  # "pre": x + f(norm(x)); "post": norm(x + f(x))
    norm_kind: str = "layer"  # LayerNorm, or "rms"
    norm_epsilon: float = 1e-6
    activation: str = "gelu"  # a name of ACTIVATIONS, or "swiglu": silu(x W) * x V (Shazeer 2020)
    qk_norm: bool = False
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    causal: bool = False
    cross_attention: bool = False
    initialization: str = "xavier"
    depth: int = 1  # of the stack, which scales CLIP's initial values
    attention: str = "auto"  # "plain": never by a platform's kernel
    precision: Precision = Precision()
    own: tuple[str, ...] = ()  # "attention", "cross", "mlp": what these layers do not share with others of the same name

    def name_of(self, branch: str) -> str:
        """The name of a branch's parameters; layers that are called by several stacks share those of one name."""
        return f"decoder_{branch}" if branch in self.own else branch

    def linear(self, x: jax.Array, name: str) -> jax.Array:
        """[B, N, D'] -> [B, N, D]; call it inside a module."""
        return self.precision.dense(self.width, ("embed", "mlp"), kernel_init=self.initializers()["residual"], name=name)(x)

    def to_width(self, x: jax.Array, name: str) -> jax.Array:
        """[B, N, D'] -> [B, N, D]: x itself where it is that wide, else what a linear map makes of it."""
        return x if x.shape[-1] == self.width else self.linear(x, name)

    def normalisation(self, name: str, axis: str = "embed") -> nn.Module:
        """The norm that the stack uses everywhere."""
        kind = self.precision.rms_norm if self.norm_kind == "rms" else self.precision.layer_norm
        return kind(self.norm_epsilon, name, axis)

    @property
    def keeps_branches(self) -> bool:
        """Whether the backward pass needs what a residual branch gives, and not only the sum: for a scale on it, or a norm on the
        sum. What is named `attention_residual`, `cross_residual` and `mlp_residual` to be kept is the branch then."""
        return self.layer_scale is not None or self.norm == "post"

    def initializers(self) -> dict[str, Initializer]:
        """Kernel initial values: `xavier` uniform (as big_vision), `normal` with a standard deviation of 0.02 (Devlin et al.
        2019), `gpt2`: that, divided by the root of the number of residual branches, 2 depth, for what writes to the residual
        stream (Radford et al. 2019, section 2.3), or `clip`: normal with a standard deviation of
        D^-1/2 for query, key, value, D^-1/2 (2 depth)^-1/2 for what writes to the residual stream and (2 D)^-1/2 for
        the MLP's input (Radford et al. 2021, section 2.4 and its code); or `torch`, what PyTorch's modules begin with: uniform up
        to fan_in^-1/2, and up to (1.5 / D)^1/2 for query, key, value (`nn.Linear`, `nn.MultiheadAttention`)."""
        same = {"xavier": nn.initializers.xavier_uniform(), "normal": nn.initializers.normal(0.02)}.get(self.initialization)
        if same is not None:
            return dict(attention=same, residual=same, mlp=same)
        if self.initialization == "torch":
            linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
            attention = nn.initializers.variance_scaling(1 / 2, "fan_in", "uniform")
            return dict(attention=attention, residual=linear, mlp=linear, patch=linear)
        if self.initialization == "gpt2":
            ordinary, residual = (nn.initializers.normal(0.02 * scale) for scale in (1.0, (2 * max(self.depth, 1))**-0.5))
            return dict(attention=ordinary, residual=residual, mlp=ordinary)
        std = self.width**-0.5
        return dict(attention=nn.initializers.normal(std), residual=nn.initializers.normal(std * (2 * max(self.depth, 1))**-0.5),
                    mlp=nn.initializers.normal((2 * self.width)**-0.5))
