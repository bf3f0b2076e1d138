"""The base of all image towers."""

import dataclasses
from typing import ClassVar, Literal

from vlp_jax.config.fields import between
from vlp_jax.config.registry import Kinds
from vlp_jax.config.section import Component


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(Component):
    """Fields shared by all image towers."""

    kinds: ClassVar[Kinds] = Kinds({
        "vit": "vlp_jax.models.vision.vit:ViTConfig",
        "resnet": "vlp_jax.models.vision.resnet:ResNetConfig",
        "vgg": "vlp_jax.models.vision.vgg:VggConfig",
        "inception_v3": "vlp_jax.models.vision.inception:InceptionConfig",
    }, default="vit")

    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionConfig(ImageTowerConfig):
    """Fields shared by the other convolutional networks. Their tokens are the last feature map."""

    groups: int = between(32, 1)  # of norm="group"
    rematerialisation: Literal["none", "full"] = "none"  # full: the backward pass computes each block again
    projection: Literal["none", "linear", "linear_with_bias"] = "linear"  # from pooled width to `model.embedding_dim`
