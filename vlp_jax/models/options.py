"""Precision of computation, and the options of a transformer layer."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.section import Section
from vlp_jax.sharding.linear_maps import linear_map
from vlp_jax.sharding.parameter_sharding import Axes, path_of

Initializer = Callable[..., jax.Array]

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """A value whose type allows for None, where it is never None: an encoding's tokens, the fusion
    of an objective."""
    assert value is not None
    return value


def with_logical_axes(initializer: Initializer, axes: tuple[str | None, ...]) -> Initializer:
    """An initializer of a parameter that has logical axes.

    Flax boxes its result with them, and `param` returns the array.
    """
    return cast(Initializer, nn.with_logical_partitioning(initializer, axes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionConfig(Section):
    """Parameters, logits and losses are always float32."""

    compute: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class Precision:
    """Parameters are float32; matrix products and activations use `compute`.

    Created once and passed down.
    """

    compute: jnp.dtype = jnp.float32

    def dense(
        self,
        features: int | Sequence[int],
        axes: tuple[str, ...],
        *,
        kernel_init: Initializer,
        use_bias: bool = True,
        axis: int | Sequence[int] = -1,
        name: str | None = None,
    ) -> nn.DenseGeneral:
        """A linear layer whose kernel carries the logical `axes`: inputs first, then outputs (see
        `linear_maps.linear_map`)."""
        outputs = len(features) if isinstance(features, Sequence) else 1
        return nn.DenseGeneral(
            features,
            axis=axis,
            use_bias=use_bias,
            dtype=self.compute,
            param_dtype=jnp.float32,
            name=name,
            kernel_init=with_logical_axes(kernel_init, axes),
            bias_init=with_logical_axes(nn.initializers.zeros, axes[-outputs:]),
        )

    def working_copy(self, params: Any, axes: Mapping[str, Axes]) -> Any:
        """`params` with every kernel cast to `compute`, as each layer would cast it.

        When cast before a scan over layers, the gradients of the kernels leave the scan in
        `compute`, half as large, and results are equal.

        Args:
          params: the parameters.
          axes: {path: logical axes}; parameters that are absent stay as they are.
        """

        def cast(path, leaf):
            names = axes.get(path_of(path))
            return leaf if names is None or linear_map(names) is None else leaf.astype(self.compute)

        return jax.tree_util.tree_map_with_path(cast, params)

    def layer_norm(
        self, epsilon: float, name: str | None = None, axis: str = "embed"
    ) -> nn.LayerNorm:
        """LayerNorm with statistics in float32 and the result in `compute`."""
        return nn.LayerNorm(
            epsilon=epsilon,
            dtype=self.compute,
            param_dtype=jnp.float32,
            name=name,
            scale_init=with_logical_axes(nn.initializers.ones, (axis,)),
            bias_init=with_logical_axes(nn.initializers.zeros, (axis,)),
        )

    def rms_norm(self, epsilon: float, name: str | None = None, axis: str = "embed") -> nn.RMSNorm:
        """RMSNorm (Zhang & Sennrich 2019), which subtracts no mean and adds no bias.

        Statistics are in float32, the result is in `compute`.
        """
        return nn.RMSNorm(
            epsilon=epsilon,
            dtype=self.compute,
            param_dtype=jnp.float32,
            name=name,
            scale_init=with_logical_axes(nn.initializers.ones, (axis,)),
        )


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), OpenAI CLIP's approximation (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
}


# The activation of the gate of an MLP with three matrices: act(x W) * x V (Shazeer 2020).
GATES = {"swiglu": jax.nn.silu, "geglu_tanh": ACTIVATIONS["gelu_tanh"]}


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """All options of a transformer layer except its index in the stack."""

    width: int
    heads: int
    mlp_dim: int
    norm: str = "pre"  # "pre": x + f(norm(x)); "post": norm(x + f(x))
    norm_kind: str = "layer"  # LayerNorm, or "rms"
    norm_epsilon: float = 1e-6
    activation: str = "gelu"  # a name of ACTIVATIONS, or of GATES
    bias: bool = True  # of the linear layers
    qk_norm: bool = False
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    causal: bool = False
    cross_attention: bool = False
    memory_norm: bool = False  # of cross-attention: a norm of the memory before keys and values
    inner_mlp: bool = False  # a further MLP between self- and cross-attention
    initialization: str = "xavier"
    depth: int = 1  # of the stack; scales the initial values of "clip" and "gpt2"
    attention: str = "auto"  # "plain": never a platform's kernel
    precision: Precision = Precision()
    position_buckets: int = 0  # of each layer's relative position bias; 0: it has none
    # branches whose parameters a decoder does not share with its tower: "attention", "cross", "mlp"
    own: tuple[str, ...] = ()

    def name_of(self, branch: str) -> str:
        """The name of a branch's parameters; stacks that call the same layers share those of equal
        names."""
        return f"decoder_{branch}" if branch in self.own else branch

    def linear(self, x: jax.Array, name: str) -> jax.Array:
        """A linear map [B, N, D'] -> [B, N, D]. To be called inside a module."""
        return self.precision.dense(
            self.width, ("embed", "mlp"), kernel_init=self.initializers()["residual"], name=name
        )(x)

    def to_width(self, x: jax.Array, name: str) -> jax.Array:
        """[B, N, D'] -> [B, N, D]: x itself where it has this width, else a linear map of it."""
        return x if x.shape[-1] == self.width else self.linear(x, name)

    def normalisation(self, name: str, axis: str = "embed") -> nn.Module:
        """The norm used throughout the stack."""
        kind = self.precision.rms_norm if self.norm_kind == "rms" else self.precision.layer_norm
        return kind(self.norm_epsilon, name, axis)

    @property
    def keeps_branches(self) -> bool:
        """Whether the backward pass needs the output of a residual branch, and not only the sum.

        This is so with layer scale and with post-norm. The activations named `attention_residual`,
        `cross_residual` and `mlp_residual` for rematerialisation are then those outputs.
        """
        return self.layer_scale is not None or self.norm == "post"

    def initializers(self) -> dict[str, Initializer]:
        """Initializers of the kernels, by the kind of layer, for the scheme `initialization`.

        `xavier`: uniform, as in big_vision.

        `normal`: std 0.02 (Devlin et al. 2019).

        `gpt2`: std 0.02, divided by the square root of the number of residual branches, 2 depth,
        for layers that write to the residual stream (Radford et al. 2019, section 2.3).

        `clip`: normal with std D^-1/2 for query, key and value, D^-1/2 (2 depth)^-1/2 for layers
        that write to the residual stream, and (2 D)^-1/2 for the MLP's input (Radford et al. 2021,
        section 2.4 and its code).

        `torch`: the defaults of PyTorch's modules: uniform up to fan_in^-1/2, and up to (1.5 /
        D)^1/2 for query, key and value (`nn.Linear`, `nn.MultiheadAttention`).

        Returns: the initializers of "attention" (query, key, value), "residual", "mlp", and for
          `torch` also "patch".
        """
        same = {
            "xavier": nn.initializers.xavier_uniform(),
            "normal": nn.initializers.normal(0.02),
        }.get(self.initialization)
        if same is not None:
            return dict(attention=same, residual=same, mlp=same)
        if self.initialization == "torch":
            linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
            attention = nn.initializers.variance_scaling(1 / 2, "fan_in", "uniform")
            return dict(attention=attention, residual=linear, mlp=linear, patch=linear)
        if self.initialization == "gpt2":
            ordinary, residual = (
                nn.initializers.normal(0.02 * scale)
                for scale in (1.0, (2 * max(self.depth, 1)) ** -0.5)
            )
            return dict(attention=ordinary, residual=residual, mlp=ordinary)
        std = self.width**-0.5
        return dict(
            attention=nn.initializers.normal(std),
            residual=nn.initializers.normal(std * (2 * max(self.depth, 1)) ** -0.5),
            mlp=nn.initializers.normal((2 * self.width) ** -0.5),
        )
