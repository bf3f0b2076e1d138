"""Schema of the encoders: `model.image` and `model.text`."""

import dataclasses
from typing import Literal

from vlp_jax.config.fields import between


@dataclasses.dataclass(frozen=True)
class Stack:
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


@dataclasses.dataclass(frozen=True)
class Tower(Stack):
    """Fields shared by image and text transformers."""

    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class ImageTower(Tower):
    """A Vision Transformer."""

    kind: Literal["vit"] = "vit"
    preset: str = "B/16"  # a size of `models/presets.py`, optionally with a patch size after a slash
    patch_size: int | None = between(None, 1)
    image_size: int = between(224, 1)
    stem: Literal["patch", "convolution"] = "patch"
    stem_channels: tuple[int, ...] = ()  # of the convolution stem, one per layer
    stem_strides: tuple[int, ...] = ()  # one per layer; their product is the patch size
    patch_bias: bool = True
    position: Literal["learned", "factorised", "sincos2d", "rotary2d"] = "learned"
    pooling: Literal["cls", "mean", "map", "none"] = "cls"
    registers: int = between(0, 0)
    embedding_norm: bool = False  # CLIP's LayerNorm before the first layer
    norm_before_pooling: bool = True  # False: after it, on the pooled vector (as in CLIP; equal for cls)
    token_drop: float = between(0.0, 0.0, 0.99)  # fraction of patches dropped in training (FLIP)


@dataclasses.dataclass(frozen=True)
class ResNetTower:
    """A residual network (He et al. 2016), or CLIP's variant of it (Radford et al. 2021).

    Its tokens are the last feature map.
    """

    kind: Literal["resnet"] = "resnet"
    depth: int = 50  # 18 and 34 of basic blocks; 50, 101 and 152 of bottlenecks
    blocks: tuple[int, ...] = ()  # of each stage, in place of those given by `depth`
    width: int = between(64, 1)  # channels of the first stage; each further stage has twice as many
    norm: Literal["batch", "group"] = "batch"  # batch: statistics of the global batch; group: of each example
    groups: int = between(32, 1)  # of norm="group"
    image_size: int = between(224, 1)
    stem_size: int = between(7, 1)  # of the first convolution, an odd number; 3 for small images
    stem_stride: int = between(2, 1)
    max_pool: bool = True  # after the stem; halves the feature map again
    clip: bool = False  # a stem of three convolutions, strides by average pooling, and attention pooling
    heads: int = between(32, 1)  # clip: of attention pooling
    output_dim: int = between(1024, 1)  # clip: of the pooled vector
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class ConvolutionTower:
    """Fields shared by the other convolutional networks. Their tokens are the last feature map."""

    groups: int = between(32, 1)  # of norm="group"
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class VggTower(ConvolutionTower):
    """Plain 3x3 convolutions (Simonyan & Zisserman 2015)."""

    kind: Literal["vgg"] = "vgg"
    depth: int = 16  # 11, 13, 16 or 19, including the paper's three fully connected layers
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
    """Fields shared by all text encoders."""

    vocab_size: int = between(49408, 1)
    length: int = between(77, 1)
    # File in the text format of GloVe or word2vec that initialises token embeddings; of the same width
    word_vectors: str | None = None
    word_overlap: float = between(0.5, 0.0, 1.0)  # fraction of the vocabulary's words that the file must have


@dataclasses.dataclass(frozen=True)
class TextTower(Words, Tower):
    """A text transformer."""

    kind: Literal["transformer"] = "transformer"
    preset: str = "clip-B"
    causal: bool = True
    padding_mask: bool = True  # False: tokens attend to padding, as in SigLIP
    pooling: Literal["end", "last", "first", "cls", "cls_end", "mean", "map"] = "end"  # cls_end: a learned token after the text
    position: Literal["learned", "sinusoidal", "relative"] = "learned"  # relative: T5's, without an attention kernel
    token_types: int = between(0, 0)  # number of segment embeddings; BERT has two
    embedding_norm: bool = False  # BERT's LayerNorm before the first layer
    final_norm: bool = True  # False: none after the last layer, as with norm="post"
    pooler: bool = False  # a linear layer and tanh on the pooled vector
    word_std: float = between(0.02, 0.0)  # std of the initial token embeddings
    position_std: float = between(0.01, 0.0)  # std of the initial embeddings of positions and token types


@dataclasses.dataclass(frozen=True)
class WordTower(Words):
    """Fields shared by the text encoders other than transformers."""

    width: int = between(1024, 1)  # of the tokens and of the pooled vector
    dropout: float = between(0.0, 0.0, 1.0)  # of the inputs of each layer; of the embeddings of a bag of words
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from `width` to `model.embedding_dim`


@dataclasses.dataclass(frozen=True)
class RecurrentTower(WordTower):
    """Fields shared by the recurrent networks."""

    embedding_width: int = between(300, 1)  # of the tokens
    depth: int = between(1, 1)  # layers
    pooling: Literal["end", "mean", "attention"] = "end"  # end: the final state of each direction


@dataclasses.dataclass(frozen=True)
class LstmTower(RecurrentTower):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), left to right."""

    kind: Literal["lstm"] = "lstm"


@dataclasses.dataclass(frozen=True)
class BidirectionalLstmTower(RecurrentTower):
    """Two LSTMs per layer, one in each direction, each half as wide as the tokens."""

    kind: Literal["bidirectional_lstm"] = "bidirectional_lstm"


@dataclasses.dataclass(frozen=True)
class GruTower(RecurrentTower):
    """Gated recurrent units (Cho et al. 2014), left to right."""

    kind: Literal["gru"] = "gru"


@dataclasses.dataclass(frozen=True)
class BagTower(WordTower):
    """The mean of the token embeddings."""

    kind: Literal["bag"] = "bag"


AnyTextTower = TextTower | LstmTower | BidirectionalLstmTower | GruTower | BagTower
