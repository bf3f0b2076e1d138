"""The keys of a stack of transformer layers."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between
from vlp_jax.config.section import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig(Section):
    """Fields shared by all stacks of transformer layers.

    None takes the preset's value. With another width than the preset's, the width of a head and the
    ratio of mlp_dim are the preset's.
    """

    width: int | None = between(None, 1)
    depth: int | None = between(None, 0)  # 0: embeddings only
    heads: int | None = between(None, 1)
    mlp_dim: int | None = between(None, 1)
    norm: Literal["pre", "post"] = "pre"
    norm_kind: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = between(1e-6, 0.0, 1.0)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"] = "gelu"  # swiglu: a gated MLP with three matrices
    qk_norm: bool = False
    layer_scale: float | None = between(None, 0.0)  # initial value; None: no layer scale
    dropout: float = between(0.0, 0.0, 1.0)  # of the embeddings and of the output of each residual branch
    attention_dropout: float = between(0.0, 0.0, 1.0)  # of attention weights; trains without the platform's kernel
    mlp_dropout: float = between(0.0, 0.0, 1.0)  # after the activation of each MLP
    stochastic_depth: float = between(0.0, 0.0, 1.0)  # rate of the last layer, growing linearly from 0
    scan: bool = False  # a loop of one compiled layer over stacked parameters
    rematerialisation: Literal["none", "full", "save_matmuls", "save_names"] = "none"  # save_names: keep `saved`
    saved: tuple[Literal["query", "key", "value", "attended", "attention_residual", "hidden", "mlp_residual"], ...] = ()
    attention: Literal["auto", "plain"] = "auto"  # auto: the platform's kernel where there is one; plain: never
    # Of kernels. normal: BERT's, with a standard deviation of 0.02; torch: the defaults of PyTorch's layers
    initialization: Literal["clip", "xavier", "normal", "gpt2", "torch"] = "xavier"
