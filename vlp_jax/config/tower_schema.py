"""What a config may say about the encoders: `model.image` and `model.text`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between


@dataclasses.dataclass(frozen=True)
class Stack:
    """What all stacks of transformer layers have in common. None takes the preset's value; where another width is set, its heads
    are as wide as the preset's, and mlp_dim is in proportion."""

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
    dropout: float = between(0.0, 0.0, 1.0)  # of the embeddings and of what each residual branch adds
    attention_dropout: float = between(0.0, 0.0, 1.0)  # of attention's weights; such a stack trains without the platform's kernel
    mlp_dropout: float = between(0.0, 0.0, 1.0)  # behind the activation of each MLP
    stochastic_depth: float = between(0.0, 0.0, 1.0)  # rate of the last layer, growing linearly from 0
    scan: bool = False  # one compiled layer looped over stacked parameters
    rematerialisation: Literal["none", "full", "save_matmuls", "save_names"] = "none"  # save_names: keep `saved`
    saved: tuple[Literal["query", "key", "value", "attended", "attention_residual", "hidden", "mlp_residual"], ...] = ()
    attention: Literal["auto", "plain"] = "auto"  # by the platform's kernel where it has one, or never
    # Of kernels. normal: BERT's, a standard deviation of 0.02; torch: what PyTorch's layers begin with
    initialization: Literal["clip", "xavier", "normal", "gpt2", "torch"] = "xavier"


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
class ResNetTower:
    """A residual network (He et al. 2016), or CLIP's variant of it (Radford et al. 2021). Its tokens are the last feature map."""

    kind: Literal["resnet"] = "resnet"
    depth: int = 50  # 18 and 34 of basic blocks; 50, 101 and 152 of bottlenecks
    blocks: tuple[int, ...] = ()  # of each stage, instead of depth's numbers
    width: int = between(64, 1)  # channels of the first stage; each further stage has twice as many
    norm: Literal["batch", "group"] = "batch"  # batch: statistics of the whole batch; group: no example knows of another
    groups: int = between(32, 1)  # of norm="group"
    image_size: int = between(224, 1)
    stem_size: int = between(7, 1)  # of the first convolution, an odd number; 3 for small pictures
    stem_stride: int = between(2, 1)
    max_pool: bool = True  # behind the stem, which halves the picture again
    clip: bool = False  # a stem of three convolutions, strides by average pooling, and attention pooling
    heads: int = between(32, 1)  # clip: of the attention pooling
    output_dim: int = between(1024, 1)  # clip: of the pooled vector
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class ConvolutionTower:
    """Fields that the other convolutional networks share. Their tokens are the last feature map."""

    groups: int = between(32, 1)  # of norm="group"
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class VggTower(ConvolutionTower):
    """Plain 3x3 convolutions (Simonyan & Zisserman 2015)."""

    kind: Literal["vgg"] = "vgg"
    depth: int = 16  # 11, 13, 16 or 19, of which three layers are the paper's fully connected ones
    norm: Literal["none", "batch", "group"] = "none"
    width: int = between(64, 1)  # channels of the first stage
    image_size: int = between(224, 1)
    pooling: Literal["mean", "hidden"] = "mean"  # hidden: two fully connected layers on the whole map
    hidden_dim: int = between(4096, 1)  # of pooling="hidden"
    dropout: float = between(0.5, 0.0, 1.0)  # of pooling="hidden"


@dataclasses.dataclass(frozen=True)
class InceptionTower(ConvolutionTower):
    """Inception-v3 (Szegedy et al. 2016), without its auxiliary classifier."""

    kind: Literal["inception_v3"] = "inception_v3"
    norm: Literal["batch", "group"] = "batch"
    width: int = between(32, 1)  # channels of the first convolution; all others are in proportion
    image_size: int = between(299, 1)


AnyImageTower = ImageTower | ResNetTower | VggTower | InceptionTower


@dataclasses.dataclass(frozen=True)
class Words:
    """What all text encoders have in common."""

    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    # A file in the text format of GloVe or word2vec, as wide as the words' embeddings, with which those of its words begin
    word_vectors: str | None = None
    word_overlap: float = between(0.5, 0.0, 1.0)  # of the vocabulary's words, so many must be there


@dataclasses.dataclass(frozen=True)
class TextTower(Words, Tower):
    """A text Transformer."""

    kind: Literal["transformer"] = "transformer"
    preset: str = "clip-B"
    causal: bool = True
    padding_mask: bool = True  # False lets tokens attend padding, as SigLIP does
    pooling: Literal["end", "last", "first", "cls", "cls_end", "mean", "map"] = "end"  # cls_end: a learned token behind the text
    position: Literal["learned", "sinusoidal", "relative"] = "learned"  # relative: T5's, and no kernel for attention
    token_types: int = between(0, 0)  # segments told apart by an embedding of their own, as BERT's two
    embedding_norm: bool = False  # BERT's LayerNorm in front of the first layer
    final_norm: bool = True  # False: none behind the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on what is pooled
    word_std: float = between(0.02, 0.0)  # of the first values of the words' embeddings
    position_std: float = between(0.01, 0.0)  # and of those of positions and token types


@dataclasses.dataclass(frozen=True)
class WordTower(Words):
    """What the text encoders have in common that are no transformers."""

    width: int = between(1024, 1)  # of the tokens and of what is pooled
    dropout: float = between(0.0, 0.0, 1.0)  # of what enters each layer; of a bag's words
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from `width` to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class RecurrentTower(WordTower):
    """Fields that the recurrent networks share."""

    embedding_width: int = between(300, 1)  # of the words
    depth: int = between(1, 1)  # layers
    pooling: Literal["end", "mean", "attention"] = "end"  # end: the state that each direction ends in


@dataclasses.dataclass(frozen=True)
class LstmTower(RecurrentTower):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) from left to right."""

    kind: Literal["lstm"] = "lstm"


@dataclasses.dataclass(frozen=True)
class BidirectionalLstmTower(RecurrentTower):
    """Two LSTMs a layer, one each way, each half as wide as the tokens."""

    kind: Literal["bidirectional_lstm"] = "bidirectional_lstm"


@dataclasses.dataclass(frozen=True)
class GruTower(RecurrentTower):
    """Gated recurrent units (Cho et al. 2014) from left to right."""

    kind: Literal["gru"] = "gru"


@dataclasses.dataclass(frozen=True)
class BagTower(WordTower):
    """The mean of the words' embeddings."""

    kind: Literal["bag"] = "bag"


AnyTextTower = TextTower | LstmTower | BidirectionalLstmTower | GruTower | BagTower
