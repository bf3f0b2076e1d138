"""Parts shared by the convolutional image towers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlp_jax.config.fields import between
from vlp_jax.models.options import Precision, with_logical_axes
from vlp_jax.models.vision.tower import ImageTowerConfig

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

CONVOLUTION = ("kernel_height", "kernel_width", "channels", "embed")  # logical axes of a kernel
DEPTHWISE = ("kernel_height", "kernel_width", None, "embed")
Padding = str | Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """How convolutions and their normalisation are built.

    Attributes:
      norm: `batch` (statistics of the global batch in training, however it is sharded; their
        running mean in evaluation), `group` (the number of groups is the greatest common divisor of
        `groups` and the channels), or `none`.
      rematerialised: whether the backward pass recomputes each block.
    """

    norm: str = "batch"
    groups: int = 32  # Wu & He 2018
    rematerialised: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    precision: Precision = Precision()

    def convolution(
        self,
        channels: int,
        size: int | tuple[int, int],
        stride: int = 1,
        *,
        padded: bool = True,
        padding: Padding | None = None,
        depthwise: bool = False,
        bias: bool = False,
        name: str | None = None,
    ) -> nn.Conv:
        """A convolution.

        With `padded`, the output has the size of the input apart from the stride; `padding`
        replaces it, as in Flax. `depthwise` is of each channel alone.
        """
        sizes = (size, size) if isinstance(size, int) else size
        usual = [(side // 2, side // 2) if padded else (0, 0) for side in sizes]
        fan, axes = ("fan_in", DEPTHWISE) if depthwise else ("fan_out", CONVOLUTION)
        init = with_logical_axes(nn.initializers.variance_scaling(2.0, fan, "normal"), axes)
        return nn.Conv(
            channels,
            sizes,
            stride,
            padding=usual if padding is None else padding,
            feature_group_count=channels if depthwise else 1,
            use_bias=bias,
            name=name,
            dtype=self.precision.compute,
            param_dtype=jnp.float32,
            kernel_init=init,
            bias_init=with_logical_axes(nn.initializers.zeros, ("embed",)),
        )

    def normalise(self, x: jax.Array, train: bool, name: str, scale: float = 1.0) -> jax.Array:
        """[B, H, W, C] normalised, with learned scales initialised to `scale`.

        To be called inside a module.
        """
        if self.norm == "none":
            return x
        shared = dict(
            epsilon=self.epsilon,
            dtype=self.precision.compute,
            param_dtype=jnp.float32,
            name=name,
            scale_init=with_logical_axes(nn.initializers.constant(scale), ("embed",)),
            bias_init=with_logical_axes(nn.initializers.zeros, ("embed",)),
        )
        if self.norm == "group":
            return nn.GroupNorm(num_groups=math.gcd(self.groups, x.shape[-1]), **shared)(x)
        return nn.BatchNorm(momentum=self.momentum, **shared)(x, use_running_average=not train)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionConfig(ImageTowerConfig):
    """Fields shared by the convolutional networks. Their tokens are the last feature map.

    A network has a key `norm`, too.

    Attributes:
      norm_epsilon: of the normalisation.
    """

    norm_epsilon: ClassVar[float] = 1e-5
    if TYPE_CHECKING:
        norm: str
    policies: ClassVar[tuple[str, ...]] = ("none", "full")

    groups: int = between(32, 1)  # of norm="group"
    # full: the backward pass computes each block again; auto: where that is needed to fit
    rematerialisation: Literal["none", "full", "auto"] = "none"
    # from pooled width to `model.embedding_dim`
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"

    def convolutions(self, precision: Precision) -> Convolutions:
        """How the network's convolutions are built."""
        return Convolutions(
            self.norm,
            self.groups,
            self.rematerialisation == "full",
            epsilon=self.norm_epsilon,
            precision=precision,
        )

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`groups`, where the norm is no group norm."""
        unused = {} if self.norm == "group" else {"groups": f"with norm={self.norm!r}"}
        return {**super().ignored(experiment), **unused}


def convolution_flops(side: int, size: int, channels: int, wider: int) -> int:
    """A convolution with size^2 weights per pair of channels and an output of side x side."""
    return 2 * side**2 * size**2 * channels * wider
