"""What a config may say about the model: the `model` section."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between, section


@dataclasses.dataclass(frozen=True)
class Stack:
    """What all stacks of transformer layers have in common. None takes the preset's value."""

    width: int | None = between(None, 1)
    depth: int | None = between(None, 0)  # 0: nothing but embeddings
    heads: int | None = between(None, 1)
    mlp_dim: int | None = between(None, 1)
    norm: Literal["pre", "post"] = "pre"
    norm_kind: Literal["layer", "rms"] = "layer"
    norm_epsilon: float = between(1e-6, 0.0, 1.0)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"] = "gelu"  # swiglu: a gated MLP of three matrices
    qk_norm: bool = False
    layer_scale: float | None = between(None, 0.0)  # initial value; None leaves it out
    dropout: float = between(0.0, 0.0, 1.0)
    stochastic_depth: float = between(0.0, 0.0, 1.0)  # rate of the last layer, growing linearly from 0
    scan: bool = False  # one compiled layer looped over stacked parameters
    rematerialisation: Literal["none", "full", "save_matmuls", "save_names"] = "none"  # save_names: keep `saved`
    saved: tuple[Literal["query", "key", "value", "attended", "attention_residual", "hidden", "mlp_residual"], ...] = ()
    attention: Literal["auto", "plain"] = "auto"  # by the platform's kernel where it has one, or never
    initialization: Literal["clip", "xavier", "normal"] = "xavier"  # normal: BERT's, a standard deviation of 0.02


@dataclasses.dataclass(frozen=True)
class Tower(Stack):
    """What an image and a text transformer have in common."""

    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class ImageTower(Tower):
    """A Vision Transformer."""

    kind: Literal["vit"] = "vit"
    preset: str = "B/16"  # a size of `models/presets.py`, optionally with a patch size behind a slash
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one a layer
    stem_strides: tuple[int, ...] = ()  # one a layer; their product is the patch size
    patch_bias: bool = True
    position: Literal["learned", "factorised", "sincos2d", "rotary2d"] = "learned"
    pooling: Literal["cls", "mean", "map", "none"] = "cls"
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm in front of the first layer
    norm_before_pooling: bool = True  # False: after it, on the pooled vector (as CLIP does; the same for cls)
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches left out in training (FLIP)


@dataclasses.dataclass(frozen=True)
class TextTower(Tower):
    """A text Transformer."""

    kind: Literal["transformer"] = "transformer"
    preset: str = "clip-B"
    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    causal: bool = True
    padding_mask: bool = True  # False lets tokens attend padding, as SigLIP does
    pooling: Literal["end", "last", "first", "cls", "mean", "map"] = "end"
    token_types: int = between(0, 0)  # segments told apart by an embedding of their own, as BERT's two
    embedding_norm: bool = False  # BERT's LayerNorm in front of the first layer
    final_norm: bool = True  # False: none behind the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on what is pooled


@dataclasses.dataclass(frozen=True)
class FusionStack(Stack):
    """Fields that the fusions by transformer layers share."""

    preset: str = "B"
    final_norm: bool = True  # False: none behind the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on what is pooled


@dataclasses.dataclass(frozen=True)
class CrossAttentionFusion(FusionStack):
    """Text tokens go on through layers that also attend the image's tokens (ALBEF, BLIP)."""

    kind: Literal["cross_attention"] = "cross_attention"


@dataclasses.dataclass(frozen=True)
class MergedFusion(FusionStack):
    """One stream of image and text tokens (ViLT, FLAVA)."""

    kind: Literal["merged"] = "merged"


@dataclasses.dataclass(frozen=True)
class CoAttentionFusion(FusionStack):
    """Two streams, each of which attends itself and the other in every layer (METER)."""

    kind: Literal["co_attention"] = "co_attention"


@dataclasses.dataclass(frozen=True)
class ConcatenationFusion:
    """An MLP on what the two towers pooled."""

    kind: Literal["concatenation"] = "concatenation"
    width: int = between(768, 1)
    mlp_dim: int = between(3072, 1)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"


Fusion = CrossAttentionFusion | MergedFusion | CoAttentionFusion | ConcatenationFusion


@dataclasses.dataclass(frozen=True)
class Model:
    """An image encoder and a text encoder with a shared embedding space."""

    image: ImageTower = section(ImageTower)
    text: TextTower = section(TextTower)
    fusion: Fusion | None = None  # of image and text, for objectives on both at once
    embedding_dim: int | None = between(None, 1)  # None: the text preset's width
