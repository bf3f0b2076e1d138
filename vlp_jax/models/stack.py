"""The keys of a stack of transformer layers."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from vlp_jax.config.fields import between
from vlp_jax.config.section import Sizes
from vlp_jax.models.layers.flops import layer_flops, pooling_flops
from vlp_jax.models.layers.transformer import Transformer
from vlp_jax.models.options import LayerOptions, Precision
from vlp_jax.models.part import Part
from vlp_jax.models.presets import Size, size_of

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig(Part):
    """Fields shared by all stacks of transformer layers.

    None takes the preset's value. With another width than the preset's, the width of a head and the
    ratio of mlp_dim are the preset's. A stack has a key `preset`, too.
    """

    if TYPE_CHECKING:
        preset: str
    # of rematerialisation
    policies: ClassVar[tuple[str, ...]] = ("none", "save_matmuls", "save_names", "full")

    width: int | None = between(None, 1)
    depth: int | None = between(None, 0)  # 0: embeddings only
    heads: int | None = between(None, 1)
    mlp_dim: int | None = between(None, 1)
    norm: Literal["pre", "post"] = "pre"
    norm_kind: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = between(1e-6, 0.0, 1.0)
    # swiglu, geglu_tanh: a gated MLP with three matrices
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu", "geglu_tanh"] = "gelu"
    bias: bool = True  # of the linear layers of attention and MLP
    qk_norm: bool = False
    layer_scale: float | None = between(None, 0.0)  # initial value; None: no layer scale
    # of the embeddings and of the output of each residual branch
    dropout: float = between(0.0, 0.0, 1.0)
    # of attention weights; trains without the platform's kernel
    attention_dropout: float = between(0.0, 0.0, 1.0)
    mlp_dropout: float = between(0.0, 0.0, 1.0)  # after the activation of each MLP
    # rate of the last layer, growing linearly from 0
    stochastic_depth: float = between(0.0, 0.0, 1.0)
    scan: bool = False  # a loop of one compiled layer over stacked parameters
    # save_names: keep `saved`; auto: the first of none, save_matmuls and full that fits the device
    rematerialisation: Literal["none", "full", "save_matmuls", "save_names", "auto"] = "none"
    saved: tuple[
        Literal[
            "query", "key", "value", "attended", "attention_residual", "hidden", "mlp_residual"
        ],
        ...,
    ] = ()
    # auto: the platform's kernel where there is one; plain: never
    attention: Literal["auto", "plain"] = "auto"
    # Of kernels. normal: BERT's, with a standard deviation of 0.02; torch: the defaults of
    # PyTorch's layers
    initialization: Literal["clip", "xavier", "normal", "gpt2", "torch"] = "xavier"

    @property
    def size(self) -> Size:
        """The size of the layers.

        Raises: ConfigError for an unknown preset, and for a width that does not divide into its
          heads.
        """
        return size_of(self, self.section)

    def layer_options(
        self, precision: Precision, *, causal: bool = False, cross_attention: bool = False
    ) -> LayerOptions:
        """The options of the layers.

        Raises: ConfigError as `size`.
        """
        size = self.size
        return LayerOptions(
            width=size.width,
            heads=size.heads,
            mlp_dim=size.mlp_dim,
            depth=size.depth,
            norm=self.norm,
            norm_kind=self.norm_kind,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            bias=self.bias,
            qk_norm=self.qk_norm,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            mlp_dropout=self.mlp_dropout,
            causal=causal,
            initialization=self.initialization,
            attention=self.attention,
            cross_attention=cross_attention,
            precision=precision,
        )

    def transformer(self, options: LayerOptions, train: bool) -> Transformer:
        """The layers, as the submodule `transformer` of the calling module."""
        return Transformer(
            options,
            self.stochastic_depth,
            self.scan,
            self.rematerialisation,
            self.saved,
            train,
            name="transformer",
        )

    def stack_flops(self, tokens: int, one_wanted: bool) -> int:
        """All layers on one example, forward.

        Args:
          tokens: N.
          one_wanted: whether only one token of the last layer is needed. A scanned stack computes
            all tokens nonetheless.
        """
        size = self.size
        layer = layer_flops(size, tokens, activation=self.activation)
        last = (
            pooling_flops(size, tokens, activation=self.activation)
            if one_wanted and not self.scan
            else layer
        )
        return (size.depth - 1) * layer + last if size.depth else 0

    def ignored(self, experiment: "Experiment") -> Mapping[str, str]:
        """`saved` without the policy that reads it, and that policy without names to save."""
        found = dict(super().ignored(experiment))
        if self.rematerialisation != "save_names":
            found["saved"] = (
                f"with rematerialisation={self.rematerialisation!r}: it is for 'save_names'"
            )
        elif not self.saved:
            found["rematerialisation"] = (
                "as 'save_names' without names in `saved` (such as "
                "query, key, value): that is 'full'"
            )
        return found

    def smoke(self, sizes: Sizes) -> Self:
        """The preset Ti, with all its sizes reduced."""
        return dataclasses.replace(
            super().smoke(sizes),
            preset="Ti",
            width=sizes.width,
            depth=sizes.depth,
            heads=sizes.heads,
            mlp_dim=sizes.mlp_dim,
        )

    def small(self, sizes: Sizes) -> Self:
        """As `smoke`, without a scan and without rematerialisation."""
        return dataclasses.replace(self.smoke(sizes), scan=False, rematerialisation="none")
